"""Loss weights, declared on the squared error of x0 as functions of logSNR (Rampas 2024, 2.4, item 5).

The same loss written for another target has the weight times `factor`, so a weight says how much each noise level
counts whatever the network predicts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from difflate.diffusion.checks import check_one_of, check_positive

Target = Literal["x0", "eps", "v", "flow"]
Weight = Callable[[Tensor], Tensor]
"""A function from finite logSNR to the weight of the squared x0 error, same shape."""


def factor(target: Target, logsnr: Tensor) -> Tensor:
    """(b/d)²: the squared x0 error per squared error of ``target``, in closed form the same for every scaling."""
    if target == "x0":
        return torch.ones_like(logsnr)
    if target == "eps":
        return (-logsnr).exp()  # (b/a)²
    if target == "v":
        return (-logsnr).sigmoid()  # b²/(a² + b²)
    return (-logsnr / 2).sigmoid() ** 2  # (b/(a + b))²


@dataclass(frozen=True)
class Constant:
    """Weight 1 on the error of the target ``on``.

    On eps it is the simple loss of DDPM (Scribano 2023, Eq. 4), SNR on the x0 error; on v it is EDM's.
    """

    on: Target = "x0"

    def __post_init__(self) -> None:
        check_one_of("on", self.on, get_args(Target))

    def __call__(self, logsnr: Tensor) -> Tensor:
        return 1 / factor(self.on, logsnr)


@dataclass(frozen=True)
class MinSNR:
    """min(SNR, γ) (Hang et al. 2023)."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        check_positive(gamma=self.gamma)

    def __call__(self, logsnr: Tensor) -> Tensor:
        return logsnr.exp().clamp_max(self.gamma)


@dataclass(frozen=True)
class P2:
    """SNR/(k + SNR)^γ, which is (k + SNR)^-γ on the eps error (Choi et al. 2022)."""

    k: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_positive(k=self.k, gamma=self.gamma)

    def __call__(self, logsnr: Tensor) -> Tensor:
        return logsnr.exp() / (self.k + logsnr.exp()) ** self.gamma


@dataclass(frozen=True)
class Sech:
    """sech(l/d): the middle of the noise range (Rampas 2024, 4.1.1, where sech(e^(l/d)) is printed)."""

    d: float = 2.0

    def __post_init__(self) -> None:
        check_positive(d=self.d)

    def __call__(self, logsnr: Tensor) -> Tensor:
        return 1 / (logsnr / self.d).cosh()


@dataclass(frozen=True)
class Truncated:
    """max(SNR, floor): SNR that does not vanish at high noise (Salimans & Ho 2022)."""

    floor: float = 1.0

    def __post_init__(self) -> None:
        check_positive(floor=self.floor)

    def __call__(self, logsnr: Tensor) -> Tensor:
        return logsnr.exp().clamp_min(self.floor)


@dataclass(frozen=True)
class EDM:
    """(σ² + σ_data²)/(σ·σ_data)² = SNR + 1/σ_data² (Karras et al. 2022, Table 1)."""

    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        check_positive(sigma_data=self.sigma_data)

    def __call__(self, logsnr: Tensor) -> Tensor:
        return logsnr.exp() + self.sigma_data**-2


WEIGHTS = {"constant": Constant, "min-snr": MinSNR, "p2": P2, "sech": Sech, "truncated": Truncated, "edm": EDM}
