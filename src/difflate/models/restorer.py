"""The restorer of files that others wrote: a small network that takes back what JPEG, WebP or AVIF has lost.

    image = y + s·U-Net(x, t | y, tables)    of the decoded image y, s what its quantization tables leave typically

One network does two things. From x = 0 at t = 1 it makes the restored image at once, which is what most of its training
is for. From noise it is a diffusion model of the residual (image - y) / s by flow matching (Lipman et al. 2023), and N
steps of DDIM draw one of the images that the file could be of.

A JPEG file says how coarsely each frequency was quantized, so nobody has to guess its quality; the network is told
where in its block each pixel lies, as blocks begin at the first. Of WebP and AVIF nothing is told.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from difflate.diffusion import ProcessConfig, ddim, expand
from difflate.errors import ConfigError, ModelError
from difflate.nn.tiles import TILE_PX, improve_in_tiles, place_noise
from difflate.nn.unet import UNet, UNetConfig, reach_px, with_following
from difflate.store import hub
from difflate.store.folders import FolderModel

NETWORK = UNetConfig(widths=(32, 64, 128), blocks=(1, 1, 2), patch=2)
"""A network that takes less than a second for 768x512 px on two cores."""
PROCESS = ProcessConfig(schedule="flow", scaling="flow", target="x0", condition="t")
MAX_STEPS = 1000
_GRID_PX = 16
"""Tiles begin at multiples of it, as do the blocks of JPEG with chroma at half size."""
_TABLES = 128
_STD, _GROWTH, _STD_UNKNOWN = 1.1 / 127.5, 0.42, 6 / 127.5
"""The rms of what JPEG loses of photographs is 1.1·g^0.42 levels, g the geometric mean of the steps of luminance
(measured for qualities of 5 to 95, within a third); of WebP and AVIF 6 levels are typical."""
_AROUND_PX, _DETAIL = 4, 0.25
"""The network sees 9x9 px as a mean, and a quarter of the difference from it in the units that it answers in. Shown the
image itself, where what is wrong is a tenth of what is there, it had learned nothing after 300 steps of which .2 dB
are made so (measured)."""


@dataclass(frozen=True)
class Degraded:
    """Decoded images, and what is told of them."""

    images: Tensor
    """(B, 3, H, W) in [-1, 1]."""
    spatial: Tensor
    """(B, 6, H, W) means of the surroundings, and what the images differ from them in units of `std`."""
    vector: Tensor
    """(B, 128) the tables, as the network sees them."""
    std: Tensor
    """(B,) the typical rms of what was lost, in units of the pixels."""


class Restorer(FolderModel):
    """Restores decoded images; before training it leaves them as they are."""

    kind = "restorer"

    def __init__(self, network: UNetConfig, process: ProcessConfig):
        """`cond_channels`, `vector_channels` and `noise_scale` of ``network`` follow. Raises ConfigError."""
        super().__init__()
        if (network.in_channels, network.out_channels) != (3, 3):
            raise ConfigError("`in_channels` and `out_channels` must be 3; pixels are RGB")
        if network.self_condition:
            raise ConfigError("`self_condition` means nothing here; leave it out")
        if process.target != "x0":
            raise ConfigError(f"`target` (={process.target}) must be x0: one step gives the image itself")
        if _GRID_PX % network.patch:
            raise ConfigError(f"`patch` (={network.patch}) must be 1, 2, 4, 8 or 16; blocks of JPEG have 16 px")
        sites = _GRID_PX // network.patch
        follows = {
            "cond_channels": [6 * network.patch**2 + 2 * sites] + [0] * (len(network.widths) - 1),
            "vector_channels": _TABLES,
            "noise_scale": process.noise_scale,
        }
        self.network, self.process = with_following(network, follows, "the restorer"), process
        self.unet = UNet(self.network)
        self.diffusion = process.build()
        self.sites: Tensor
        self.register_buffer("sites", torch.eye(sites, dtype=torch.float32), persistent=False)

    def degraded(self, images: Tensor, tables: Tensor) -> Degraded:
        """What the network is told of decoded ``images: (B, 3, H, W)`` in [-1, 1] and their ``tables: (B, 2, 64)``,
        steps of the quantization of luminance and chroma, 0 where they are unknown."""
        known = tables > 0
        steps = tables.clamp_min(1).log2()
        std = _STD * (_GROWTH * steps[:, 0].mean(1)).exp2()
        std = std.masked_fill(~known[:, 0].all(1), _STD_UNKNOWN)
        means = F.avg_pool2d(F.pad(images, (_AROUND_PX,) * 4, mode="replicate"), 2 * _AROUND_PX + 1, 1)
        details = _DETAIL * (images - means) / expand(std, images)
        return Degraded(images, torch.cat([means, details], dim=1), ((steps + 1) / 9 * known).flatten(1), std)

    def forward(self, x: Tensor, condition: Tensor, *, degraded: Degraded) -> Tensor:
        """The network as `difflate.diffusion.Model`: x0 (B, 3, H, W), as `to_x0` has it, for ``x: (B, 3, H, W)`` and
        the noise ``condition: (B,)``. H and W are multiples of the network's patch."""
        seen = F.pixel_unshuffle(degraded.spatial, self.network.patch)
        places = self._places(*seen.shape[2:]).expand(len(x), -1, -1, -1)
        return self.unet(x, condition, spatial=[torch.cat([seen, places], dim=1)], vector=degraded.vector)

    def _places(self, height: int, width: int) -> Tensor:
        """(1, 32 / patch, ``height``, ``width``), for each site of the highest level: in which row of blocks of 16x16
        px it lies, and in which column, as 1 among zeros."""
        count = self.sites.shape[0]
        rows, columns = (self.sites.repeat(1, -(-size // count))[:, :size] for size in (height, width))
        return torch.cat([rows[:, :, None].expand(-1, -1, width), columns[:, None].expand(-1, height, -1)])[None]

    def to_x0(self, images: Tensor, degraded: Degraded) -> Tensor:
        """What was lost of ``images: (B, 3, H, W)`` in [-1, 1], in units of what is typical; same shape."""
        return (images - degraded.images) / expand(degraded.std, images)

    def to_images(self, x0: Tensor, degraded: Degraded) -> Tensor:
        """The images, same shape, not clamped, that ``x0: (B, 3, H, W)`` stands for."""
        return degraded.images + x0 * expand(degraded.std, x0)

    @torch.no_grad()
    def refine(self, degraded: Degraded, steps: int, noise: Tensor) -> Tensor:
        """(B, 3, H, W), not clamped: the restored images, by ``steps`` steps of DDIM from ``noise``, same shape; by a
        single one from zeros, whatever the noise. Raises ConfigError."""
        if not 1 <= steps <= MAX_STEPS:
            raise ConfigError(f"`steps` (={steps}) must be from 1 to {MAX_STEPS}")
        x = torch.zeros_like(noise) if steps == 1 else noise
        model = functools.partial(self, degraded=degraded)
        for step in ddim(self.diffusion, model, x, steps):
            x = step.x
        return self.to_images(x, degraded)

    def restore(
        self, image: Tensor, tables: Tensor, *, steps: int = 1, seed: int = 0, tile_px: int = TILE_PX
    ) -> Tensor:
        """(3, H, W) uint8 on the CPU: the restored ``image: (3, H, W)`` uint8, whose first block begins at its first
        pixel; grey stays grey.

        ``tables``: (2, 64), see `degraded`. ``seed``: of the noise of more steps than one, which follows from it and
        from the place in the image. ``tile_px``: side of the tiles, which bounds the memory; smaller ones than the
        network's sight allows are enlarged. In one step, without attention, an image does not depend on the tiles.
        Raises ConfigError.
        """
        if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
            raise ConfigError(f"image ({tuple(image.shape)}, {image.dtype}) must be (3, H, W) uint8")
        device = next(self.parameters()).device
        told = tables.to(device, torch.float32)[None]

        def improve(part: Tensor, top: int, left: int) -> Tensor:
            degraded, noise = self.degraded(part, told), torch.zeros_like(part)
            if steps > 1:
                noise = place_noise(seed, top, left, *part.shape[2:]).to(device)
            return self.refine(degraded, steps, noise)

        site = math.lcm(_GRID_PX, self.network.stride_px)
        return improve_in_tiles(improve, image, tile_px, site, reach_px(self.network) + _AROUND_PX, device)


def load_restorer(name: str | Path | Restorer | None = None, *, allow_download: bool = False) -> Restorer:
    """The restorer in a folder or Hugging Face repository, or of a bundled name; None: the first that is bundled.

    Raises ConfigError if there is none of that name, ModelError if it is incomplete, altered or no restorer, or if none
    is bundled.
    """
    if isinstance(name, Restorer):
        return name
    if name is None:
        bundled = list(hub.bundled_models("restorer"))
        if not bundled:
            raise ModelError(
                "no restorer is bundled; train one with `difflate train configs/jpeg-restorer.yaml images=FOLDER "
                "out=runs/restorer` and name its folder with --model, or restorer= in Python"
            )
        return _load_bundled(hub.bundled_folder(bundled[0]))
    folder = hub.model_folder(name, allow_download=allow_download)
    if folder is None:
        raise ConfigError(f"restorer {str(name)!r} is unknown; name a folder that `difflate train` made")
    return Restorer.from_pretrained(folder)


@functools.cache
def _load_bundled(folder: Path) -> Restorer:
    return Restorer.from_pretrained(folder)
