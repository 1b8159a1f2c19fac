"""Noise schedules: logSNR as a falling function of continuous time t in [0, 1] (Rampas 2024, 2.4, item 1).

A schedule may reach infinity at its ends: `LinearBeta` and `Flow` are clean at t = 0, and `Flow` is noise alone at
t = 1. Times come back in their own precision, float32 or float64.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from difflate.diffusion.checks import check_positive, check_rising

Schedule = Callable[[Tensor], Tensor]
"""A function from t: any shape, in [0, 1], to logSNR of that shape."""


@dataclass(frozen=True)
class Cosine:
    """l = -2·log tan(t0 + t·(t1 - t0)), which is ᾱ = cos²(πt/2) between two limits (Nichol & Dhariwal 2021).

    Rampas 2024, Eq. 11 prints cos for cos².
    """

    logsnr_min: float = -15.0
    logsnr_max: float = 15.0

    def __post_init__(self) -> None:
        check_rising("logsnr_min", self.logsnr_min, "logsnr_max", self.logsnr_max)

    def __call__(self, t: Tensor) -> Tensor:
        t = _precise(t)
        t0 = math.atan(math.exp(-self.logsnr_max / 2))
        rest = math.atan(math.exp(self.logsnr_min / 2))  # π/2 - t1
        span = math.pi / 2 - rest - t0
        # Each half measures its angle from its own end: next to π/2 float32 has no digits left for tan.
        return torch.where(t < 0.5, -2 * (t0 + t * span).tan().log(), 2 * (rest + (1 - t) * span).tan().log())


@dataclass(frozen=True)
class LinearBeta:
    """The schedule of DDPM (Ho et al. 2020): step n of N, with β linear in n, is t = n/N; exact there.

    Step 0 is clean. Between steps -log ᾱ is linear, that is, β(t) is constant from one step to the next.
    """

    steps: int = 1000
    beta_min: float = 1e-4
    beta_max: float = 2e-2

    def __post_init__(self) -> None:
        check_positive(steps=self.steps, beta_min=self.beta_min)
        check_rising("beta_min", self.beta_min, "beta_max", self.beta_max)
        check_rising("beta_max", self.beta_max, "the largest variance of a step", 1.0)

    def __call__(self, t: Tensor) -> Tensor:
        t = _precise(t)
        table = _minus_log_alpha_bar(int(self.steps), self.beta_min, self.beta_max).to(t)
        n = (t * self.steps).floor().clamp(0, self.steps - 1)
        left, right = table[n.long()], table[n.long() + 1]
        # log(ᾱ / (1 - ᾱ)) without the cancellation in 1 - ᾱ
        return -torch.expm1(left + (t * self.steps - n) * (right - left)).log()


@functools.lru_cache(maxsize=16)
def _minus_log_alpha_bar(steps: int, beta_min: float, beta_max: float) -> Tensor:
    """(steps + 1,) float64, 0 first."""
    beta = torch.linspace(beta_min, beta_max, steps, dtype=torch.float64)
    return torch.cat([beta.new_zeros(1), -torch.log1p(-beta).cumsum(0)])


@dataclass(frozen=True)
class Karras:
    """The schedule of EDM: σ^(1/ρ) linear in t, l = -2·log σ (Karras et al. 2022, Eq. 5).

    Rampas 2024, 2.4.3 prints the exponent ρ inside of the sum.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        check_positive(sigma_min=self.sigma_min, rho=self.rho)
        check_rising("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    def __call__(self, t: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return -2 * self.rho * (low + _precise(t) * (high - low)).log()


@dataclass(frozen=True)
class Flow:
    """l = 2·log((1 - t)/t), which with the flow scaling is x = (1 - t)·x0 + t·eps (Lipman et al. 2023)."""

    def __call__(self, t: Tensor) -> Tensor:
        t = _precise(t)
        return 2 * ((1 - t).log() - t.log())


@dataclass(frozen=True)
class Shifted:
    """l - 2·log(shift) of another schedule: noise for images ``shift`` times as large (Hoogeboom et al. 2023, Eq. 4).

    On `Flow` this is the shift of Esser et al. 2024, Eq. 23.
    """

    schedule: Schedule
    shift: float = 1.0

    def __post_init__(self) -> None:
        check_positive(shift=self.shift)

    def __call__(self, t: Tensor) -> Tensor:
        return self.schedule(t) - 2 * math.log(self.shift)


def _precise(t: Tensor) -> Tensor:
    """``t`` as float32 at least: 16 bits would merge hundreds of times."""
    return t if t.dtype in (torch.float32, torch.float64) else t.float()


SCHEDULES = {"cosine": Cosine, "linear": LinearBeta, "edm": Karras, "flow": Flow}
