"""The refiner of a codec of indices: a small U-Net that improves the images which the codec restores.

    image = x + U-Net(x, noise / max_noise) / 10    of    x = D(E(original) + noise)

Scribano, Pezzi, Franchini, Prato: Denoising Diffusion Models on Model-Based Latent Space, Algorithms 2023, 16, 501,
section 4.2.2. Noise on the indices stands for what a generator of them gets wrong; the indices of a file have none. One
network does both, because it is told how much noise there is.
"""

import functools
import math
import re
from pathlib import Path

import torch
from torch import Tensor

from difflate.errors import ConfigError, ModelError
from difflate.models.latent_space import LatentSpace
from difflate.nn.tiles import TILE_PX, improve_in_tiles, sites_of
from difflate.nn.unet import UNet, UNetConfig, reach_px
from difflate.store import hub
from difflate.store.folders import FolderModel

NETWORK = UNetConfig(widths=(32, 64, 128), blocks=(1, 1, 2), patch=2)
"""A network that a laptop trains and runs."""
_GRID_PX = 8
"""Tiles begin at multiples of it; images are padded to them."""
_SCALE = 0.1
"""Factor of what the network adds: about what a codec leaves. With 1 the first steps of a training are ten times too
large; a network of which 70 steps make .4 dB had gained nothing after 130 (measured)."""
_MAX_NOISE = 2.0
_FINGERPRINT = re.compile("[0-9a-f]{64}")


class Refiner(FolderModel):
    """Improves images that the codec restores for which it was trained; before training it leaves them as they are."""

    kind = "refiner"

    def __init__(self, network: UNetConfig, codec: str, codec_fingerprint: str, max_noise: float = 0.03):
        """``codec``, ``codec_fingerprint``: name and `LatentSpace.fingerprint`, in hex, of the codec.

        ``max_noise``: largest standard deviation of the noise on indices scaled to [-1, 1]
        (`difflate.diffusion.categorical.IndexSpace.scale`) that it is trained with; 0: none. Raises ConfigError.
        """
        super().__init__()
        if (network.in_channels, network.out_channels) != (3, 3):
            raise ConfigError("`in_channels` and `out_channels` must be 3; pixels are RGB")
        if network.self_condition or network.vector_channels or any(network.cond_channels or ()):
            raise ConfigError(
                "`self_condition`, `vector_channels` and `cond_channels` mean nothing here; leave them out"
            )
        if not _FINGERPRINT.fullmatch(codec_fingerprint):
            raise ConfigError(f"`codec_fingerprint` (={codec_fingerprint!r}) must have 64 hexadecimal digits")
        if not 0 <= max_noise <= _MAX_NOISE:
            raise ConfigError(f"`max_noise` (={max_noise}) must be from 0 to {_MAX_NOISE:g}")
        self.network, self.codec, self.codec_fingerprint, self.max_noise = network, codec, codec_fingerprint, max_noise
        self.unet = UNet(network)

    def forward(self, images: Tensor, noise: Tensor) -> Tensor:
        """(B, 3, H, W) in about [-1, 1], not clamped, of ``images: (B, 3, H, W)`` in [-1, 1] and ``noise: (B,)``."""
        condition = noise / self.max_noise if self.max_noise else torch.zeros_like(noise)
        return images + _SCALE * self.unet(images, condition)

    @torch.no_grad()
    def refine(self, images: Tensor, noise: float = 0.0, tile_px: int = TILE_PX) -> Tensor:
        """(B, 3, H, W) uint8, the refined ``images: (B, 3, H, W)`` uint8, on the same device; grey stays grey.

        ``noise``: standard deviation of that on the scaled indices, at most `max_noise`. ``tile_px``: side of the
        tiles, which bounds the memory; smaller ones than the network's sight allows are enlarged. An image depends
        neither on the others nor, without attention, on the tiles. Raises ConfigError.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ConfigError(f"images ({tuple(images.shape)}, {images.dtype}) must be (B, 3, H, W) uint8")
        if not 0 <= noise <= self.max_noise:
            raise ConfigError(f"noise (={noise:g}) must be from 0 to {self.max_noise:g}, which {self.codec} has here")
        sites_of(tile_px, self._site_px)
        # one by one: how numbers are added up in a batch depends on its size
        refined = [self._refine_image(image, noise, tile_px) for image in images]
        return torch.stack(refined).to(images.device) if refined else images

    @property
    def _site_px(self) -> int:
        """Tiles begin and end at multiples of it: there the network divides a tile as it divides the whole image."""
        return math.lcm(_GRID_PX, self.network.stride_px)

    def _refine_image(self, image: Tensor, noise: float, tile_px: int) -> Tensor:
        """(3, H, W) uint8 on the CPU, of ``image: (3, H, W)`` uint8."""
        device = next(self.parameters()).device
        noises = torch.tensor([noise], dtype=torch.float32, device=device)
        return improve_in_tiles(
            lambda part, top, left: self(part, noises), image, tile_px, self._site_px, reach_px(self.network), device
        )

    def check(self, space: LatentSpace) -> None:
        """Raises ModelError if this is a refiner for the images of another codec than ``space`` belongs to."""
        if self.codec_fingerprint != space.fingerprint.hex():
            raise ModelError(
                f"the refiner is for images of {self.codec} ({self.codec_fingerprint[:8]}), not of {space.name} "
                f"({space.fingerprint.hex()[:8]}); name another with --refiner FOLDER, or refiner= in Python"
            )


def open_refiner(name: str | Path, *, allow_download: bool = False) -> Refiner:
    """The refiner in a folder or Hugging Face repository, or of a bundled name (see `difflate.store.hub.model_folder`).

    Raises ConfigError if there is none, ModelError if it is incomplete, altered or no refiner.
    """
    folder = hub.model_folder(name, allow_download=allow_download)
    if folder is None:
        raise ConfigError(f"refiner {str(name)!r} is unknown; name a folder that `difflate train` made")
    return Refiner.from_pretrained(folder)


def load_refiner(space: LatentSpace, name: str | Path | Refiner | None = None) -> Refiner:
    """The refiner ``name`` if it is one for the codec of ``space``; None: the bundled one that is.

    Raises ConfigError if there is none of that name; ModelError if none is bundled, if it is for another codec, or if
    its folder is incomplete or altered.
    """
    if name is None:
        return _load_bundled(_bundled_folder(space))
    refiner = name if isinstance(name, Refiner) else open_refiner(name)
    refiner.check(space)
    return refiner


def _bundled_folder(space: LatentSpace) -> Path:
    for name, config in hub.bundled_models("refiner").items():
        if config.get("codec_fingerprint") == space.fingerprint.hex():
            return hub.bundled_folder(name)
    raise ModelError(
        f"no refiner for {space.name} ({space.fingerprint.hex()[:8]}) is bundled; train one with `difflate train "
        "configs/refiner-opq-32-8-8.yaml codec=NAME-OR-FOLDER out=runs/refiner` and name its folder with --refiner, or "
        "refiner= in Python"
    )


@functools.cache
def _load_bundled(folder: Path) -> Refiner:
    return Refiner.from_pretrained(folder)
