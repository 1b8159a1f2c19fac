"""Recipe `pixel`: a diffusion model of small images, in pixels."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from difflate.data.crops import Batch, Crops
from difflate.data.items import hold_back, label_by_folder, list_items
from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError
from difflate.generate import PixelDiffusion
from difflate.generate.sampling import preview
from difflate.models.pixel_diffusion import check_image_px
from difflate.nn import UNet, UNetConfig
from difflate.nn.unet import multiply_adds, parameters
from difflate.train.cards import card_of
from difflate.train.config import resolved
from difflate.train.draws import Draws
from difflate.train.loop import train
from difflate.train.objective import diffusion_loss, mean_loss
from difflate.train.settings import LoopSettings


@dataclass(frozen=True)
class PixelTraining:
    """Settings of the recipe `pixel`."""

    out: str
    """Folder that the model is written to."""
    images: list[str] = field(default_factory=list)
    """Folders of images or tar shards, tar shards, or images."""
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
        if not self.images:
            raise ConfigError("images is empty; name folders of images with images=FOLDER")
        if not 0 <= self.unlabelled <= 1:
            raise ConfigError(f"unlabelled (={self.unlabelled}) must be from 0 to 1")
        if (self.network.in_channels, self.network.out_channels) != (3, 3):
            raise ConfigError("network.in_channels and network.out_channels must be 3; pixels are RGB")
        for key in ("noise_scale", "vector_channels", "cond_channels"):
            if getattr(self.network, key) != getattr(UNetConfig, key):
                raise ConfigError(f"network.{key} follows from process.condition and classes; leave it out")
        check_image_px(self.image_px)


class PixelObjective(nn.Module):
    """The diffusion loss of a `PixelDiffusion`."""

    def __init__(self, model: PixelDiffusion, batch: int, seed: int, unlabelled: float):
        super().__init__()
        self.model, self.batch, self.seed, self.unlabelled = model, batch, seed, unlabelled
        self.process = model.process.build()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """{"loss": ()} of a batch; the pixels may be on another device."""
        x0 = batch.images(next(self.parameters()).device)
        draws = Draws(self.seed, batch.numbers, self.batch)
        conds = {}
        if self.model.classes:
            conds["labels"] = torch.where(draws.dropped(self.unlabelled), -1, batch.labels)
        losses = diffusion_loss(
            self.process, self.model, x0, draws, self_conditioned=self.model.network.self_condition, **conds
        )
        return mean_loss(losses)

    def pictures(self) -> Tensor:
        """(16, 3, H, W) uint8."""
        return preview(self.model)


def cost(settings: PixelTraining) -> str:
    """What the network of ``settings`` takes, in one line; nothing of it is allocated."""
    with torch.device("meta"):
        count = parameters(UNet(settings.network))
    work = multiply_adds(settings.network, settings.image_px, settings.image_px)
    return f"{count / 1e6:.1f} million parameters, {work / 1e9:.2f} billion multiply-adds an image and evaluation"


def run(settings: PixelTraining, command: str, progress: bool) -> Path:
    """Trains, writes the model folder and returns it. ``command`` goes into the model card."""
    loop = settings.training
    items, classes = list_items(settings.images), None
    if settings.classes:
        items, classes = label_by_folder(items)
    trained_on, held_back = hold_back(items, settings.holdback)
    torch.manual_seed(loop.seed)
    network = dataclasses.replace(
        settings.network, noise_scale=settings.process.noise_scale, vector_channels=len(classes or ())
    )
    model = PixelDiffusion(network, settings.process, settings.image_px, classes)
    size = settings.image_px
    train(
        PixelObjective(model, loop.batch, loop.seed, settings.unlabelled),
        Crops(trained_on, size, short_side=size, flips=settings.flips, seed=loop.seed),
        Crops(held_back, size, short_side=size, augment=False) if held_back else None,
        loop,
        Path(settings.out),
        config=resolved(settings, "pixel"),
        card=card_of(model, settings.images, len(trained_on), len(held_back), command),
        bar=progress,
    )
    return Path(settings.out)
