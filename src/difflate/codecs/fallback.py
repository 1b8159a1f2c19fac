"""Pictures that a transform fails at, such as dithers, text and pixel art, coded as WebP in its place.

A codec is trained to make R + λ·D small, bits per pixel and λ times the squared error of 8-bit levels. The encoder
knows both for the file that it has made (of a large picture by a sample), and takes WebP where that is far better by
the same measure: lossless WebP of what is drawn, lossy of what the transform makes more errors at than in photographs.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from difflate.codecs.learned import as_grey
from difflate.entropy.latent import Latent
from difflate.format.webp import MAX_SIDE_PX, decode_webp, encode_webp

if TYPE_CHECKING:
    from difflate.codecs.transform import TransformSpace

_FAR_BETTER, _FAR_BETTER_LOSSY = 0.75, 0.5
"""Share of the transform's R + λ·D below which WebP is taken. Lossy WebP of photographs has .6 and more, but for the
most rugged textures at the highest qualities."""
_FAR_WORSE = 1.25
"""Squared error, in units of what is usual in photographs, above which lossy WebP is tried: one in ten has more."""
_PROMISING = 1.5
"""Lossless WebP is tried if its fastest method takes less than so many times R + λ·D. Photographs take 2.3 and more;
of text and windows, where other methods save up to three quarters, it takes less than 1."""
_WINDOW_SITES, _MARGIN_SITES = 16, 1
"""Side of the windows of a sample, and what is restored around them: the edges of a latent are restored worse."""
_WINDOWS = 16
"""Windows of a sample at most: a megapixel."""
_QUALITIES = (0, 10, 25, 40, 55, 70, 80, 90, 100)
"""Of lossy WebP; the one in the middle is tried first."""
_PLASTIC = 1.324717957244746
"""The real root of x³ = x + 1."""

Sample = tuple[list[np.ndarray], list[np.ndarray]]
"""(C, h, w) uint8 windows of a picture, and the same as the transform restores them, without diffusion."""


class Fallback:
    """The choice for a `TransformSpace`; see `difflate.codecs.learned.Fallback`."""

    def __init__(self, space: TransformSpace):
        self.space = space

    def sample(self, latent: Latent, pixels: np.ndarray, quality: float | None) -> Sample | None:
        """Windows of ``pixels: (1 or 3, H, W)`` uint8; None for a picture that WebP cannot hold."""
        if max(pixels.shape[1:]) > MAX_SIDE_PX:
            return None
        stride = self.space.stride_px
        originals, restored = [], []
        for rows, columns in windows(*latent.q.shape[1:]):
            top, left = (max(side.start - _MARGIN_SITES, 0) for side in (rows, columns))
            around = slice(top, rows.stop + _MARGIN_SITES), slice(left, columns.stop + _MARGIN_SITES)
            image = self.space.preview(latent[:, *around], quality)
            original = pixels[
                :, rows.start * stride : rows.stop * stride, columns.start * stride : columns.stop * stride
            ]
            y, x = (rows.start - top) * stride, (columns.start - left) * stride
            image = image[:, y : y + original.shape[1], x : x + original.shape[2]]
            originals.append(original)
            restored.append((as_grey(image) if len(pixels) == 1 else image).numpy())
        return originals, restored

    def instead_of(
        self, sample: Sample | None, size_bytes: int, pixels: np.ndarray, quality: float | None
    ) -> bytes | None:
        """A WebP file of ``pixels: (1 or 3, H, W)`` uint8, if that is far better than the latent of ``sample``, which
        takes ``size_bytes``."""
        if sample is None:
            return None
        originals, restored = sample
        lmbda, usual = self.space.trade_off(quality)
        error = _mean_squared(originals, restored)
        area_px = pixels.shape[1] * pixels.shape[2]
        cost = 8 * size_bytes / area_px + lmbda * error
        lossy_limit, best = _FAR_BETTER_LOSSY * cost, None
        # WebP has no room for a few pictures of many bits
        with contextlib.suppress(ValueError):
            if _rate_and_error(originals, None)[0] < _PROMISING * cost:
                data = encode_webp(pixels)
                if 8 * len(data) / area_px < _FAR_BETTER * cost:
                    best, lossy_limit = data, min(8 * len(data) / area_px, lossy_limit)
            if error > _FAR_WORSE * usual:
                rate, error, level = _best_lossy(originals, lmbda)
                if rate + lmbda * error < lossy_limit:
                    data = encode_webp(pixels, level)
                    if 8 * len(data) / area_px + lmbda * error < lossy_limit:  # the sample may have taken fewer bits
                        best = data
        return best


def windows(rows: int, columns: int) -> list[tuple[slice, slice]]:
    """Evenly spread windows of ``rows`` x ``columns`` sites that cover half of them, or as much as is allowed.

    The first points of the R2 sequence (Roberts 2018), which stay far from one another however many are taken.
    """
    down, across = (max(round(side / _WINDOW_SITES), 1) for side in (rows, columns))
    count = min(-(-down * across // 2), _WINDOWS)
    cells: dict[tuple[int, int], None] = {}
    for k in itertools.count():
        cells[int((0.5 + k / _PLASTIC) % 1 * down), int((0.5 + k / _PLASTIC**2) % 1 * across)] = None
        if len(cells) == count:
            break
    return [(_cell(i, rows, down), _cell(j, columns, across)) for i, j in cells]


def _cell(number: int, side: int, count: int) -> slice:
    return slice(number * side // count, (number + 1) * side // count)


def _best_lossy(sample: Sequence[np.ndarray], lmbda: float) -> tuple[float, float, int]:
    """(R, D, quality) of the lossy WebP of ``sample`` with the least R + λ·D, found downhill."""
    tried = functools.cache(lambda i: _rate_and_error(sample, _QUALITIES[i]))

    def cost(i: int) -> float:
        rate, error = tried(i)
        return rate + lmbda * error

    best, at = len(_QUALITIES) // 2, -1
    while best != at:
        at = best
        best = min(range(max(at - 1, 0), min(at + 2, len(_QUALITIES))), key=cost)
    return *tried(at), _QUALITIES[at]


def _rate_and_error(sample: Sequence[np.ndarray], quality: int | None) -> tuple[float, float]:
    """R and D of ``sample`` as WebP files by their fast methods, without loss if ``quality`` is None."""
    files = [encode_webp(part, quality, fast=True) for part in sample]
    rate = sum(8 * len(file) for file in files) / sum(part[0].size for part in sample)
    if quality is None:
        return rate, 0.0
    restored = [decode_webp(file, *part.shape[1:]) for file, part in zip(files, sample, strict=True)]
    return rate, _mean_squared(sample, restored)


def _mean_squared(sample: Sequence[np.ndarray], restored: Sequence[np.ndarray]) -> float:
    """Mean squared error in 8-bit levels; grey windows may be restored with three channels."""
    squares = [np.square(x.astype(np.float32) - y).mean(0).ravel() for x, y in zip(sample, restored, strict=True)]
    return float(np.concatenate(squares).mean())
