"""Pictures side by side, and PNG files of them."""

import io
import math
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from difflate.files import atomic_write
from difflate.media.picture import from_tensor, to_pil

_GAP_PX = 2
_LEAST_PX = 96
"""What the longer side of an image of a grid is enlarged to: smaller ones are hard to see."""


def image_grid(images: Tensor, columns: int | None = None, scale: int | None = None) -> Tensor:
    """(3, H', W') uint8 of ``images: (B, 3, H, W)`` uint8, row by row, in a square unless ``columns`` is given.

    ``scale``: how many times each is enlarged, by nearest neighbours; None: as `grid_scale` says.
    """
    scale = scale or grid_scale(*images.shape[2:])
    images = images.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    padded = F.pad(images, (0, _GAP_PX, 0, _GAP_PX, 0, 0, 0, rows * columns - len(images)))
    lines = padded.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
    return lines.flatten(3).flatten(1, 2)[:, :-_GAP_PX, :-_GAP_PX]


def grid_scale(height: int, width: int) -> int:
    """The least whole number by which the longer side has at least 96 px."""
    return math.ceil(_LEAST_PX / max(height, width))


def save_png(image: Tensor, path: Path, force: bool = True) -> None:
    """Writes ``image: (3, H, W)`` uint8. Raises as `difflate.files.atomic_write`."""
    file = io.BytesIO()
    to_pil(from_tensor(image)).save(file, "PNG")
    atomic_write(path, file.getvalue(), force)
