"""The five choices of a diffusion model, all functions of l = logSNR (Rampas 2024, 2.4)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from difflate.diffusion.checks import check_one_of, check_positive
from difflate.diffusion.draws import Generators, normal
from difflate.diffusion.schedules import Schedule
from difflate.diffusion.weighting import Target, Weight, factor
from difflate.errors import ConfigError

Scaling = Literal["vp", "ve", "flow"]
Condition = Literal["t", "logsnr", "sigma", "n/N"]
Times = Literal["uniform", "logit-normal"]

_UNIFORM_SHARE = 0.1
"""Share of logit-normal times that are uniform."""
LOGSNR_LIMIT = 40.0
"""Weights and noise conditions see logSNR within ± this: b/a is 2e-9 there, and float32 can square what follows."""


@dataclass(frozen=True)
class Process:
    """x = a·x0 + b·eps (Eq. 1), and y = p·x0 + q·eps for the network to predict.

    ``logsnr`` is one logSNR for all items, (), or one each, (B,); tensors of data are (B, …).
    """

    schedule: Schedule
    scaling: Scaling = "vp"
    """(a, b): vp, a² + b² = 1; ve, a = 1; flow, a + b = 1."""
    target: Target = "v"
    """(p, q): x0 (1, 0); eps (0, 1); v (-b, a)/√(a² + b²); flow (-1, 1)."""
    condition: Condition = "t"
    """What the network is told about the noise."""
    weighting: Weight | None = None
    """Weight on the squared x0 error; None: the plain squared error of the target."""
    N: int = 1000
    """Number of discrete times in training, for the condition n/N."""
    times: Times = "uniform"
    """Where training looks: uniform in t; logit-normal, more often in the middle, but for a uniform tenth."""

    def __post_init__(self) -> None:
        check_one_of("scaling", self.scaling, get_args(Scaling))
        check_one_of("target", self.target, get_args(Target))
        check_one_of("condition", self.condition, get_args(Condition))
        check_one_of("times", self.times, get_args(Times))
        check_positive(N=self.N)

    def logsnr(self, t: Tensor) -> Tensor:
        """l at ``t``, same shape."""
        return self.schedule(t)

    def scale(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """(a, b) at ``logsnr``, same shape."""
        if self.scaling == "vp":
            return logsnr.sigmoid().sqrt(), (-logsnr).sigmoid().sqrt()
        if self.scaling == "ve":
            return torch.ones_like(logsnr), (-logsnr / 2).exp()
        return (logsnr / 2).sigmoid(), (-logsnr / 2).sigmoid()

    def coefficients(self, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """(p, q) of the target at ``logsnr``, same shape.

        Dividing v by √(a² + b²) changes nothing under vp, and makes v the same number under every scaling: with ve
        it is EDM's network output at σ_data = 1, with the sign turned.
        """
        zero, one = torch.zeros_like(logsnr), torch.ones_like(logsnr)
        if self.target == "v":
            a, b = self.scale(logsnr)
            return -b / torch.hypot(a, b), a / torch.hypot(a, b)
        return {"x0": (one, zero), "eps": (zero, one), "flow": (-one, one)}[self.target]

    def noise(self, x0: Tensor, eps: Tensor, logsnr: Tensor) -> Tensor:
        """x: (B, …), noisy, a·x0 + b·eps (Eq. 1)."""
        a, b = (expand(s, x0) for s in self.scale(logsnr))
        return a * x0 + b * eps

    def target_of(self, x0: Tensor, eps: Tensor, logsnr: Tensor) -> Tensor:
        """y: (B, …), what the network should predict, p·x0 + q·eps."""
        p, q = (expand(s, x0) for s in self.coefficients(logsnr))
        return p * x0 + q * eps

    def split(self, x: Tensor, y: Tensor, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """(x0, eps) from ``x: (B, …)``, noisy, and ``y: (B, …)``, the target; d = a·q - b·p.

        x0 of an eps-model at zero SNR, and eps of an x0-model at infinite SNR, are undetermined, and not finite.
        """
        a, b = (expand(s, x) for s in self.scale(logsnr))
        p, q = (expand(s, x) for s in self.coefficients(logsnr))
        d = a * q - b * p
        # y itself where y is wanted: exact, and right where d is 0
        x0 = y if self.target == "x0" else (q * x - b * y) / d
        eps = y if self.target == "eps" else (a * y - p * x) / d
        return x0, eps

    def posterior(self, x: Tensor, x0: Tensor, logsnr: Tensor, logsnr_to: Tensor) -> tuple[Tensor, Tensor]:
        """(mean: (B, …), std) of q(x at ``logsnr_to`` | ``x`` at ``logsnr``, ``x0``) for every scaling.

        ``logsnr_to`` is above ``logsnr``: less noise. Under vp this is the posterior of DDPM (Ho et al. 2020, Eq. 6
        and 7), whose variance is β̃, not the β of Scribano 2023, Eq. 3.
        """
        a, b, a_r, b_r = (expand(s, x) for s in (*self.scale(logsnr), *self.scale(logsnr_to)))
        fresh = expand(-torch.expm1(logsnr - logsnr_to), x)
        return a_r * fresh * x0 + (a / a_r) * (b_r / b) ** 2 * x, b_r * fresh.sqrt()

    def weight(self, logsnr: Tensor) -> Tensor:
        """The weight of the squared error of the target, same shape as ``logsnr``."""
        if self.weighting is None:
            return torch.ones_like(logsnr)
        logsnr = logsnr.clamp(-LOGSNR_LIMIT, LOGSNR_LIMIT)
        return self.weighting(logsnr) * factor(self.target, logsnr)

    def noise_condition(self, t: Tensor) -> Tensor:
        """What the network is told at ``t``, same shape: t, logSNR, σ = e^(-l/2) (b/a), or n/N with n = round(N·t)."""
        if self.condition == "t":
            return t
        if self.condition == "n/N":
            return (t * self.N).round() / self.N
        logsnr = self.logsnr(t).clamp(-LOGSNR_LIMIT, LOGSNR_LIMIT)
        return logsnr if self.condition == "logsnr" else (-logsnr / 2).exp()

    def network_input(self, x: Tensor, logsnr: Tensor) -> Tensor:
        """``x: (B, …)`` as the network sees it: times EDM's c_in = 1/√(1 + σ²) under ve, else unchanged."""
        if self.scaling != "ve":
            return x
        return x * expand(logsnr.sigmoid().sqrt(), x)

    def training_times(self, u: Tensor) -> Tensor:
        """Times to train at, in the shape of ``u``, uniform in [0, 1): of `times`, for n/N of {1/N, 2/N … 1}.

        Logit-normal: 1/(1 + e^-n) of n ~ N(0, 1) (Esser et al. 2024, 3.1), but uniform for u below a tenth: without it
        the two ends are seen so seldom that images lose decibels (Sargent et al. 2025). Numbers u that are evenly
        spaced give times that are so in their distribution.
        """
        if self.times == "logit-normal":
            normal_times = torch.special.ndtri(((u - _UNIFORM_SHARE) / (1 - _UNIFORM_SHARE)).clamp(0, 1)).sigmoid()
            u = torch.where(u < _UNIFORM_SHARE, u / _UNIFORM_SHARE, normal_times)
        return (u * self.N + 1).floor().clamp(max=self.N) / self.N if self.condition == "n/N" else u

    def draw_times(self, batch: int, generator: torch.Generator | None = None) -> Tensor:
        """(batch,) float32 times to train at, on the CPU, drawn independently."""
        return self.training_times(torch.rand(batch, generator=generator, dtype=torch.float32))

    def start_std(self, t: float = 1.0) -> float:
        """The std that unit-variance data has at ``t``. Raises ConfigError where it is infinite."""
        logsnr = self.logsnr(torch.tensor(t, dtype=torch.float64, device="cpu"))
        std = float(torch.hypot(*self.scale(logsnr)))
        if not math.isfinite(std):
            raise ConfigError(
                f"`scaling` (='ve') has no finite noise at `t` (={t:g}), where logSNR is {float(logsnr):g}; start at a "
                "smaller t or take another schedule or scaling"
            )
        return std

    def start(
        self,
        shape: Sequence[int],
        generator: Generators = None,
        *,
        t: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """``shape``: (B, …) float32 noise to sample from, with the std that unit-variance data has at ``t``."""
        return self.start_std(t) * normal(shape, generator, device)


def expand(s: Tensor, x: Tensor) -> Tensor:
    """``s: (B,)`` as (B, 1 …), or (B, C) as (B, C, 1 …), to multiply ``x: (B, …)`` with.

    () stays: a number that leaves x its dtype and device.
    """
    return s.reshape(*s.shape, *[1] * (x.ndim - s.ndim)) if s.ndim else s
