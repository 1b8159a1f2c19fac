"""What losses of images look at: LPIPS by one or two networks, at shifting places, and where errors are seen."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.errors import ConfigError
from difflate.nn.layers import frames_of

Net = Literal["alex", "vgg"]
Nets = Net | list[Net]
"""What a configuration's key `lpips` is: a network, or several, whose mean is taken."""
_AROUND_PX, _SMOOTH, _MASKED = 3, 20.0, 4 / 127.5
_SHIFT_SHARE = 20
"""A crop is shifted by up to a twentieth of its side: six of 128 px."""


class _Mean(nn.Module):
    """The mean of several distances of images."""

    def __init__(self, distances: Sequence[nn.Module]):
        super().__init__()
        self.distances = nn.ModuleList(distances)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B,) of ``x, y: (B, 3, H, W)``."""
        return torch.stack([distance(x, y) for distance in self.distances]).mean(0)


def load_lpips(nets: Nets) -> nn.Module:
    """LPIPS of float32 images in [-1, 1] by a network, or the mean of those of several: what one of them lets pass,
    such as a regular pattern, another sees. Raises ConfigError without the weights."""
    from difflate.metrics import perceptual

    if isinstance(nets, str):
        return perceptual.load_lpips(nets)
    check_nets(nets)
    return _Mean([perceptual.load_lpips(net) for net in nets])


def check_nets(nets: Nets) -> None:
    """Raises ConfigError for an empty list and for a network that is named twice."""
    if not isinstance(nets, str) and (not nets or len(set(nets)) < len(nets)):
        raise ConfigError(f"lpips (={nets}) must be alex, vgg or [alex, vgg]")


def distances(lpips: nn.Module, made: Tensor, originals: Tensor, shift: Tensor | None) -> Tensor:
    """(B,) ``lpips`` of images in [-1, 1], of clips the mean of their frames'. ``shift``: see `shifted`; None: none."""
    pair = frames_of(made), frames_of(originals)
    found = lpips(*(pair if shift is None else shifted(pair, shift)))
    return found.unflatten(0, (len(originals), -1)).mean(1)


def visibility(images: Tensor) -> Tensor:
    """(B, 1, H, W) how much an error counts at each pixel of ``images: (B, 3, H, W)`` in [-1, 1], from 1 to 20.

    1 + 19·σ²/(v + σ²), v the variance of brightness around and σ four 8-bit levels: LPIPS alone lets regular patterns
    pass in smooth parts, which is where they are seen; texture hides them (Watson 1993).
    """
    brightness = images.mean(1, keepdim=True)
    around = F.avg_pool2d(F.pad(brightness, (_AROUND_PX,) * 4, mode="reflect"), 2 * _AROUND_PX + 1, 1)
    squares = F.avg_pool2d(F.pad(brightness.square(), (_AROUND_PX,) * 4, mode="reflect"), 2 * _AROUND_PX + 1, 1)
    variance = (squares - around.square()).clamp_min(0)
    return 1 + (_SMOOTH - 1) * _MASKED**2 / (variance + _MASKED**2)


def shifted(pair: tuple[Tensor, Tensor], shift: Tensor) -> list[Tensor]:
    """Both of (B, 3, H, W) without a twentieth of their rows and columns, ``shift: (2,)`` in [0, 1) of them first.

    A network whose first layer looks at every fourth pixel only lets patterns pass that it does not see: so were taught
    weaves of dots. Of random places it sees all (Kettunen, Härkönen, Lehtinen 2019).
    """
    height, width = pair[0].shape[2:]
    rows, columns = (
        torch.arange(side - side // _SHIFT_SHARE, device=shift.device) + (start * (side // _SHIFT_SHARE + 1)).long()
        for side, start in zip((height, width), shift.to(pair[0].device), strict=True)
    )
    return [x.index_select(2, rows).index_select(3, columns) for x in pair]
