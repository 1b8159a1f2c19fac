"""Transform coding with one model for all rates: images to latents to bits and back, for training and for codecs."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from difflate.diffusion.draws import Generators
from difflate.errors import ConfigError
from difflate.folders import FolderModel
from difflate.nn.dct import basis
from difflate.nn.entropy_models import FactorizedPrior, noisy, rounded
from difflate.nn.hyperprior import LEVEL_KNOTS, Coded, HyperpriorConfig, HyperpriorNetwork, between
from difflate.nn.transforms import TransformConfig, pad_to_stride, transforms


@dataclass(frozen=True)
class Reconstruction:
    """What training sees of an image that was coded."""

    image: Tensor
    """(B, 3, H, W) in [-1, 1], not clamped."""
    coded: Coded


class TransformCoder(FolderModel):
    """Analysis, gain, entropy model, inverse gain, synthesis (Ballé et al. 2018, Cui et al. 2021)."""

    kind = "hyperprior"

    def __init__(
        self,
        transform: TransformConfig,
        hyperprior: HyperpriorConfig | None = None,
        lmbda_min: float = 0.0006,
        lmbda_max: float = 0.08,
    ):
        """``hyperprior``: None is a plain factorized prior (Ballé et al. 2017), which has one rate only.

        ``lmbda_min`` and ``lmbda_max``: λ of quality 0 and 100, what a squared error of one 8-bit level costs in bits
        per pixel. Raises ConfigError.
        """
        super().__init__()
        if not 0 < lmbda_min <= lmbda_max < 100:
            raise ConfigError(f"`lmbda_min` (={lmbda_min}) must be above 0 and not above `lmbda_max` (={lmbda_max})")
        if hyperprior is None and lmbda_min != lmbda_max:
            raise ConfigError("`lmbda_min` and `lmbda_max` must be equal without `hyperprior`: such a model has one rate")
        self.transform, self.hyperprior = transform, hyperprior
        self.lmbda_min, self.lmbda_max = lmbda_min, lmbda_max
        m = transform.latent_channels
        self.analysis, self.synthesis = transforms(transform)
        # logarithms, beside what the theory of uniform quantizers says: a step is proportional to 1/√λ
        self.gain = nn.Parameter(torch.zeros(LEVEL_KNOTS, m))
        self.inverse_gain = nn.Parameter(torch.zeros(LEVEL_KNOTS, m))
        gain_range = math.log(lmbda_max / lmbda_min) / 4
        spread = basis(m)[1] if transform.kind == "dct" else None
        self.entropy = HyperpriorNetwork(hyperprior, m, gain_range, spread) if hyperprior else _Factorized(m)

    def lmbda(self, level: Tensor) -> Tensor:
        """λ at ``level``, same shape, in [0, 1]: even steps of its logarithm."""
        low, high = math.log(self.lmbda_min), math.log(self.lmbda_max)
        return (low + (high - low) * level).exp()

    def analyse(self, images: Tensor, level: Tensor) -> Tensor:
        """(B, M, ⌈H/16⌉, ⌈W/16⌉) y in quantizer steps, of ``images: (B, 3, H, W)`` in [-1, 1], ``level: (B,)``."""
        return self.analysis(pad_to_stride(images), level) * self._gain(self.gain, level).exp()

    def synthesise(self, y_hat: Tensor, level: Tensor) -> Tensor:
        """(B, 3, 16·h, 16·w) in about [-1, 1], of ``y_hat: (B, M, h, w)``; the caller crops."""
        return self.synthesis(self.dequantised(y_hat, level), level)

    def dequantised(self, y_hat: Tensor, level: Tensor) -> Tensor:
        """``y_hat: (B, M, h, w)`` in the units of the synthesis, same shape."""
        return y_hat * (-self._gain(self.inverse_gain, level)).exp()

    def forward(self, images: Tensor, level: Tensor, generator: Generators = None) -> Reconstruction:
        """``images: (B, 3, H, W)`` coded and restored at ``level: (B,)``; noise from ``generator`` when training."""
        height, width = images.shape[2:]
        coded = self.entropy(self.analyse(images, level), level, generator)
        return Reconstruction(self.synthesise(coded.y_hat, level)[:, :, :height, :width], coded)

    def _gain(self, knots: Tensor, level: Tensor) -> Tensor:
        """(B, M, 1, 1) logarithms of the gains."""
        theory = self.lmbda(level).log() / 2 - math.log(_LMBDA_OF_STEP) / 2
        return (between(knots, level) + theory[:, None])[:, :, None, None]


_LMBDA_OF_STEP = 0.0067
"""λ at which a quantizer step is one unit of the transforms."""


class _Factorized(nn.Module):
    """A `FactorizedPrior` in the place of a hyperprior."""

    def __init__(self, channels: int):
        super().__init__()
        self.prior = FactorizedPrior(channels)

    def forward(self, y: Tensor, level: Tensor, generator: Generators = None) -> Coded:
        y_hat = rounded(y)
        bits = self.prior.bits(noisy(y, generator) if self.training else y_hat)
        return Coded(y_hat, bits.flatten(1).sum(1), bits.new_zeros(len(y)))
