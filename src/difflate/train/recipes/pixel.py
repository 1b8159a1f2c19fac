"""Recipe `pixel`: a diffusion model of small images, in pixels."""

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor

from difflate.data.crops import Batch
from difflate.data.items import label_by_folder, list_items
from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError
from difflate.generate import PixelDiffusion
from difflate.models.pixel_diffusion import check_image_px
from difflate.nn import UNet, UNetConfig
from difflate.nn.unet import multiply_adds, parameters
from difflate.train.diffusion_loss import GeneratorTask, diffusion_loss
from difflate.train.draws import Draws
from difflate.train.recipe import Data, crops_of, loop_recipe
from difflate.train.settings import ImageSettings, LoopSettings


@dataclass(frozen=True)
class PixelTraining(ImageSettings):
    """Settings of the recipe `pixel`."""

    holdback: int = 500
    """Images, evenly spaced among all, that are kept for validation."""
    image_px: int = 32
    """Side of the images; larger ones are scaled by their short side, then cropped."""
    flips: bool = True
    """Mirror half of the images."""
    classes: bool = False
    """Tell the network which folder an image is from, so that samples can be asked for by its name."""
    unlabelled: float = 0.1
    """Share of the images that are trained on without their class, which guidance needs."""
    network: UNetConfig = field(default_factory=UNetConfig)
    process: ProcessConfig = field(default_factory=ProcessConfig)
    training: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.unlabelled <= 1:
            raise ConfigError(f"unlabelled (={self.unlabelled}) must be from 0 to 1")
        if (self.network.in_channels, self.network.out_channels) != (3, 3):
            raise ConfigError("network.in_channels and network.out_channels must be 3; pixels are RGB")
        for key in ("noise_scale", "vector_channels", "cond_channels"):
            if getattr(self.network, key) != getattr(UNetConfig, key):
                raise ConfigError(f"network.{key} follows from process.condition and classes; leave it out")
        check_image_px(self.image_px)


class PixelTask(GeneratorTask):
    """The diffusion loss of a `PixelDiffusion`."""

    model: PixelDiffusion

    def __init__(self, model: PixelDiffusion, loop: LoopSettings, unlabelled: float):
        super().__init__(model, loop)
        self.unlabelled = unlabelled

    def loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """{"loss": ()} of a batch."""
        conds = {}
        if self.model.classes:
            conds["labels"] = torch.where(draws.drop_mask(self.unlabelled), -1, batch.labels)
        x0, own = batch.images(self.device), self.model.network.self_condition
        losses = diffusion_loss(self.process, self.model, x0, draws, self_conditioned=own, **conds)
        return {"loss": losses.mean()}


@dataclass(frozen=True)
class LabelledImages(Data):
    """Images and the names of their classes, if they have any."""

    classes: list[str] | None


def _data(settings: PixelTraining) -> LabelledImages:
    items, classes, size = list_items(settings.images), None, settings.image_px
    if settings.classes:
        items, classes = label_by_folder(items)
    crops = crops_of(settings, size, settings.training.seed, items=items, short_side=size, flips=settings.flips)
    return LabelledImages(crops.trained_on, crops.held_back, crops.sources, classes)


def _task(settings: PixelTraining, data: LabelledImages) -> PixelTask:
    network = dataclasses.replace(
        settings.network, noise_scale=settings.process.noise_scale, vector_channels=len(data.classes or ())
    )
    model = PixelDiffusion(network, settings.process, settings.image_px, data.classes)
    return PixelTask(model, settings.training, settings.unlabelled)


def cost(settings: PixelTraining) -> str:
    """What the network of ``settings`` takes, in one line; nothing of it is allocated."""
    with torch.device("meta"):
        count = parameters(UNet(settings.network))
    work = multiply_adds(settings.network, settings.image_px, settings.image_px)
    return f"{count / 1e6:.1f} million parameters, {work / 1e9:.2f} billion multiply-adds an image and evaluation"


RECIPE = loop_recipe("pixel", PixelTraining, data=_data, task=_task, cost=cost)
