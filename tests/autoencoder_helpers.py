"""Autoencoders small enough for tests."""

from typing import Any

import numpy as np
import torch

from difflate.models.autoencoder import Autoencoder
from difflate.models.bottlenecks import BottleneckConfig
from difflate.nn.encoders import ConvConfig

SMALL = ConvConfig(widths=(8, 16), blocks=(1, 1), patch=4)
BOTTLENECKS: dict[str, dict[str, Any]] = {
    "fsq": {"kind": "fsq", "levels": (8, 5, 3)},
    "vq": {"kind": "vq", "channels": 4, "codebook_size": 1000},
    "vq-large": {"kind": "vq", "channels": 4, "codebook_size": 16384},
    "ae": {"kind": "ae", "channels": 4},
    "vae": {"kind": "vae", "channels": 4, "hyperprior": 16},
    "rounded": {"kind": "rounded", "channels": 6, "hyperprior": 16},
    "rounded-factorized": {"kind": "rounded", "channels": 6},
}
FINITE = ["fsq", "vq", "vq-large"]


def autoencoder(name: str = "fsq", seed: int = 0) -> Autoencoder:
    """Untrained, with the bottleneck of that name; what is coded differs from site to site."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = Autoencoder(SMALL, BottleneckConfig(**BOTTLENECKS[name]), SMALL)
        model.encode.exit.weight.mul_(20)
    return model.eval()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(3, height, width) uint8, rough and smooth parts."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (3, -(-height // 8), -(-width // 8))).repeat(8, 1).repeat(8, 2)[:, :height, :width]
    return ((coarse + rng.integers(0, 256, (3, height, width))) // 2).astype(np.uint8)
