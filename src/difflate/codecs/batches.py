"""Several pictures at once: which go through a network together, and how one that fails leaves the others alone."""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from difflate.nn.padding import pad_to_multiple
from difflate.nn.tiles import TILE_PX

_TILES = 4
"""Tiles that have as many pixels as a network is given at once: 64 images of 224x224 px, where tiles have 896."""

Item = TypeVar("Item")
Begun = TypeVar("Begun")
Result = TypeVar("Result")


def in_groups(
    items: Sequence[Item],
    begin: Callable[[Item], tuple[Hashable, int, Begun]],
    finish: Callable[[list[Begun]], list[Result]],
) -> list[Result | Exception]:
    """What ``finish`` makes of each of ``items``, in their order, or why nothing could be made of it.

    ``begin``: of one item, what it is equal in to those that ``finish`` may have beside it, how many it may have at
    most, and what it is given of it. A group in which anything fails is finished one by one.
    """
    made: dict[int, Result | Exception] = {}
    groups: dict[Hashable, list[list[tuple[int, Begun]]]] = {}
    for number, item in enumerate(items):
        try:
            key, most, begun = begin(item)
        except Exception as error:
            made[number] = error
            continue
        of_key = groups.setdefault(key, [[]])
        if len(of_key[-1]) >= most:
            of_key.append([])
        of_key[-1].append((number, begun))
    for group in (group for of_key in groups.values() for group in of_key):
        made.update(zip([number for number, _ in group], _finished([begun for _, begun in group], finish), strict=True))
    return [made[number] for number in range(len(items))]


def _finished(group: list[Begun], finish: Callable[[list[Begun]], list[Result]]) -> list[Result | Exception]:
    try:
        return [*finish(group)]
    except Exception as error:
        if len(group) == 1:
            return [error]
    # outside of the except clause, which would keep what the group had in memory
    return [result for begun in group for result in _finished([begun], finish)]


def result_of(made: Sequence[Result | Exception]) -> Result:
    """The only one of ``made``. Raises it if it is an error."""
    (result,) = made
    if isinstance(result, Exception):
        raise result
    return result


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
