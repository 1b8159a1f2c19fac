"""The learning rate as a function of how far the training is."""

import math
from typing import Literal

Decay = Literal["constant", "linear", "cosine", "inverse-sqrt"]


def learning_rate(peak: float, step: int, warmup_steps: int, decay: Decay, done: float, decay_steps: int) -> float:
    """The rate at ``step`` (from 0): rises linearly over the warm-up; then constant, linear or cosine to 0 by the share
    ``done`` of the training, or with 1/√step from ``decay_steps`` on, which needs no end (Karras et al. 2024)."""
    rate = peak * min(1.0, (step + 1) / max(warmup_steps, 1))
    if decay == "linear":
        return rate * (1 - done)
    if decay == "cosine":
        return rate * (1 + math.cos(math.pi * done)) / 2
    if decay == "inverse-sqrt":
        return rate / math.sqrt(max(step / decay_steps, 1.0))
    return rate
