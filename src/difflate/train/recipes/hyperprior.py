"""Recipe `hyperprior`: transform coding with a scale hyperprior, one model for all rates."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from difflate.data.crops import Batch, Crops
from difflate.data.items import hold_back, list_items
from difflate.errors import ConfigError
from difflate.models.transform_coder import TransformModel
from difflate.nn.entropy_network import HyperpriorConfig
from difflate.nn.transforms import LMBDA_MIDDLE, TransformConfig
from difflate.train.cards import card_of
from difflate.train.config import resolved
from difflate.train.draws import Draws
from difflate.train.loop import train
from difflate.train.settings import LoopSettings
from difflate.train.structure import ms_ssim


@dataclass(frozen=True)
class HyperpriorTraining:
    """Settings of the recipe `hyperprior`."""

    out: str
    """Folder that the model is written to."""
    images: list[str] = field(default_factory=list)
    """Folders of images or tar shards, tar shards, or images."""
    holdback: int = 16
    """Images, evenly spaced among all, that are kept for validation."""
    crop_px: int = 128
    """Side of the crops."""
    lmbda_min: float = 0.0006
    """λ of quality 0: what a squared error of one 8-bit level costs in bits per pixel."""
    lmbda_max: float = 0.08
    """λ of quality 100."""
    rate_ramp_steps: int = 200
    """Steps over which the price of a bit rises from a hundredth to its full height; what the published codecs do
    unsaid, by a start with a very small λ."""
    structure: float = 0.0
    """What a loss of 1 in MS-SSIM counts beside squared errors, in squared 8-bit levels. 1300 is about what the
    published codecs for MS-SSIM have alone; a part of it costs little PSNR."""
    transform: TransformConfig = field(default_factory=TransformConfig)
    hyperprior: HyperpriorConfig | None = field(default_factory=HyperpriorConfig)
    """null: a plain factorized prior, which has one rate: lmbda_min must be lmbda_max."""
    training: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        if not self.images:
            raise ConfigError("images is empty; name folders of images with images=FOLDER")
        if self.crop_px < 1:
            raise ConfigError(f"crop_px (={self.crop_px}) must be at least 1")
        if self.rate_ramp_steps < 0:
            raise ConfigError(f"rate_ramp_steps (={self.rate_ramp_steps}) must be at least 0")
        if not self.structure >= 0:
            raise ConfigError(f"structure (={self.structure}) must be at least 0")


class RateDistortion(nn.Module):
    """R + λ·D of a `TransformModel`, images of a step at quality levels spread over the whole range."""

    def __init__(
        self, model: TransformModel, batch: int, seed: int, rate_ramp_steps: int = 0, price: float = 1.0,
        structure: float = 0.0,
    ):  # fmt: skip
        """``price`` of a bit, 1 being its full one; it rises to it over ``rate_ramp_steps``.

        ``structure``: what 1 - MS-SSIM counts in the distortion, in squared 8-bit levels.
        """
        super().__init__()
        self.structure = structure
        self.model, self.batch, self.seed = model, batch, seed
        self.rate_ramp_steps, self.price = rate_ramp_steps, price

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """{"loss": (), "bpp": (), "psnr_db": ()} of a batch; rates are estimates."""
        images = batch.images(next(self.parameters()).device)
        draws = Draws(self.seed, batch.numbers, self.batch)
        level = draws.uniform().to(images.device)
        found = self.model(images, level, draws.generators())
        bpp = (found.coded.y_bits + found.coded.z_bits) / (images.shape[2] * images.shape[3])
        mse = ((found.image - images) * 127.5).square().flatten(1).mean(1)
        lmbda = self.model.lmbda(level)
        price = self._price(batch.numbers).to(bpp)
        # both terms rise with λ, about as its root: without the division the highest rates alone would count
        distortion = mse
        if self.structure:
            distortion = distortion + self.structure * (1 - ms_ssim(found.image, images))
        losses = (price * bpp + lmbda * distortion) / (lmbda / LMBDA_MIDDLE).sqrt()
        psnr = 20 * torch.log10(torch.tensor(255.0)) - 10 * mse.clamp_min(1e-9).log10()
        return {"loss": losses.mean(), "bpp": bpp.mean(), "psnr_db": psnr.mean()}

    def _price(self, numbers: Tensor) -> Tensor:
        """(B,) of a bit, by the number of the step that an image belongs to."""
        if not self.training or not self.rate_ramp_steps:
            return torch.full((len(numbers),), self.price)
        return self.price * (((numbers // self.batch + 1) / self.rate_ramp_steps).clamp(max=1) ** 2 * 0.99 + 0.01)

    def pictures(self) -> None:
        """There are none: nothing is generated."""
        return None


def cost(settings: HyperpriorTraining) -> str:
    """What the network of ``settings`` takes, in one line; nothing of it is allocated."""
    from difflate.nn.unet import parameters

    with torch.device("meta"):
        return f"{parameters(_model(settings)) / 1e6:.1f} million parameters"


def _model(settings: HyperpriorTraining) -> TransformModel:
    return TransformModel(settings.transform, settings.hyperprior, settings.lmbda_min, settings.lmbda_max)


def run(settings: HyperpriorTraining, command: str, progress: bool) -> Path:
    """Trains, writes the model folder and returns it. ``command`` goes into the model card."""
    loop = settings.training
    trained_on, held_back = hold_back(list_items(settings.images), settings.holdback)
    torch.manual_seed(loop.seed)
    model = _model(settings)
    train(
        RateDistortion(model, loop.batch, loop.seed, settings.rate_ramp_steps, structure=settings.structure),
        Crops(trained_on, settings.crop_px, seed=loop.seed),
        Crops(held_back, settings.crop_px, augment=False) if held_back else None,
        loop,
        Path(settings.out),
        config=resolved(settings, "hyperprior"),
        card=card_of(model, settings.images, len(trained_on), len(held_back), command),
        bar=progress,
    )
    return Path(settings.out)
