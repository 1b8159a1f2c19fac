"""Diffusion in a finite latent space (Scribano et al. 2023, 3.2 and 4.2): the indices of a codec, taken as numbers.

    noise ── sampler, network ── z in [-1, 1] ── round ── indices ── codec ── image [── refiner]

Neighbouring indices mean similar pictures: scalars do by themselves, codebooks are ordered so. As the codewords of a
codebook are alike along one axis only, a number that is a little wrong costs much there; in the place of rounding, the
codewords around it may be averaged.
"""

import copy
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from difflate.diffusion import Generators, IndexSpace, Model, ProcessConfig, expected_codewords
from difflate.diffusion.categorical import LEAST_SIGMA
from difflate.errors import ConfigError, ModelError
from difflate.models.generator import Generator, check_no_guidance, check_no_temperature, check_size, check_steps
from difflate.models.latent_space import LatentSpace, latent_space
from difflate.models.refiner import Refiner
from difflate.nn import UNet, UNetConfig
from difflate.nn.colour import signed_to_uint8
from difflate.nn.unet import with_following

_MAX_SIZE = 1 << 16
_MAX_PLANES = 64
_MAX_WEIGHTS = 1 << 24


@dataclass(frozen=True)
class LatentSpec:
    """The latent space of a codec, by which a generator knows the one that it was trained for."""

    codec: str
    """The codec's name."""
    fingerprint: str
    """The fingerprint of its weights, 64 hexadecimal digits."""
    codebook_sizes: list[int] | tuple[int, ...]
    """K_c, the indices of each of the C planes."""
    patch_px: int = 8
    """Pixels between two sites."""

    def __post_init__(self) -> None:
        for key in ("codec", "fingerprint"):
            if not isinstance(getattr(self, key), str):
                raise ConfigError(f"`{key}` (={getattr(self, key)}) must be text")
        sizes = list(self.codebook_sizes)
        if not 1 <= len(sizes) <= _MAX_PLANES or not all(type(k) is int and 2 <= k <= _MAX_SIZE for k in sizes):
            raise ConfigError(f"`codebook_sizes` (={sizes}) must be up to {_MAX_PLANES} integers from 2 to {_MAX_SIZE}")
        if type(self.patch_px) is not int or not 1 <= self.patch_px <= 64:
            raise ConfigError(f"`patch_px` (={self.patch_px}) must be an integer from 1 to 64")

    @classmethod
    def of(cls, space: LatentSpace) -> Self:
        """What tells ``space`` from others."""
        return cls(space.name, space.fingerprint.hex(), list(space.sizes), space.stride_px)

    @property
    def index_space(self) -> IndexSpace:
        """Indices and their places in [-1, 1]."""
        return IndexSpace(tuple(self.codebook_sizes))

    def check(self, space: LatentSpace) -> None:
        """Raises ModelError if ``space`` is another."""
        if space.fingerprint.hex() != self.fingerprint:
            raise ModelError(
                f"the latents are of {self.codec} ({self.fingerprint[:8]}), not of {space.name} "
                f"({space.fingerprint.hex()[:8]}); name the folder of theirs"
            )
        if (list(space.sizes), space.stride_px) != (list(self.codebook_sizes), self.patch_px):
            raise ModelError(
                f"`codebook_sizes` or `patch_px` of the latents are not those of {space.name}; get the folder again"
            )


class LatentGenerator(Generator):
    """What continuous and categorical models share: the codec's latent space, which makes images of their latents."""

    latent: LatentSpec

    def __init__(self, latent: LatentSpec, process: ProcessConfig, image_px: int) -> None:
        super().__init__()
        if image_px % latent.patch_px:
            raise ConfigError(f"`image_px` (={image_px}) must be a multiple of the codec's patch (={latent.patch_px})")
        check_size((image_px, image_px), latent.patch_px)
        self.latent, self.process, self.image_px = latent, process, image_px
        self._space: tuple[LatentSpace, ...] = ()  # no submodule: it is not saved with the model
        self._refiner: tuple[Refiner, ...] = ()

    @property
    def space(self) -> LatentSpace:
        """The latent space that decodes what is sampled. Raises ModelError if none has been given."""
        if not self._space:
            raise ModelError(f"the generator's codec {self.latent.codec} is missing; give it with `use_codec`")
        return self._space[0]

    def use_codec(self, codec: Any, refiner: Refiner | None = None) -> Self:
        """Takes the latent space of the codec that the model was trained on, and a refiner for its images, or none.

        They are copied, as they move to the generator's device, and those that are loaded by name are everybody's.
        Raises ModelError for those of another codec, ConfigError for a codec without such a space.
        """
        space = latent_space(codec)
        self.latent.check(space)
        if refiner is not None:
            refiner.check(space)
        self._space = (copy.deepcopy(space),)
        self._refiner = () if refiner is None else (copy.deepcopy(refiner),)
        return self

    def shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        check_size(size, self.latent.patch_px)
        return len(self.latent.codebook_sizes), size[0] // self.latent.patch_px, size[1] // self.latent.patch_px

    def images(self, x: Tensor) -> Tensor:
        images = self._decode(x, self.space.to(x.device))
        for refiner in self._refiner:
            images = refiner.to(x.device).refine(images, refiner.max_noise)  # a sample's indices are not quite right
        return images

    def _decode(self, x: Tensor, space: LatentSpace) -> Tensor:
        """(B, 3, H, W) uint8 of ``x: (B, C, h, w)``."""
        return space.from_latent(self.latent.index_space.indices(x))


class LatentDiffusion(LatentGenerator):
    """The continuous model: diffusion of z, the indices scaled to [-1, 1] (Eq. 4)."""

    kind = "latent-diffusion"

    def __init__(
        self,
        latent: LatentSpec,
        network: UNetConfig,
        process: ProcessConfig,
        image_px: int,
        softness: float = 0.0,
        steps: int = Generator.steps,
    ) -> None:
        """``softness``: standard deviation of the weights by which codewords around a sampled number in [-1, 1] are
        averaged, as `IndexSpace.posterior` (not in the paper); 0: the nearest one alone. ``steps``: of sampling, unless
        others are asked for. Raises ConfigError.
        """
        super().__init__(latent, process, image_px)
        check_steps(steps)
        self.steps = steps
        planes = len(latent.codebook_sizes)
        check_network(network, planes, planes)
        self.network = network
        self.unet = UNet(network)
        self.soften(softness)

    def soften(self, softness: float) -> Self:
        """Takes another ``softness``. Raises ConfigError."""
        if isinstance(softness, bool) or not (softness == 0 or LEAST_SIGMA <= softness <= 1):
            raise ConfigError(
                f"softness (={softness}) must be 0, which rounds to an index, or from {LEAST_SIGMA:g} to 1"
            )
        self.softness = softness
        return self

    def forward(self, x: Tensor, condition: Tensor, x0_prev: Tensor | None = None) -> Tensor:
        """The target: (B, C, h, w) for ``x: (B, C, h, w)`` and the noise ``condition: (B,)``."""
        return self.unet(x, condition, x0_prev)

    def denoiser(
        self,
        labels: Tensor | None = None,
        guidance: float = 1.0,
        temperature: float | None = None,
        generators: Generators = None,
    ) -> Model:
        check_no_temperature(temperature)
        check_no_guidance(guidance)
        return self

    def _decode(self, x: Tensor, space: LatentSpace) -> Tensor:
        if not self.softness:
            return super()._decode(x, space)
        planes = zip(x.split(1, dim=1), space.codebooks, strict=True)
        return signed_to_uint8(space.from_codewords([self._mean_codewords(z, book) for z, book in planes]))

    def _mean_codewords(self, z: Tensor, book: Tensor) -> Tensor:
        """(B, n, h, w) for ``z: (B, 1, h, w)``, a plane, and its codebook ``book: (K, n)``."""
        places = IndexSpace((len(book),))
        rows = max(1, _MAX_WEIGHTS // (z.shape[0] * z.shape[3] * len(book)))  # the weights are K numbers for each index
        bands = z.split(rows, dim=2)
        means = [expected_codewords(places.posterior(band, self.softness), [book])[0] for band in bands]
        return torch.cat(means, dim=2)


def check_network(network: UNetConfig, in_channels: int, out_channels: int) -> None:
    """Raises ConfigError if ``network`` is not from the one number of planes to the other, or sees more."""
    if (network.in_channels, network.out_channels) != (in_channels, out_channels):
        raise ConfigError(
            f"`in_channels` and `out_channels` (={network.in_channels}, {network.out_channels}) must be {in_channels} "
            f"and {out_channels} for this codec"
        )
    if any(network.cond_channels or ()) or network.vector_channels:
        raise ConfigError("`cond_channels` and `vector_channels` must be 0: the latent is all that the network sees")


def network_for(network: UNetConfig, process: ProcessConfig, in_channels: int, out_channels: int) -> UNetConfig:
    """``network`` with the settings that follow from codec and process. Raises ConfigError for one that is set."""
    follows = {"in_channels": in_channels, "out_channels": out_channels, "noise_scale": process.noise_scale}
    return with_following(network, follows, "codec and process")
