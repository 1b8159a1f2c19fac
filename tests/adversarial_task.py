"""Trainings with two optimizers, one of them with a frozen teacher, the other with an `Adversary`, in a second."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from difflate.data.crops import Batch, Crops
from difflate.data.items import list_items
from difflate.store.folders import FolderModel
from difflate.train.adversary import AdversarialTask, AdversarySettings
from difflate.train.draws import Draws
from difflate.train.loop import train
from difflate.train.settings import LoopSettings
from difflate.train.task import Task
from training_helpers import LOOP


class Painter(FolderModel):
    """Makes a colour of noise."""

    kind = "painter"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, 3))

    def forward(self, noise: Tensor) -> Tensor:
        return self.layers(noise)


class Adversary(Task):
    """A painter and the critic that tells its colours from those of images (Goodfellow et al. 2014)."""

    turns = ("loss", "critic_loss")

    def __init__(self, loop: LoopSettings):
        torch.manual_seed(loop.seed)
        super().__init__(Painter(4), loop)
        self.critic = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 1))
        self.freeze(teacher=nn.Linear(3, 3))

    def trained(self, turn: str) -> list[nn.Parameter]:
        return list((self.critic if turn == "critic_loss" else self.model).parameters())

    def optimizer(self, turn: str) -> torch.optim.Optimizer:
        betas = (0.0, 0.9) if turn == "critic_loss" else (0.5, 0.9)
        return torch.optim.Adam(self.trained(turn), betas=betas)

    def loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        return {"loss": nn.functional.softplus(-self.critic(self._painted(draws))).mean()}

    def critic_loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        real = self.teacher(batch.images(self.device).mean((2, 3)))
        painted = self._painted(draws).detach()
        losses = nn.functional.softplus(-self.critic(real)) + nn.functional.softplus(self.critic(painted))
        return {"loss": losses.mean()}

    def _painted(self, draws: Draws) -> Tensor:
        return self.model(torch.stack([torch.randn(2, generator=generator) for generator in draws.generators()]))


def train_adversary(images: Path, out: Path, **loop: Any) -> Adversary:
    """What was trained on the images of a folder."""
    task = Adversary(LoopSettings(**{**vars(LOOP), "clip_norm": 0, **loop}))
    crops = Crops(list_items([images]), 8)
    train(task, crops, Crops(crops.items[:4], 8, augment=False), out, config={}, card=lambda progress: "card")
    return task


SETTINGS = AdversarySettings(weight=0.5, start_step=0, widths=(4, 6))


class Canvas(FolderModel):
    """One pattern."""

    kind = "canvas"

    def __init__(self) -> None:
        super().__init__()
        self.pattern = nn.Parameter(torch.zeros(1, 3, 8, 8))


class Painting(AdversarialTask):
    """The nearest to black and white images is grey; only an adversary asks for either."""

    def __init__(self, loop: LoopSettings, settings: AdversarySettings | None):
        torch.manual_seed(loop.seed)
        super().__init__(Canvas(), loop, settings)

    def loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        originals = batch.images(self.device).mean((1, 2, 3), keepdim=True).sign().expand(-1, 3, 8, 8)
        made = self.model.pattern.expand(len(originals), -1, -1, -1)
        judged = None
        if self.adversary is not None and self.training:
            made, judged = self.adversary.split(made, draws)
        loss = (made - originals).square().mean()
        if judged is not None and self.adversary is not None:
            loss = loss + self.adversary.deceive(judged, originals)
        return {"loss": loss}


def paint(images: Path, out: Path, settings: AdversarySettings | None = SETTINGS, **loop: Any) -> Painting:
    """What was trained on the images of a folder."""
    task = Painting(
        LoopSettings(**{**vars(LOOP), "max_steps": 6, "clip_norm": 0, "decay": "constant", **loop}), settings
    )
    crops = Crops(list_items([images]), 8)
    train(task, crops, Crops(crops.items[:4], 8, augment=False), out, config={}, card=lambda progress: "card")
    return task
