"""The moving average of the weights that a trained model is saved with.

A power-function profile (Karras et al. 2024, "EDM2", 3.1): the average always spans the same share of the training so
far. One number serves a run of a thousand steps and of a million, needs no warm-up, and stays right when a run is
continued beyond its planned end or cut short by a time budget; a β of its own would have to be chosen for each length.
"""

import numpy as np
import torch
from torch import nn

from difflate.errors import ConfigError


def exponent(sigma_rel: float) -> float:
    """γ of the profile t^γ whose standard deviation is ``sigma_rel`` of the training time (EDM2, Eq. 126 and 127)."""
    if not 0 < sigma_rel < 0.28:
        raise ConfigError(f"ema (={sigma_rel}) must be above 0 and below 0.28, or 0 for none")
    inverse = sigma_rel**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


@torch.no_grad()
def update(average: nn.Module, trained: nn.Module, step: int, gamma: float) -> None:
    """Moves ``average`` towards ``trained`` after step ``step`` (from 1 on): β = (1 - 1/step)^(γ + 1)."""
    share = 1 - (1 - 1 / step) ** (gamma + 1)
    for ours, theirs in zip(average.parameters(), trained.parameters(), strict=True):
        ours.lerp_(theirs, share)
    for buffer, new in zip(average.buffers(), trained.buffers(), strict=True):
        buffer.copy_(new)
