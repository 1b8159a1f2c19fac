"""Several pictures as one tensor, which goes through a network at once."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from difflate.nn.padding import pad_to_multiple
from difflate.nn.tiles import TILE_PX

_TILES = 4
"""Tiles that have as many pixels as a network is given at once: 64 images of 224x224 px, where tiles have 896."""


def most_at_once(rows: int, columns: int, stride_px: int, tile_px: int | None) -> int:
    """How many images of ``rows`` x ``columns`` sites of ``stride_px`` a network is given at once, where the tiles of
    large ones have ``tile_px``."""
    return max(1, _TILES * (tile_px or TILE_PX) ** 2 // (rows * columns * stride_px**2))


def as_images(pixels: Sequence[Tensor], stride_px: int) -> Tensor:
    """(B, 3, H, W) uint8 of B ``pixels: (1 or 3, h, w)`` uint8 that have as many sites of ``stride_px``.

    Several are padded to whole sites, by their last row and column, as networks pad what they are given; one is not.
    """
    images = [each.expand(3, -1, -1)[None] for each in pixels]
    return images[0] if len(images) == 1 else torch.cat([pad_to_multiple(image, stride_px) for image in images])


def as_batch(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """(B, …) of B ``arrays`` of one shape; a single one is not copied."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
