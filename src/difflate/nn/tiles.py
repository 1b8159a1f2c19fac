"""Large images in overlapping tiles, blended where they overlap: memory depends on the tile, not on the image.

Everything counts in sites, those of a latent; how many pixels are between two of them is an argument.
"""

import ctypes
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from difflate.errors import ConfigError
from difflate.nn.padding import pad_to_multiple
from difflate.seeds import Stream, torch_generator

Watch = Callable[[int, int, int, Tensor], None]
"""Told of each step of diffusion in a tile: its number from 0, the tile's first row and column in pixels, and the image
(3, h, w) in about [-1, 1] that the network expects at it. What it raises ends the work."""
TILE_PX = 896
"""Default side of the tiles: decoding 45 megapixels then takes less than 2·10^9 bytes."""
_RAMP = 2
"""Width, in sites, over which tiles of images fade into each other. Only what sees further makes them differ there."""
_NOISE_PX = 128
"""Side of the squares of a field of noise that have a generator each."""


class Numbers(Protocol):
    """(B, M, h, w) numbers of latents, an array or what makes parts of one."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: tuple[slice, slice, slice, slice], /) -> np.ndarray: ...


@dataclass(frozen=True)
class Span:
    """A tile along one side: its sites, and how much it counts for each."""

    start: int
    stop: int
    weight: Tensor
    """((stop - start)·scale,) float32; the weights of all spans sum to 1 everywhere."""


def spans(size: int, tile: int, margin: int, ramp: int, scale: int) -> list[Span]:
    """Tiles along a side of ``size`` sites, for results with ``scale`` values a site.

    They are at most ``tile`` long, but no shorter than overlaps allow. Two neighbours share 2·``margin`` + ``ramp``
    sites: what is within ``margin`` of a tile's end counts nothing (there the network sees less than it would in the
    whole image), and between the margins one fades into the other.
    """
    shared = 2 * margin + ramp
    tile = max(tile, 2 * shared + 1)
    if size <= tile:
        return [Span(0, size, torch.ones(size * scale, dtype=torch.float32))]
    count = -(-(size - shared) // (tile - shared))
    edges = [i * (size - shared) // count for i in range(count + 1)]  # even lengths
    tiles = []
    rising = (torch.arange(ramp * scale, dtype=torch.float32) + 0.5) / max(ramp * scale, 1)
    nothing = torch.zeros(margin * scale, dtype=torch.float32)
    for i in range(count):
        start, stop = edges[i], edges[i + 1] + shared
        weight = torch.ones((stop - start) * scale, dtype=torch.float32)
        if i:
            weight[: len(nothing) + len(rising)] = torch.cat([nothing, rising])
        if i + 1 < count:
            weight[len(weight) - len(nothing) - len(rising) :] = torch.cat([1 - rising, nothing])
        tiles.append(Span(start, stop, weight))
    return tiles


def windows(height: int, width: int, tile: int, margin: int, ramp: int, scale: int) -> Iterator[tuple[Span, Span]]:
    """(rows, columns) of each tile of ``height`` x ``width`` sites; memory is given back after each row of tiles."""
    down, across = spans(height, tile, margin, ramp, scale), spans(width, tile, margin, ramp, scale)
    for number, rows in enumerate(down):
        if number:
            _give_back()
        yield from ((rows, columns) for columns in across)


def blend(out: Tensor, part: Tensor, rows: Span, columns: Span, scale: int, top: int = 0) -> None:
    """Adds ``part: (C, h, w)`` of a tile to ``out: (C, H, W)``, which begins ``top`` values below the image's first.

    Both have ``scale`` values a site; what is beyond ``out`` is cut off.
    """
    place = (
        slice(rows.start * scale - top, rows.stop * scale - top),
        slice(columns.start * scale, columns.stop * scale),
    )
    weights = rows.weight[:, None] * columns.weight
    height, width = out[0][place].shape
    out[:, place[0], place[1]] += (part * weights.to(part))[:, :height, :width]


def restore_in_tiles(
    restore: Callable[[Tensor, int, int], Tensor], y_hat: Numbers, height: int, width: int, tile_px: int,
    margin: int, ramp: int, stride_px: int, device: torch.device, planes: int = 3,
) -> Tensor:  # fmt: skip
    """(B, ``planes``, ``height``, ``width``) uint8 on the CPU, of ``y_hat: (B, M, h, w)``.

    ``restore``: latents (B, M, h', w') of a tile, and its first row and column, to (B, planes, s·h', s·w') in [-1, 1],
    s = ``stride_px``.
    """

    def image_of(rows: Span, columns: Span) -> Tensor:
        part = torch.from_numpy(y_hat[:, :, rows.start : rows.stop, columns.start : columns.stop])
        return restore(part.to(device), rows.start, columns.start).flatten(0, 1)

    tile, all_planes = sites_of(tile_px, stride_px), len(y_hat) * planes
    images = in_bands(image_of, height, width, tile, margin, ramp, stride_px, device, all_planes)
    return images.unflatten(0, (len(y_hat), planes))


def improve_in_tiles(
    improve: Callable[[Tensor, int, int], Tensor], image: Tensor, tile_px: int, site_px: int, reach_px: int,
    device: torch.device,
) -> Tensor:  # fmt: skip
    """(3, H, W) uint8 on the CPU, of ``image: (3, H, W)`` uint8, padded to sites of ``site_px``; grey stays grey.

    ``improve``: a tile (1, 3, h, w) in [-1, 1] on ``device``, and its first row and column in pixels, to one as large.
    What it makes of a pixel depends on nothing that is further away than ``reach_px``; what does fades over two sites.
    """
    grey = bool((image == image[:1]).all())

    def restore(rows: Span, columns: Span) -> Tensor:
        top, left = rows.start * site_px, columns.start * site_px
        part = image[None, :, top : rows.stop * site_px, left : columns.stop * site_px]
        improved = improve(pad_to_multiple(part, site_px).to(device).float() / 127.5 - 1, top, left)
        return (improved.mean(1, keepdim=True).expand(-1, 3, -1, -1) if grey else improved)[0]

    (height, width), tile = image.shape[1:], sites_of(tile_px, site_px)
    return in_bands(restore, height, width, tile, -(-reach_px // site_px), _RAMP, site_px, device)


def watched(watch: Watch | None, top: int, left: int) -> Callable[[int, Tensor], None] | None:
    """``watch``, for a sampler in the tile that begins there: takes a step's number and images (1, 3, h, w)."""
    if watch is None:
        return None
    return lambda step, images: watch(step, top, left, images[0])


def in_bands(
    restore: Callable[[Span, Span], Tensor], height: int, width: int, tile: int, margin: int, ramp: int, site_px: int,
    device: torch.device, planes: int = 3,
) -> Tensor:  # fmt: skip
    """(``planes``, ``height``, ``width``) uint8 on the CPU, of tiles as in `spans`, blended.

    ``restore``: rows and columns of a tile, in sites of ``site_px`` pixels, to its (planes, h, w) in [-1, 1], on
    ``device``.
    """
    out = torch.empty(planes, height, width, dtype=torch.uint8)
    all_rows, all_columns = (spans(-(-side // site_px), tile, margin, ramp, site_px) for side in (height, width))
    shared = torch.empty(planes, 0, width, dtype=torch.float32, device=device)
    for number, rows in enumerate(all_rows):
        if number:
            _give_back()
        top, bottom = rows.start * site_px, min(rows.stop * site_px, height)
        # of the tiles side by side: of the whole image it would be half a gigabyte
        band = torch.zeros(planes, bottom - top, width, dtype=torch.float32, device=device)
        band[:, : shared.shape[1]] = shared
        for columns in all_columns:
            blend(band, restore(rows, columns).float().clamp(-1, 1), rows, columns, site_px, top)
        end = all_rows[number + 1].start * site_px if number + 1 < len(all_rows) else height
        shared = band[:, end - top :].clone()
        out[:, top:end] = band[:, : end - top].add_(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
        del band  # before the next one
    return out


def _give_back() -> None:
    """Returns what tiles have freed to the system: glibc keeps blocks below 32 MiB, and ever more of them lie scattered
    (90 MiB at the peak of `cdc` on 45 megapixels). It takes a twentieth of a second, so not after each tile."""
    if (trim := _malloc_trim()) is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Glibc's; None where the system has another allocator."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def sites_of(tile_px: int, site_px: int) -> int:
    """A tile's side in sites of ``site_px`` pixels. Raises ConfigError if it has none."""
    if tile_px < site_px:
        raise ConfigError(f"tile (={tile_px} px) must be at least {site_px}")
    return tile_px // site_px


def place_noise(seed: int, top: int, left: int, height: int, width: int, channels: int = 3, frame: int = 0) -> Tensor:
    """(1, ``channels``, ``height``, ``width``) float32 of N(0, 1) on the CPU: the part from ``top``, ``left`` of a
    field of noise, that of ``frame`` of a clip.

    Each square of 128x128 of the field has a generator of its own, so any part of it can be made alone.
    """
    out = torch.empty(1, channels, height, width, dtype=torch.float32)
    for row in range(top // _NOISE_PX, -(-(top + height) // _NOISE_PX)):
        for column in range(left // _NOISE_PX, -(-(left + width) // _NOISE_PX)):
            generator = torch_generator(seed, Stream.DECODER_NOISE, frame << 32 | row << 16 | column)
            square = torch.randn(channels, _NOISE_PX, _NOISE_PX, generator=generator, dtype=torch.float32)
            y, x = row * _NOISE_PX - top, column * _NOISE_PX - left
            inside = out[0, :, max(y, 0) : y + _NOISE_PX, max(x, 0) : x + _NOISE_PX]
            square = square[:, max(-y, 0) :, max(-x, 0) :]
            inside.copy_(square[:, : inside.shape[1], : inside.shape[2]])
    return out
