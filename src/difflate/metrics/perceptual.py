"""LPIPS: how different two images look to a network, as a loss and as a measurement.

Learned perceptual image patch similarity, version 0.1, with its linear weights (Zhang et al. 2018, "The Unreasonable
Effectiveness of Deep Features as a Perceptual Metric"). The backbone is torchvision's and the linear weights are those
that torchmetrics ships, both read as tensors only. docs/metrics.md has the protocol.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from difflate.errors import ConfigError
from difflate.media.picture import as_picture
from difflate.metrics.backbones import BACKBONES, Net, batch_of, load_features, packaged_tensors
from difflate.metrics.pairs import check_pair, planes_of_pair

EPSILON = 1e-8
"""Added under the root of a feature's length. The first implementation added 1e-10 to the root itself, whose gradient
is not a number where all features are 0, as they are in flat areas."""


class Lpips(nn.Module):
    """``x, y: (B, 3, H, W)`` float in [-1, 1] -> ``(B,)``: their LPIPS, 0 if identical. Lower is better.

    Frozen and always in evaluation mode, but differentiable in ``x`` and ``y``. Made by `load_lpips`.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: Net, features: nn.Sequential, linear: list[Tensor]):
        """``features``: those of the backbone, up to its last layer that is used; ``linear``: five of (channels,)."""
        super().__init__()
        self.net: Net = net
        self.backbone = BACKBONES[net]
        self.features = features
        self.linear = nn.ParameterList(nn.Parameter(weights) for weights in linear)
        # from [-1, 1] to what the backbones were trained with: (x / 2 + 1 / 2 - mean) / std of ImageNet, rounded
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float32)[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450], dtype=torch.float32)[:, None, None])
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, whatever the model does that this is a loss of."""
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Section 3, eq. 1. Raises ConfigError for other shapes and for images too small for the backbone."""
        self._check(x, y)
        # one after the other: of an original that needs no gradient nothing is kept for one
        pairs = zip(self._stages(x), self._stages(y), self.linear, strict=True)
        stages = [(weights[:, None, None] * (u - v).square()).sum(1).mean((1, 2)) for u, v, weights in pairs]
        return torch.stack(stages).sum(0)

    def _stages(self, images: Tensor) -> list[Tensor]:
        """Five of (B, channels, h, w), each pixel's features of length 1."""
        stages = []
        images = (images - self.shift) / self.scale
        for i, layer in enumerate(self.features):
            images = layer(images)
            if i in self.backbone.layers:
                # not in half precision, in which the epsilon is 0
                features = images.to(torch.promote_types(images.dtype, torch.float32))
                stages.append(features / (features.square().sum(1, keepdim=True) + EPSILON).sqrt())
        return stages

    def _check(self, x: Tensor, y: Tensor) -> None:
        if x.shape != y.shape or x.ndim != 4 or x.shape[1] != 3:
            raise ConfigError(f"x {tuple(x.shape)} and y {tuple(y.shape)} must both be (B, 3, H, W)")
        if min(x.shape[2:]) < self.backbone.min_side_px:
            raise ConfigError(
                f"images of {x.shape[3]}x{x.shape[2]} px are too small for LPIPS with {self.backbone.title}; "
                f"it needs {self.backbone.min_side_px} px a side"
            )


def load_lpips(net: Net = "alex") -> Lpips:
    """LPIPS with AlexNet (``alex``, what evaluations report) or VGG16 (``vgg``, what losses use), on the CPU.

    The backbone's weights are taken from the cache of torch.hub, where torchvision puts them; nothing is downloaded.
    Raises ConfigError if torchvision, torchmetrics or the weights are missing, or if a file holds something else.
    """
    if net not in BACKBONES:
        raise ConfigError(f"net (={net}) must be one of {', '.join(BACKBONES)}")
    features = load_features(net, "LPIPS")
    shapes = {f"lin{i}.model.1.weight": (1, count, 1, 1) for i, count in enumerate(BACKBONES[net].channels)}
    linear = packaged_tensors(f"lpips_models/{net}.pth", shapes)
    return Lpips(net, features, [tensor.flatten() for tensor in linear.values()])


def lpips(reference: Any, restored: Any, network: Lpips) -> float | None:
    """LPIPS of two images in their own size; None if a side is too small for the network (31 px alex, 16 px vgg).

    Images as `difflate.metrics.psnr` takes them. Raises VerificationFailed if they do not belong together
    (`check_pair`).
    """
    reference, restored = as_picture(reference), as_picture(restored)
    check_pair(reference, restored)
    return _lpips(reference, restored, network)


def lpips_with(net: Net) -> Callable[[Any, Any], float | None]:
    """`lpips` with the network of that name as a measure of an evaluation, whose pairs belong together.

    Raises ConfigError as `load_lpips` does.
    """
    network = load_lpips(net)
    return lambda reference, restored: _lpips(reference, restored, network)


def _lpips(reference: Any, restored: Any, network: Lpips) -> float | None:
    pair = planes_of_pair(reference, restored)
    if min(pair[0].shape[1:]) < network.backbone.min_side_px:
        return None
    with torch.inference_mode():
        return float(network(*(batch_of(pixels, network.shift) for pixels in pair)))
