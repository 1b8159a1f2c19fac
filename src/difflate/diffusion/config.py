"""A `Process` as plain settings, which YAML and config.json hold."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from difflate.diffusion.checks import check_one_of
from difflate.diffusion.process import Condition, Process, Scaling, Times
from difflate.diffusion.schedules import SCHEDULES, Shifted
from difflate.diffusion.weighting import WEIGHTS, Target
from difflate.errors import ConfigError

_NOISE_SCALE = {"t": 1000.0, "n/N": 1000.0, "logsnr": 25.0, "sigma": 12.5}


@dataclass(frozen=True)
class ProcessConfig:
    """The five choices by their names."""

    schedule: Literal["cosine", "linear", "edm", "flow"] = "cosine"
    schedule_options: dict[str, float] = field(default_factory=dict)
    """Arguments of the schedule's class in difflate.diffusion, for instance logsnr_min of cosine."""
    shift: float = 1.0
    """Noise for images so many times as large (Hoogeboom et al. 2023)."""
    scaling: Scaling = "vp"
    target: Target = "v"
    condition: Condition = "t"
    """What the network is told about the noise."""
    weighting: Literal["none", "constant", "min-snr", "p2", "sech", "truncated", "edm"] = "none"
    """Weight on the squared error of x0; none: the plain squared error of the target."""
    weighting_options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the weight's class in difflate.diffusion, for instance gamma of min-snr."""
    N: int = 1000
    """Number of discrete times of the condition n/N."""
    times: Times = "uniform"
    """Where training looks: uniform, or logit-normal, more often in the middle, with a uniform tenth."""

    def __post_init__(self) -> None:
        check_one_of("schedule", self.schedule, SCHEDULES)
        check_one_of("weighting", self.weighting, ["none", *WEIGHTS])
        if self.weighting == "none" and self.weighting_options:
            raise ConfigError(
                f"`weighting_options` (={self.weighting_options}) must be empty for `weighting` (='none')"
            )
        self.build()

    def build(self) -> Process:
        """The process. Raises ConfigError for options that its parts do not have."""
        schedule = _part(SCHEDULES[self.schedule], self.schedule, "schedule_options", self.schedule_options)
        weighting = None
        if self.weighting != "none":
            weighting = _part(WEIGHTS[self.weighting], self.weighting, "weighting_options", self.weighting_options)
        return Process(
            schedule if self.shift == 1 else Shifted(schedule, self.shift),
            self.scaling,
            self.target,
            self.condition,
            weighting,
            self.N,
            self.times,
        )

    @property
    def noise_scale(self) -> float:
        """The `difflate.nn.UNetConfig.noise_scale` that takes the condition to a range of about a thousand."""
        return _NOISE_SCALE[self.condition]


def _part(cls: Any, name: str, key: str, options: Mapping[str, Any]) -> Any:
    """``cls`` with ``options``, the setting ``key`` of the choice ``name``. Raises ConfigError."""
    known = [field.name for field in dataclasses.fields(cls)]
    for option in options:
        if option not in known:
            raise ConfigError(f"`{key}` (={option!r}) must be one of {', '.join(known) or 'none'} for {name!r}")
    try:
        return cls(**options)
    except TypeError as error:
        raise ConfigError(f"`{key}` (={dict(options)}) must hold numbers for {name!r} ({error})") from error
