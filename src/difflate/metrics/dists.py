"""DISTS: how different the textures and structures of two images are to a network, as a loss and as a measurement.

Deep image structure and texture similarity (Ding, Ma, Wang, Simoncelli 2020, "Image Quality Assessment: Unifying
Structure and Texture Similarity", arXiv 2004.07728), with the authors' weights, which torchmetrics ships, on
torchvision's VGG16, both read as tensors only. docs/metrics.md has the protocol.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.errors import ConfigError
from difflate.media.picture import as_picture
from difflate.metrics.backbones import BACKBONES, batch_of, load_features, packaged_tensors
from difflate.metrics.pairs import check_pair, planes_of_pair
from difflate.nn.pretrained import IMAGENET_MEAN, IMAGENET_STD

C1 = C2 = 1e-6
"""Constants of eq. 6 and 7, as in the authors' code."""
POOLING_EPSILON = 1e-12
"""Added under the root of the pooling, as in the authors' code."""
DISTS_MIN_SIDE_PX = 17
"""What leaves two features a side in the last stage: a single one has neither variance nor covariance."""
CHANNELS = (3, *BACKBONES["vgg"].channels)
"""Of the image itself, the first stage, and of the network's five."""
_AT_ONCE = 2**17
"""Features whose statistics are computed at once, so that they stay in the cache: a third of the time of all."""
_KEPT_PX = 2**20
"""An original of more pixels is looked at anew beside each restored image: its features take 500 bytes a pixel."""


class L2Pooling(nn.Module):
    """(B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2)): the root of the weighted mean of squares, in place of the
    maximum of 2x2.

    Section 3.1, eq. 3 (Hénaff and Simoncelli 2016): a Hann window of 3x3, which does not alias. Never in half
    precision, in which squares overflow and the epsilon is 0.
    """

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.hann_window(5, periodic=False, dtype=torch.float32)[1:-1]
        window = torch.outer(line, line)
        self.register_buffer("window", (window / window.sum())[None, None])

    def forward(self, features: Tensor) -> Tensor:
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        count = features.shape[1]
        with torch.autocast(features.device.type, enabled=False):
            means = F.conv2d(
                features.square(), self.window.expand(count, -1, -1, -1), stride=2, padding=1, groups=count
            )
        return (means + POOLING_EPSILON).sqrt()


class Dists(nn.Module):
    """``x, y: (B, 3, H, W)`` float in [-1, 1] -> ``(B,)``: their DISTS, 0 if identical, at most 1. Lower is better.

    Frozen and always in evaluation mode, but differentiable in ``x`` and ``y``. Made by `load_dists`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Sequential, alpha: Tensor, beta: Tensor):
        """``features``: VGG16's up to its last ReLU; ``alpha, beta: (1475,)`` of the textures and of the structures."""
        super().__init__()
        self.features = nn.Sequential(*(L2Pooling() if isinstance(x, nn.MaxPool2d) else x for x in features))
        total = alpha.sum() + beta.sum()
        self.alpha, self.beta = nn.Parameter(alpha / total), nn.Parameter(beta / total)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN, dtype=torch.float32)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD, dtype=torch.float32)[:, None, None])
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, whatever the model does that this is a loss of."""
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Eq. 8. Raises ConfigError for other shapes and for a side below 17 px."""
        if x.shape != y.shape or x.ndim != 4 or x.shape[1] != 3:
            raise ConfigError(f"x {tuple(x.shape)} and y {tuple(y.shape)} must both be (B, 3, H, W)")
        if min(x.shape[2:]) < DISTS_MIN_SIDE_PX:
            size = f"{x.shape[3]}x{x.shape[2]}"
            raise ConfigError(f"images of {size} px are too small for DISTS; it needs {DISTS_MIN_SIDE_PX} px a side")
        return self.distance(self.stages(x), self.stages(y))

    def stages(self, images: Tensor) -> list[Tensor]:
        """Six of (B, channels, h, w) float32 or wider: ``images`` in 0…1, then the network's features."""
        images = (images + 1) / 2
        stages, features = [images], (images - self.mean) / self.std
        for i, layer in enumerate(self.features):
            features = layer(features)
            if i in BACKBONES["vgg"].layers:
                stages.append(features)
        return [stage.to(torch.promote_types(stage.dtype, torch.float32)) for stage in stages]

    def distance(self, x: list[Tensor], y: list[Tensor]) -> Tensor:
        """(B,) from the `stages` of both."""
        distance = torch.zeros(len(x[0]), dtype=x[0].dtype, device=x[0].device)
        weights = zip(self.alpha.split(CHANNELS), self.beta.split(CHANNELS), strict=True)
        for u, v, (alpha, beta) in zip(x, y, weights, strict=True):
            some = max(1, _AT_ONCE // u[:, 0].numel())
            parts = (u.split(some, dim=1), v.split(some, dim=1), alpha.split(some), beta.split(some))
            for channels in zip(*parts, strict=True):
                distance = distance + _difference(*channels)
        return distance


def _difference(u: Tensor, v: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """(B,): the part of some channels ``u, v: (B, C, h, w)`` with the weights ``alpha, beta: (C,)``.

    1 minus the similarities of eq. 6 and 7, as fractions of squares: 0 for identical images, and never below.
    """
    u_mean, v_mean = u.mean((2, 3), keepdim=True), v.mean((2, 3), keepdim=True)
    texture = (u_mean - v_mean).square() / (u_mean.square() + v_mean.square() + C1)
    u, v = u - u_mean, v - v_mean
    variances = u.square().mean((2, 3)) + v.square().mean((2, 3))
    structure = (u - v).square().mean((2, 3)) / (variances + C2)  # the numerator: both variances - 2 * covariance
    return texture[..., 0, 0] @ alpha + structure @ beta


def load_dists() -> Dists:
    """DISTS on VGG16, on the CPU.

    The network's weights are taken from the cache of torch.hub, where torchvision puts them; nothing is downloaded.
    Raises ConfigError if torchvision, torchmetrics or the weights are missing, or if a file holds something else.
    """
    features = load_features("vgg", "DISTS")
    held = packaged_tensors("dists_models/weights.pt", {key: (1, sum(CHANNELS), 1, 1) for key in ("alpha", "beta")})
    return Dists(features, held["alpha"].flatten(), held["beta"].flatten())


def dists(reference: Any, restored: Any, network: Dists) -> float | None:
    """DISTS of two images in their own size; None if a side is below 17 px.

    Images as `difflate.metrics.psnr` takes them. Raises VerificationFailed if they do not belong together
    (`check_pair`).
    """
    reference, restored = as_picture(reference), as_picture(restored)
    check_pair(reference, restored)
    return _Comparison(network)(reference, restored)


def dists_with() -> Callable[[Any, Any], float | None]:
    """`dists` as a measure of an evaluation, whose pairs belong together. Raises ConfigError as `load_dists` does."""
    return _Comparison(load_dists())


class _Comparison:
    """DISTS of pairs. Keeps the features of the last original: an evaluation asks for it with each setting in turn."""

    def __init__(self, network: Dists):
        self.network = network
        self.last: tuple[np.ndarray, list[Tensor]] | None = None

    def __call__(self, reference: Any, restored: Any) -> float | None:
        first, second = planes_of_pair(reference, restored)
        if min(first.shape[1:]) < DISTS_MIN_SIDE_PX:
            return None
        with torch.inference_mode():
            return float(self.network.distance(self._original(first), self._stages(second)))

    def _original(self, pixels: np.ndarray) -> list[Tensor]:
        if self.last is not None and np.array_equal(self.last[0], pixels):
            return self.last[1]
        self.last = None  # before there are two
        stages = self._stages(pixels)
        if pixels[0].size <= _KEPT_PX:
            self.last = pixels.copy(), stages
        return stages

    def _stages(self, pixels: np.ndarray) -> list[Tensor]:
        return self.network.stages(batch_of(pixels, self.network.mean))
