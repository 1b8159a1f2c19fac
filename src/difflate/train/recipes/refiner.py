"""Recipe `refiner`: a small network that improves the images of a codec of indices (Scribano et al. 2023, 4.2.2)."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from difflate.codecs.loading import load
from difflate.data.crops import Batch
from difflate.diffusion import expand, normal
from difflate.diffusion.categorical import IndexSpace
from difflate.errors import ConfigError
from difflate.models.latent_space import LatentSpace, latent_space
from difflate.models.refiner import NETWORK, Refiner
from difflate.nn.colour import signed_to_uint8
from difflate.nn.unet import UNetConfig, multiply_adds, parameters
from difflate.store.config import CONFIG, read_config
from difflate.train.draws import Draws
from difflate.train.recipe import Data, crops_of, first_images, loop_recipe
from difflate.train.settings import CropSettings, LoopSettings
from difflate.train.structure import psnr_db, ssim
from difflate.train.task import Task

_PICTURES = 4
_COST_PX = (512, 768)


@dataclass(frozen=True)
class RefinerTraining(CropSettings):
    """Settings of the recipe `refiner`. Crops have a side that is a multiple of 8."""

    crop_multiple: ClassVar[int] = 8
    codec: str = "opq-32-8-8"
    """Name or folder of a codec with a finite latent space, whose images are refined."""
    network: UNetConfig = field(default_factory=lambda: NETWORK)
    max_noise: float = 0.03
    """Largest standard deviation of the noise on indices scaled to [-1, 1]; those of a generator are not quite right.
    0.03 are 4 places in a codebook of 256, which cost 11 dB; three times as much costs only one more."""
    clean: float = 0.5
    """Share of the crops without noise, as the indices of a file are."""
    ssim: float = 0.2
    """What a loss of 1 in SSIM counts beside absolute errors of pixels in [-1, 1]."""
    training: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.clean <= 1:
            raise ConfigError(f"clean (={self.clean}) must be from 0 to 1")
        if not self.ssim >= 0:
            raise ConfigError(f"ssim (={self.ssim}) must be at least 0")
        with torch.device("meta"):
            Refiner(self.network, self.codec, "0" * 64, self.max_noise)  # what it does not take is said here


class Refinement(Task):
    """L1 + `RefinerTraining.ssim`·(1 - SSIM) between what a `Refiner` makes of D(E(x) + noise) and x."""

    model: Refiner

    def __init__(self, model: Refiner, space: LatentSpace, settings: RefinerTraining, shown: Tensor | None = None):
        """``space`` moves to the device of the training. ``shown``: (B, 3, H, W) uint8, what `pictures` are of."""
        super().__init__(model, settings.training)
        self.settings, self.shown = settings, shown
        self.freeze(space=space)
        self._space = IndexSpace(tuple(space.sizes))

    def loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """{"loss": ()} of a batch; on held-back images also PSNR and SSIM without noise, before and after."""
        images, pixels = batch.images(self.device), batch.pixels.to(self.device)
        noise = self._noise(draws).to(self.device)
        refined = self.model(self._restore(pixels, noise, draws), noise).float()
        losses = (refined - images).abs().flatten(1).mean(1)
        if self.settings.ssim:
            losses = losses + self.settings.ssim * (1 - ssim(refined, images))
        values = {"loss": losses.mean()}
        if not self.training:
            none = torch.zeros_like(noise)
            before = self._restore(pixels, none, draws)
            after = self.model(before, none).float().clamp(-1, 1)
            for name, restored in (("before", before), ("after", after)):
                values[f"psnr_{name}_db"] = psnr_db(restored, images)
                values[f"ssim_{name}"] = ssim(restored, images).mean()
        return values

    def _noise(self, draws: Draws) -> Tensor:
        """(B,) standard deviations: 0 for a share of `clean`, the others from above 0 to `max_noise`."""
        noise = self.settings.max_noise * (1 - draws.spread())
        return noise.masked_fill(draws.drop_mask(self.settings.clean), 0.0)

    @torch.no_grad()
    def _restore(self, pixels: Tensor, noise: Tensor, draws: Draws) -> Tensor:
        """(B, 3, H, W) in [-1, 1]: D(E(x) + noise) of x, ``pixels: (B, 3, H, W)`` uint8, and ``noise: (B,)``."""
        space = self.space
        with torch.autocast(pixels.device.type, enabled=False):  # in full precision, as a codec has it
            latent = space.to_latent(pixels)
            z = self._space.scale(latent)
            z = z + expand(noise, z) * normal(z.shape, draws.generators(), z.device)
            return space.from_latent(self._space.indices(z), *pixels.shape[2:]).float() / 127.5 - 1

    def pictures(self) -> Tensor | None:
        """(12, 3, H, W) uint8 of four images: originals, as the codec restores them, refined."""
        if self.shown is None:
            return None
        images = self.shown.to(self.device)
        restored = self.space.from_latent(self.space.to_latent(images), *images.shape[2:])
        none = torch.zeros(len(images), dtype=torch.float32, device=images.device)
        refined = self.model(restored.float() / 127.5 - 1, none)
        return torch.cat([images, restored, signed_to_uint8(refined)]).cpu()


def cost(settings: RefinerTraining) -> str:
    """What the network of ``settings`` takes, in one line; nothing of it is allocated."""
    with torch.device("meta"):
        count = parameters(Refiner(settings.network, settings.codec, "0" * 64, settings.max_noise))
    height, width = _COST_PX
    work = multiply_adds(settings.network, height, width)
    return f"{count / 1e6:.2f} million parameters, {work / 1e9:.1f} billion multiply-adds for {width}x{height}"


def _space(settings: RefinerTraining) -> LatentSpace:
    space = latent_space(load(settings.codec))
    if settings.crop_px % space.stride_px:
        raise ConfigError(f"crop_px (={settings.crop_px}) must be a multiple of the codec's patch (={space.stride_px})")
    return space


def _check_codec(model: Refiner, settings: RefinerTraining) -> None:
    """Raises ConfigError if the model in ``settings.out``, to go on with, is for a codec with other codebooks."""
    out = Path(settings.out)
    if settings.training.force or not (out / CONFIG).is_file():
        return
    before = read_config(out).get("codec_fingerprint", model.codec_fingerprint)
    if before != model.codec_fingerprint:
        raise ConfigError(
            f"codec (={settings.codec}, {model.codec_fingerprint[:8]}) is another than that of the model in {out} "
            f"({before[:8]}); choose another out, or set force=true to start anew"
        )


@dataclass(frozen=True)
class RestoredImages(Data):
    """Images and the codec that they go through."""

    space: LatentSpace


def _data(settings: RefinerTraining) -> RestoredImages:
    space = _space(settings)
    crops = crops_of(settings, settings.crop_px, settings.training.seed)
    return RestoredImages(crops.trained_on, crops.held_back, crops.sources, space)


def _task(settings: RefinerTraining, data: RestoredImages) -> Refinement:
    space = data.space
    model = Refiner(settings.network, space.name, space.fingerprint.hex(), settings.max_noise)
    _check_codec(model, settings)
    shown = first_images(data.held_back, _PICTURES)
    return Refinement(model, copy.deepcopy(space), settings, shown)  # that of a name is everybody's


RECIPE = loop_recipe("refiner", RefinerTraining, data=_data, task=_task, cost=cost)
