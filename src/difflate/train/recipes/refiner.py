"""Recipe `refiner`: a small network that improves the images of a vq codec (Scribano et al. 2023, 4.2.2)."""

import copy
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from difflate.codecs import loading
from difflate.data.crops import Batch, Crops
from difflate.data.items import hold_back, list_items
from difflate.diffusion import expand, normal
from difflate.diffusion.categorical import IndexSpace
from difflate.errors import ConfigError
from difflate.models.latent_space import LatentSpace, latent_space
from difflate.models.refiner import NETWORK, Refiner
from difflate.nn.colour import signed_to_uint8
from difflate.nn.unet import UNetConfig, multiply_adds, parameters
from difflate.store.config import CONFIG, read_config
from difflate.train.cards import card_of
from difflate.train.config import resolved
from difflate.train.draws import Draws
from difflate.train.loop import train
from difflate.train.settings import LoopSettings
from difflate.train.structure import ssim

_PATCH_PX = 8
_PICTURES = 4
_COST_PX = (512, 768)


@dataclass(frozen=True)
class RefinerTraining:
    """Settings of the recipe `refiner`."""

    out: str
    """Folder that the model is written to."""
    images: list[str] = field(default_factory=list)
    """Folders of images or tar shards, tar shards, or images."""
    holdback: int = 16
    """Images, evenly spaced among all, that are kept for validation."""
    codec: str = "opq-32-8-8"
    """Name of a vq codec, or folder of a model of the recipe `vq`, whose images are refined."""
    crop_px: int = 128
    """Side of the crops, a multiple of 8."""
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
        if not self.images:
            raise ConfigError("images is empty; name folders of images with images=FOLDER")
        if self.crop_px < 1 or self.crop_px % _PATCH_PX:
            raise ConfigError(f"crop_px (={self.crop_px}) must be a multiple of {_PATCH_PX}, above 0")
        if not 0 <= self.clean <= 1:
            raise ConfigError(f"clean (={self.clean}) must be from 0 to 1")
        if not self.ssim >= 0:
            raise ConfigError(f"ssim (={self.ssim}) must be at least 0")
        with torch.device("meta"):
            Refiner(self.network, self.codec, "0" * 64, self.max_noise)  # what it does not take is said here


class Refinement(nn.Module):
    """L1 + `RefinerTraining.ssim`·(1 - SSIM) between what a `Refiner` makes of D(E(x) + noise) and x."""

    def __init__(self, model: Refiner, codec: LatentSpace, settings: RefinerTraining, shown: Tensor | None = None):
        """``shown``: (B, 3, H, W) uint8, what `pictures` are of."""
        super().__init__()
        self.model, self.settings, self.shown = model, settings, shown
        # no submodule: it is neither trained nor saved; a copy, as it moves to the device of the training
        self._codec = (copy.deepcopy(codec),)
        self._space = IndexSpace(tuple(codec.sizes))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """{"loss": ()} of a batch; on held-back images also PSNR and SSIM without noise, before and after."""
        device = next(self.parameters()).device
        images = batch.images(device)
        draws = Draws(self.settings.training.seed, batch.numbers, self.settings.training.batch)
        noise = self._noise(draws).to(device)
        refined = self.model(self._restored(batch.pixels.to(device), noise, draws), noise).float()
        losses = (refined - images).abs().flatten(1).mean(1)
        if self.settings.ssim:
            losses = losses + self.settings.ssim * (1 - ssim(refined, images))
        found = {"loss": losses.mean()}
        if not self.training:
            none = torch.zeros_like(noise)
            before = self._restored(batch.pixels.to(device), none, draws)
            after = self.model(before, none).float().clamp(-1, 1)
            for name, value in (("before", before), ("after", after)):
                found[f"psnr_{name}_db"] = _psnr_db(value, images)
                found[f"ssim_{name}"] = ssim(value, images).mean()
        return found

    def _noise(self, draws: Draws) -> Tensor:
        """(B,) standard deviations: 0 for a share of `clean`, the others from above 0 to `max_noise`."""
        noise = self.settings.max_noise * (1 - draws.levels())
        return noise.masked_fill(draws.dropped(self.settings.clean), 0.0)

    @torch.no_grad()
    def _restored(self, pixels: Tensor, noise: Tensor, draws: Draws) -> Tensor:
        """(B, 3, H, W) in [-1, 1]: D(E(x) + noise) of x, ``pixels: (B, 3, H, W)`` uint8, and ``noise: (B,)``."""
        codec = self._codec[0].to(pixels.device)
        with torch.autocast(pixels.device.type, enabled=False):  # in full precision, as a codec has it
            latent = codec.to_latent(pixels)
            z = self._space.scale(latent)
            z = z + expand(noise, z) * normal(z.shape, draws.generators(), z.device)
            return codec.from_latent(self._space.indices(z), *pixels.shape[2:]).float() / 127.5 - 1

    @torch.no_grad()
    def pictures(self) -> Tensor | None:
        """(12, 3, H, W) uint8 of four images: originals, as the codec restores them, refined."""
        if self.shown is None:
            return None
        codec = self._codec[0]
        images = self.shown.to(next(self.parameters()).device)
        restored = codec.to(images.device).from_latent(codec.to_latent(images), *images.shape[2:])
        refined = self.model(restored.float() / 127.5 - 1, torch.zeros(len(images), device=images.device))
        return torch.cat([images, restored, signed_to_uint8(refined)]).cpu()


def _psnr_db(found: Tensor, images: Tensor) -> Tensor:
    mse = ((found - images) * 127.5).square().flatten(1).mean(1)
    return (20 * torch.log10(torch.tensor(255.0)) - 10 * mse.clamp_min(1e-9).log10()).mean()


def cost(settings: RefinerTraining) -> str:
    """What the network of ``settings`` takes, in one line; nothing of it is allocated."""
    with torch.device("meta"):
        count = parameters(Refiner(settings.network, settings.codec, "0" * 64, settings.max_noise))
    height, width = _COST_PX
    work = multiply_adds(settings.network, height, width)
    return f"{count / 1e6:.2f} million parameters, {work / 1e9:.1f} billion multiply-adds for {width}x{height}"


def _codec(settings: RefinerTraining) -> LatentSpace:
    codec = latent_space(loading.load(settings.codec))
    if settings.crop_px % codec.stride_px:
        raise ConfigError(f"crop_px (={settings.crop_px}) must be a multiple of the codec's patch (={codec.stride_px})")
    return codec


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


def run(settings: RefinerTraining, command: str, progress: bool) -> Path:
    """Trains, writes the model folder and returns it. ``command`` goes into the model card."""
    loop, size = settings.training, settings.crop_px
    codec = _codec(settings)
    trained_on, held_back = hold_back(list_items(settings.images), settings.holdback)
    torch.manual_seed(loop.seed)
    model = Refiner(settings.network, codec.name, codec.fingerprint.hex(), settings.max_noise)
    _check_codec(model, settings)
    held = Crops(held_back, size, augment=False) if held_back else None
    shown = None if held is None else torch.stack([held.read(n)[0] for n in range(min(_PICTURES, len(held)))])
    train(
        Refinement(model, codec, settings, shown),
        Crops(trained_on, size, seed=loop.seed),
        held,
        loop,
        Path(settings.out),
        config=resolved(settings, "refiner"),
        card=card_of(model, settings.images, len(trained_on), len(held_back), command),
        bar=progress,
    )
    return Path(settings.out)
