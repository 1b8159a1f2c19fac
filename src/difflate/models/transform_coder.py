"""Transform coding with one model for all rates: images to latents to bits and back, for training and for codecs."""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from difflate.diffusion.draws import Generators
from difflate.entropy.hyperprior import FactorizedCoder, HyperpriorCoder
from difflate.errors import ConfigError
from difflate.models.exact import EXACT, ExactEntropy
from difflate.nn.dct import basis
from difflate.nn.entropy_network import QUALITY_KNOTS, Coded, HyperpriorConfig, HyperpriorNetwork, between
from difflate.nn.factorized_network import FactorizedNetwork
from difflate.nn.padding import pad_to_multiple
from difflate.nn.transforms import LMBDA_MIDDLE, TransformConfig, transforms
from difflate.store.config import read_config
from difflate.store.folders import FolderModel
from difflate.store.weights import FORMAT, INT8

_ARCHITECTURE = "hyperprior"
"""BITSTREAM: part of the fingerprint."""
_STD, _STD_POWER = 0.066, -0.24


@dataclass(frozen=True)
class Reconstruction:
    """What training sees of an image that was coded."""

    image: Tensor
    """(B, 3, H, W) in [-1, 1], not clamped."""
    coded: Coded


class TransformModel(FolderModel):
    """Analysis, gain, entropy model, inverse gain, synthesis (Ballé et al. 2018, Cui et al. 2021)."""

    kind = "hyperprior"
    files_beside = (EXACT,)

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
            raise ConfigError(
                "`lmbda_min` and `lmbda_max` must be equal without `hyperprior`: such a model has one rate"
            )
        self.transform, self.hyperprior = transform, hyperprior
        self.lmbda_min, self.lmbda_max = lmbda_min, lmbda_max
        m = transform.latent_channels
        self.analysis, self.synthesis = transforms(transform)
        # logarithms, beside what the theory of uniform quantizers says: a step is proportional to 1/√λ
        self.gain = nn.Parameter(torch.zeros(QUALITY_KNOTS, m, dtype=torch.float32))
        self.inverse_gain = nn.Parameter(torch.zeros(QUALITY_KNOTS, m, dtype=torch.float32))
        gain_range = math.log(lmbda_max / lmbda_min) / 4
        spread = basis(m)[1] if transform.kind == "dct" else None
        self.entropy = HyperpriorNetwork(hyperprior, m, gain_range, spread) if hyperprior else FactorizedNetwork(m)
        self.exact = ExactEntropy(self.entropy, _ARCHITECTURE)

    @property
    def stride_px(self) -> int:
        """Pixels between two sites of the latent, down and sideways."""
        return self.transform.stride_px

    @property
    def exact_coder(self) -> HyperpriorCoder | FactorizedCoder:
        """The entropy model in integers: what the model was stored with, or made anew if it was trained since then.

        Raises ModelError for weights out of range.
        """
        return self.exact.coder

    def side_information(self, y: Tensor) -> Tensor:
        """(B, Z, ⌈h/4⌉, ⌈w/4⌉) integers z of ``y: (B, M, h, w)``; Z = 0 without a hyperprior."""
        return self.entropy.side_information(y)

    @property
    def fingerprint(self) -> bytes:
        """(32 bytes) of the entropy model in integers, see `difflate.store.fingerprint`. Raises as `exact_coder`."""
        return self.exact.fingerprint

    def keep_exact(self, source: "TransformModel") -> None:
        """Has the integers of ``source``, whose weights it has: see `ExactEntropy.keep`."""
        self.exact.keep(source.exact)

    def save_exact(self, folder: Path) -> dict[str, Any]:
        """Writes exact.safetensors into a model's folder; gives its entries of config.json."""
        return self.exact.save(folder)

    def load_exact(self, folder: Path) -> None:
        """Reads what `save_exact` has written. Raises ModelError if it is missing, damaged or altered.

        Beside weights in 8 bits the entropy model in floating point is made from it: it has more digits.
        """
        self.exact.load(folder)
        if read_config(folder).get(FORMAT) == INT8:
            self.exact.fill()

    def names_beside(self, referred: Sequence[str] = ()) -> Set[str]:
        """Those of the weights that the integers are made from, and that are made from the integers."""
        if not isinstance(self.entropy, HyperpriorNetwork):
            return frozenset()
        return frozenset(f"entropy.{name}" for name in self.entropy.fixed_names)

    def same_beside(self, other: "TransformModel") -> bool:
        """Whether ``other`` has the same entropy model in integers."""
        return self.fingerprint == other.fingerprint

    def _save_beside(self, folder: Path, referred: Sequence[str]) -> dict[str, Any]:
        return self.save_exact(folder)

    def _load_beside(self, folder: Path, referred: Sequence[str]) -> None:
        self.load_exact(folder)

    def lmbda(self, quality: Tensor) -> Tensor:
        """λ at ``quality``, same shape, in [0, 1]: even steps of its logarithm."""
        low, high = math.log(self.lmbda_min), math.log(self.lmbda_max)
        return (low + (high - low) * quality).exp()

    def residual_std(self, quality: Tensor) -> Tensor:
        """Typical rms of image minus synthesis at ``quality``, same shape, in pixels of [-1, 1].

        A power of λ, fitted to what a trained `dct` coder left of photographs, from .12 at λ = .0006 to .04 at .08.
        BITSTREAM: no, but part of every trained diffusion decoder, which is scaled by it.
        """
        return _STD * (self.lmbda(quality) / LMBDA_MIDDLE) ** _STD_POWER

    def analyse(self, images: Tensor, quality: Tensor) -> Tensor:
        """(B, M, ⌈H/s⌉, ⌈W/s⌉) y in quantizer steps, of ``images: (B, 3, H, W)`` in [-1, 1], ``quality: (B,)``; s is
        `stride_px`."""
        return self.analysis(pad_to_multiple(images, self.stride_px), quality) * self._gain(self.gain, quality).exp()

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """(B, 3, s·h, s·w) in about [-1, 1], of ``y_hat: (B, M, h, w)``; the caller crops."""
        return self.synthesis(self.dequantise(y_hat, quality), quality)

    def dequantise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """``y_hat: (B, M, h, w)`` in the units of the synthesis, same shape."""
        return y_hat * (-self._gain(self.inverse_gain, quality)).exp()

    def forward(self, images: Tensor, quality: Tensor, generator: Generators = None) -> Reconstruction:
        """``images: (B, 3, H, W)`` coded and restored at ``quality: (B,)``; noise from ``generator`` when training."""
        height, width = images.shape[2:]
        coded = self.entropy(self.analyse(images, quality), quality, generator)
        return Reconstruction(self.synthesise(coded.y_hat, quality)[:, :, :height, :width], coded)

    def _gain(self, knots: Tensor, quality: Tensor) -> Tensor:
        """(B, M, 1, 1) logarithms of the gains."""
        theory = self.lmbda(quality).log() / 2 - math.log(LMBDA_MIDDLE) / 2
        return (between(knots, quality) + theory[:, None])[:, :, None, None]
