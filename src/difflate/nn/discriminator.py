"""The network of an adversary: which patches of an image are those of an original (Isola et al. 2017)."""

import itertools
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from difflate.errors import ConfigError
from difflate.nn.layers import Conv, channels_last, conv, settle

_SLOPE = 0.2


class PatchDiscriminator(nn.Module):
    """Convolutions that halve the size, then one number for each patch: above 0 for originals, below for others.

    The first layer is at full resolution, so patterns of single pixels are seen as they are; kernels of four at a
    stride of two weigh all pixels alike, and teach no checkerboard. With four widths a patch has 56x56 px, and there is
    one every 8 px. Weights are divided by their largest singular value (Miyato et al. 2018), which bounds how steep the
    network gets: no statistics of a batch, and no gradient of a gradient. One step of the power iteration for each step
    of training suffices, `follow`; `forward` changes nothing.
    """

    def __init__(self, widths: Sequence[int] = (48, 96, 192, 256), cond_channels: int = 0):
        """``widths``: channels at full size, at half of it and so on; ``cond_channels``: of what is judged beside the
        image, at its size (Mentzer et al. 2020). Raises ConfigError."""
        super().__init__()
        if not widths or not all(1 <= width <= 1 << 12 for width in widths):
            raise ConfigError(f"widths (={list(widths)}) must be from 1 to {1 << 12}, at least one")
        layers: list[nn.Conv2d] = [conv(3 + cond_channels, widths[0])]
        layers += [Conv(before, after, 4, stride=2, padding=1) for before, after in itertools.pairwise(widths)]
        layers += [conv(widths[-1], widths[-1])]
        self.layers = nn.ModuleList(spectral_norm(layer) for layer in layers)
        self.exit = spectral_norm(conv(widths[-1], 1))
        settle(self)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode: in the other every look would move the power iteration."""
        return super().train(False)

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, 1, H', W') float32 of ``images: (B, 3, H, W)`` in [-1, 1] and ``condition: (B, C, H, W)``; H' and W' are
        halved for each width but the first, rounded down, and must be at least 1."""
        x = channels_last(images if condition is None else torch.cat([images, condition], dim=1))
        with parametrize.cached():
            with torch.autocast(x.device.type, enabled=False):  # singular values need all digits
                for layer in self.modules():
                    if isinstance(layer, nn.Conv2d):
                        _ = layer.weight
            for layer in self.layers:
                x = F.leaky_relu(layer(x), _SLOPE)
            return self.exit(x).float()

    @torch.no_grad()
    def follow(self) -> None:
        """A step of the power iterations, after one of the weights."""
        for layer in self.modules():
            if parametrize.is_parametrized(layer):
                parametrizations: Any = layer.parametrizations
                parametrizations.weight[0].training = True
                _ = layer.weight
                parametrizations.weight[0].training = False
