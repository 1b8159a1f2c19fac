"""The moving average of the weights that a trained model is saved with.

A power-function profile (Karras et al. 2024, "EDM2", 3.1): the average always spans the same share of the training so
far. One number serves a run of a thousand steps and of a million, needs no warm-up, and stays right when a run is
continued beyond its planned end or cut short by a time budget; a β of its own would have to be chosen for each length.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from difflate.errors import ConfigError


def exponent(sigma_rel: float) -> float:
    """γ of the profile t^γ whose standard deviation is ``sigma_rel`` of the training time (EDM2, Eq. 126 and 127)."""
    if not 0 < sigma_rel < 0.28:
        raise ConfigError(f"ema (={sigma_rel}) must be above 0 and below 0.28, or 0 for none")
    inverse = sigma_rel**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


class Average:
    """The averaged tensors of a model, which can take the place of its own."""

    def __init__(self, model: nn.Module, sigma_rel: float):
        """``sigma_rel``: width of the profile; 0: no average, the model's own tensors are taken as they are."""
        self._model = model
        self._gamma = exponent(sigma_rel) if sigma_rel else None
        self._trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        state = model.state_dict() if sigma_rel else {}
        self.tensors: dict[str, Tensor] = {name: value.detach().clone() for name, value in state.items()}
        """The average, under the names of the model's ``state_dict``."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the model after step ``step`` (from 1 on): β = (1 - 1/step)^(γ + 1)."""
        if self._gamma is None:
            return
        kept = (1 - 1 / step) ** (self._gamma + 1)
        live = self._model.state_dict()
        for name in live.keys() - self._trained:  # buffers, and what is frozen
            self.tensors[name].copy_(live[name])
        moved = [name for name in live if name in self._trained]
        if moved:  # all in one call: a small network's step on a GPU takes as long as a hundred calls
            get_ema_multi_avg_fn(kept)([self.tensors[name] for name in moved], [live[name] for name in moved], 0)

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes the values of ``tensors``. Raises KeyError and RuntimeError if they are of another model."""
        for name, value in self.tensors.items():
            value.copy_(tensors[name])

    @contextlib.contextmanager
    def swap_in(self) -> Iterator[None]:
        """Within, the model has the averaged tensors in the place of its own. Nothing is copied."""
        names = list(self.tensors)
        self._swap(names)
        try:
            yield
        finally:
            self._swap(names[::-1])  # backwards: one tensor may have two names

    def _swap(self, names: list[str]) -> None:
        live = self._model.state_dict(keep_vars=True)
        for name in names:
            live[name].data, self.tensors[name] = self.tensors[name], live[name].data
