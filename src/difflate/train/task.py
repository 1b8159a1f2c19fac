"""What a training is of: the model, what is frozen beside it, losses and their optimizers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from difflate.data.crops import Batch
from difflate.train.draws import Draws
from difflate.train.settings import LoopSettings


class Task(nn.Module, ABC):
    """A model with its losses, which `difflate.train.loop.train` minimises.

    A step is one turn after the other, each the gradient of one loss and a step of one optimizer on the same images. A
    task has one turn unless `turns` says more: an adversary is a second one. Saved and resumed are the parameters, and
    the average of those of `model`.
    """

    turns: Sequence[str] = ("loss",)
    """Names of the methods that give the losses of a step's turns, in their order; validation asks for `loss`."""

    def __init__(self, model: Any, loop: LoopSettings):
        """``model``: what is averaged and saved, a `difflate.store.folders.FolderModel`."""
        super().__init__()
        self.model, self.loop = model, loop
        self._frozen: dict[str, nn.Module] = {}

    def freeze(self, **modules: Any) -> None:
        """Sets torch ``modules``, such as a teacher, as attributes that move to the device of the task and nothing
        else: they are not trained, copied, averaged or saved."""
        for name, module in modules.items():
            self._frozen[name] = module.requires_grad_(False).eval()

    def __getattr__(self, name: str) -> Any:
        frozen = self.__dict__.get("_frozen", {})
        return frozen[name] if name in frozen else super().__getattr__(name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for module in self._frozen.values():
            module._apply(fn)
        return super()._apply(fn, recurse)

    def forward(self, batch: Batch, turn: str = "loss", draws: Draws | None = None) -> dict[str, Tensor]:
        """The scalars of a turn; wrappers for several processes see every loss as one ``forward``.

        ``draws``: where the randomness is from, by default `draws_of` ``batch``.
        """
        return getattr(self, turn)(batch, draws or self.draws_of(batch))

    def draws_of(self, batch: Batch) -> Draws:
        """The randomness that belongs to the images of ``batch``."""
        return Draws(self.loop.seed, batch.numbers, self.loop.batch)

    @abstractmethod
    def loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """{"loss": ()} and further scalars to show of ``batch``, all randomness from ``draws``."""

    def trained(self, turn: str) -> list[nn.Parameter]:
        """The parameters that ``turn`` trains; of a single turn all that are not frozen."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def optimizer(self, turn: str) -> torch.optim.Optimizer:
        """The optimizer of ``turn``. The loop sets the learning rate of all of its groups before each step."""
        s = self.loop
        return torch.optim.AdamW(self.trained(turn), lr=s.lr, betas=(0.9, s.beta2), weight_decay=s.weight_decay)

    def pictures(self) -> Tensor | None:
        """(B, 3, H, W) uint8 to look at, from the same seeds each time; None: there are none."""
        return None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device
