"""Sets of images, and a network in place of Inception, for the tests of distances between sets."""

import numpy as np
import torch
from torch import Tensor, nn

from difflate.seeds import torch_generator
from lazy import Lazy

ndimage = Lazy("scipy.ndimage")


def smooth(count: int, height: int = 32, width: int = 32, seed: int = 0) -> Tensor:
    """(N, 3, H, W) uint8 within 60…195, with structure at all scales."""
    random = np.random.default_rng(seed)
    total = np.zeros((count, 3, height, width))
    for sigma in (0, 1, 2, 4, 8):
        layer = ndimage.gaussian_filter(random.normal(size=total.shape), (0, 0, sigma, sigma))
        total += layer / layer.std() * (1 + sigma)
    return torch.from_numpy(np.clip(128 + total / total.std() * 30, 60, 195).round().astype(np.uint8))


class Small(nn.Module):
    """Images -> (B, 5), in place of the Inception network."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 5, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(5, 12, generator=torch_generator(1, 0)))

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return self.linear(nn.functional.adaptive_avg_pool2d(images.float() / 64 - 2, 2).flatten(1))
