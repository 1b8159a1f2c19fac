"""Recipe `hyperprior`: transform coding with a scale hyperprior, one model for all rates."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from difflate.data.crops import Batch
from difflate.errors import ConfigError
from difflate.models.transform_coder import TransformModel
from difflate.nn.entropy_network import HyperpriorConfig
from difflate.nn.transforms import LMBDA_MIDDLE, TransformConfig
from difflate.nn.unet import parameters
from difflate.train.draws import Draws
from difflate.train.recipe import Data, crops_of, loop_recipe
from difflate.train.settings import CropSettings, LoopSettings
from difflate.train.structure import ms_ssim, psnr_db
from difflate.train.task import Task


@dataclass(frozen=True)
class CoderSettings:
    """The transform coder."""

    transform: TransformConfig = field(default_factory=TransformConfig)
    hyperprior: HyperpriorConfig | None = field(default_factory=HyperpriorConfig)
    """null: a plain factorized prior, which has one rate: lmbda_min must be lmbda_max."""
    lmbda_min: float = 0.0006
    """λ of quality 0: what a squared error of one 8-bit level costs in bits per pixel."""
    lmbda_max: float = 0.08
    """λ of quality 100."""

    def model(self) -> TransformModel:
        """The coder, untrained. Raises ConfigError for settings that do not fit."""
        return TransformModel(self.transform, self.hyperprior, self.lmbda_min, self.lmbda_max)


@dataclass(frozen=True)
class HyperpriorTraining(CoderSettings, CropSettings):
    """Settings of the recipe `hyperprior`."""

    rate_ramp_steps: int = 200
    """Steps over which the price of a bit rises from a hundredth to its full height; what the published codecs do
    unsaid, by a start with a very small λ."""
    structure: float = 0.0
    """What a loss of 1 in MS-SSIM counts beside squared errors, in squared 8-bit levels. 1300 is about what the
    published codecs for MS-SSIM have alone; a part of it costs little PSNR."""
    training: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate_ramp_steps < 0:
            raise ConfigError(f"rate_ramp_steps (={self.rate_ramp_steps}) must be at least 0")
        if not self.structure >= 0:
            raise ConfigError(f"structure (={self.structure}) must be at least 0")


class RateDistortion(Task):
    """R + λ·D of a `TransformModel`, images of a step at qualities spread over the whole range."""

    model: TransformModel

    def __init__(
        self, model: TransformModel, loop: LoopSettings, rate_ramp_steps: int = 0, price: float = 1.0,
        structure: float = 0.0,
    ):  # fmt: skip
        """``price`` of a bit, 1 being its full one; it rises to it over ``rate_ramp_steps``.

        ``structure``: what 1 - MS-SSIM counts in the distortion, in squared 8-bit levels.
        """
        super().__init__(model, loop)
        self.structure, self.rate_ramp_steps, self.price = structure, rate_ramp_steps, price

    def loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """{"loss": (), "bpp": (), "psnr_db": ()} of a batch; rates are estimates."""
        images = batch.images(self.device)
        quality = draws.uniform().to(images.device)
        restored = self.model(images, quality, draws.generators())
        bpp = (restored.coded.y_bits + restored.coded.z_bits) / (images.shape[2] * images.shape[3])
        distortion = ((restored.image - images) * 127.5).square().flatten(1).mean(1)
        if self.structure:
            distortion = distortion + self.structure * (1 - ms_ssim(restored.image, images))
        lmbda = self.model.lmbda(quality)
        price = self._price(batch.numbers).to(bpp)
        # both terms rise with λ, about as its root: without the division the highest rates alone would count
        losses = (price * bpp + lmbda * distortion) / (lmbda / LMBDA_MIDDLE).sqrt()
        return {"loss": losses.mean(), "bpp": bpp.mean(), "psnr_db": psnr_db(restored.image, images)}

    def _price(self, numbers: Tensor) -> Tensor:
        """(B,) of a bit, by the number of the step that an image belongs to."""
        if not self.training or not self.rate_ramp_steps:
            return torch.full((len(numbers),), self.price, dtype=torch.float32, device=numbers.device)
        done = ((numbers // self.loop.batch + 1) / self.rate_ramp_steps).clamp(max=1)
        return self.price * (done**2 * 0.99 + 0.01)


def cost(settings: HyperpriorTraining) -> str:
    """What the network of ``settings`` takes, in one line; nothing of it is allocated."""
    with torch.device("meta"):
        return f"{parameters(settings.model()) / 1e6:.1f} million parameters"


def _data(settings: HyperpriorTraining) -> Data:
    return crops_of(settings, settings.crop_px, settings.training.seed)


def _task(settings: HyperpriorTraining, data: Data) -> RateDistortion:
    return RateDistortion(settings.model(), settings.training, settings.rate_ramp_steps, structure=settings.structure)


RECIPE = loop_recipe("hyperprior", HyperpriorTraining, data=_data, task=_task, cost=cost)
