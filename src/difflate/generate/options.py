"""How images are sampled: declared once for Python, the command line and its help. Imports no torch."""

import math
from dataclasses import dataclass

from difflate.errors import ConfigError

SAMPLER_NAMES = ("ddpm", "ddim", "euler", "heun", "dpmpp_2m")
"""The keys of `difflate.diffusion.SAMPLERS`."""
_MAX_STEPS = 1000


@dataclass(frozen=True)
class SampleOptions:
    """What `difflate.generate.sample` and `trajectory` can be told. Raises ConfigError for what no model takes."""

    steps: int | None = None
    """Steps of the sampler, 1 to 1000; None: the model's own, 30 but for those that were distilled."""
    sampler: str | None = None
    """One of `SAMPLER_NAMES`; None: the model's own."""
    seed: int = 0
    """Seed of all noise; that of an image follows from it and the image's number."""
    classes: tuple[str, ...] | list[str] = ()
    """Names of classes, taken in turn; none: all in turn."""
    guidance: float = 1.0
    """Weight of classifier-free guidance; 1: none."""
    temperature: float | None = None
    """γ of a categorical model (Scribano et al. 2023, Eq. 25); None: the model's own."""
    size: tuple[int, int] | None = None
    """(height, width) in px; None: that of the images that the model was trained on."""

    def __post_init__(self) -> None:
        from difflate.seeds import check_seed

        if self.sampler is not None and self.sampler not in SAMPLER_NAMES:
            raise ConfigError(f"sampler (={self.sampler}) must be one of {', '.join(SAMPLER_NAMES)}")
        if self.steps is not None and not 1 <= self.steps <= _MAX_STEPS:
            raise ConfigError(f"steps (={self.steps}) must be from 1 to {_MAX_STEPS}")
        check_seed(self.seed)
        if not math.isfinite(self.guidance):
            raise ConfigError(f"guidance (={self.guidance}) must be a number; 1 is none")
