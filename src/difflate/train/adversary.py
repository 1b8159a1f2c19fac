"""An adversary: a discriminator that learns to tell a model's images from originals, and the model to mislead it.

Which of all images that fit a latent is made, a distance to the original cannot say: its best answer is their mean, and
that is smooth. A discriminator asks for one that could be an original (Goodfellow et al. 2014).

The losses are the hinge's (Lim & Ye 2017): a patch that is told clearly teaches the discriminator nothing more, and its
slope, which is what the model learns from, stays. With spectral norms that suffices; a penalty on gradients (R1) would
cost a gradient of a gradient in every step.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.data.crops import Batch
from difflate.errors import ConfigError
from difflate.nn.discriminator import PatchDiscriminator
from difflate.train.draws import Draws
from difflate.train.settings import LoopSettings
from difflate.train.task import Task

CRITIC = "critic_loss"
"""The turn of the discriminator."""
_MOST = 1e4
"""Largest factor of the adversary's gradient (Esser et al. 2021)."""


@dataclass(frozen=True)
class AdversarySettings:
    """How much a model learns from an adversary."""

    weight: float = 0.5
    """Norm of the adversary's gradient for each image, as a share of that of all other losses."""
    start_step: int = 500
    """Step from which on the model learns from it; the adversary itself learns from the first."""
    widths: list[int] | tuple[int, ...] = (48, 96, 192, 256)
    """Of its `PatchDiscriminator`."""

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 100:
            raise ConfigError(f"adversary.weight (={self.weight}) must be above 0, up to 100; adversary=null is none")
        if self.start_step < 0:
            raise ConfigError(f"adversary.start_step (={self.start_step}) must be at least 0")
        with torch.device("meta"):
            PatchDiscriminator(self.widths)


class Adversary(nn.Module):
    """A discriminator with the losses of both turns."""

    def __init__(self, settings: AdversarySettings, cond_channels: int = 0):
        """``cond_channels``: of the condition that it is shown beside an image, at the image's size."""
        super().__init__()
        self.settings = settings
        self.discriminator = PatchDiscriminator(settings.widths, cond_channels)
        self._left: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def split(self, made: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """``made: (B, …)``, what a model makes, twice: for its other losses, and for `deceive`.

        The gradients that come back are g and a, for each image; on goes g + weight·min(|g|/|a|, 10^4)·a, before
        `start_step` g alone. That is VQGAN's adaptive weight (Esser et al. 2021), not at the last layer's weights but
        at what it makes, as EnCodec has it (Défossez et al. 2022, 3.4): no loss is gone through twice, and an image's
        share depends on no other image, so parts of a step and processes add up.
        """
        started = (draws.step() >= self.settings.start_step).to(made.device, torch.float32)
        own, judged = _Balance.apply(made, self.settings.weight * started)  # type: ignore[misc]
        return own, judged

    def deceive(self, made: Tensor, originals: Tensor, condition: Tensor | None = None) -> Tensor:
        """() 0, with the gradient of the hinge's -D(``made``): what it is in numbers says nothing of a model.

        All (B, C, H, W); ``made`` of what `split` has given, ``originals`` in [-1, 1]. They are kept for the
        `critic_loss` of the same step, which takes what was kept in its order.
        """
        condition = None if condition is None else condition.detach()
        self._left.append((made.detach(), originals, condition))
        loss = -self.discriminator(made, condition).mean()
        return loss - loss.detach()

    def critic_loss(self) -> Tensor:
        """() the hinge loss of the discriminator for what `deceive` has kept first: 0 if all is told, 2 if nothing."""
        return self.told(*self._left.pop(0))

    def told(self, made: Tensor, originals: Tensor, condition: Tensor | None = None) -> Tensor:
        """() the hinge loss of the discriminator for (B, C, H, W) each."""
        both = None if condition is None else torch.cat([condition, condition])
        real, fake = self.discriminator(torch.cat([originals, made]), both).chunk(2)
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def optimizer(self, lr: float) -> torch.optim.Optimizer:
        """Adam with the β of VQGAN, whose steps the spectral norms follow."""
        found = torch.optim.Adam(self.parameters(), lr=lr, betas=(0.5, 0.9))
        found.register_step_post_hook(lambda *_: self.discriminator.follow())
        return found


class _Balance(torch.autograd.Function):
    """Twice what it is given; backward the sum of both gradients, the second one in proportion to the first."""

    @staticmethod
    def forward(ctx: Any, made: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        ctx.save_for_backward(weight)
        return made.view_as(made), made.view_as(made)

    @staticmethod
    def backward(ctx: Any, own: Tensor, theirs: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        dims = list(range(1, own.ndim))
        norms = [torch.linalg.vector_norm(g, dim=dims, keepdim=True, dtype=torch.float32) for g in (own, theirs)]
        tiny = torch.finfo(torch.float32).tiny
        factor = weight * (norms[0] / norms[1].clamp_min(tiny)).clamp(max=_MOST)
        return own + (factor * theirs).to(own.dtype), None


class AdversarialTask(Task):
    """A task that may have an adversary, with a turn of its own.

    Its parameters are in checkpoints, but are not part of `model`: neither averaged nor saved with it.
    """

    def __init__(self, model: Any, loop: LoopSettings, settings: AdversarySettings | None, cond_channels: int = 0):
        """``settings``: None for none; ``cond_channels``: see `Adversary`."""
        super().__init__(model, loop)
        self.adversary = None if settings is None else Adversary(settings, cond_channels)
        if self.adversary is not None:
            self.turns = ("loss", CRITIC)

    def critic_loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """{"loss": ()} of the adversary, for the images that the turn `loss` has made of ``batch``."""
        assert self.adversary is not None
        return {"loss": self.adversary.critic_loss()}

    def trained(self, turn: str) -> list[nn.Parameter]:
        """Of the turn `critic_loss` the adversary's, of the other all others."""
        theirs = [] if self.adversary is None else list(self.adversary.parameters())
        if turn == CRITIC:
            return theirs
        known = {id(parameter) for parameter in theirs}
        return [parameter for parameter in super().trained(turn) if id(parameter) not in known]

    def optimizer(self, turn: str) -> torch.optim.Optimizer:
        """See `Task.optimizer` and `Adversary.optimizer`."""
        if turn == CRITIC:
            assert self.adversary is not None
            return self.adversary.optimizer(self.loop.lr)
        return super().optimizer(turn)
