"""Colours under alpha: those that nobody sees filled from their neighbours, or the picture laid over white."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from difflate.media.picture import Picture

MID_GREY = 128
"""Colour of a picture that is transparent everywhere."""
_WHITE = 255
_UNIT = 12
"""Parts of a step of 8 bits: the mean of one to four samples is a whole number of them."""
_BAND = 32
"""Rows of the half-size picture that are worked on at once, so that they stay in the cache."""


def fill_hidden(picture: Picture) -> Picture:
    """``picture`` with its colours where alpha is 0 taken from the visible pixels around; all others stay as they are.

    Push and pull (Gortler et al. 1996, section 3.4, with weights of 0 and 1): means of the known pixels in ever
    coarser pictures, then interpolated back into the holes. In integers, so the same on every machine. What is hidden
    has no influence on the result. Without a hidden pixel ``picture`` is returned itself.
    """
    if picture.alpha is None:
        return picture
    known = picture.alpha != 0
    if known.all():
        return picture
    if not known.any():
        return replace(picture, pixels=np.full_like(picture.pixels, MID_GREY))
    coarse, coarse_known = _pull_pixels(picture.pixels, known)
    return replace(picture, pixels=_push_pixels(picture.pixels, known, _fill(coarse, coarse_known)))


def over_white(picture: Picture) -> Picture:
    """``picture`` laid over white, without alpha: what a viewer with a white page shows."""
    if picture.alpha is None:
        return picture
    alpha = picture.alpha.astype(np.uint16)
    mixed = picture.pixels * alpha + _WHITE * (255 - alpha)
    return replace(picture, pixels=((mixed + 127) // 255).astype(np.uint8), alpha=None)


def _fill(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """``values: (C, h, w)`` uint16 of which ``known: (h, w)`` bool are taken, the others interpolated."""
    if known.all():
        return values
    finer = _fill(*_pull(values, known))
    return np.where(known, values, _upsample(finer, *known.shape))


def _pull(values: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C, ⌈h/2⌉, ⌈w/2⌉) uint16 means of the known among each 2x2, and where there are any."""
    sums, count = _sum_2x2(values * known), _sum_2x2(known.astype(np.uint16))
    return sums // np.maximum(count, 1), count > 0


def _sum_2x2(x: np.ndarray) -> np.ndarray:
    height, width = x.shape[-2:]
    if height % 2 or width % 2:
        x = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, height % 2), (0, width % 2)])
    rows = x[..., ::2, :] + x[..., 1::2, :]
    return rows[..., ::2] + rows[..., 1::2]


def _upsample(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """(C, height, width) of ``x: (C, ⌈height/2⌉, ⌈width/2⌉)`` uint16, bilinear about the pixels' middles."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="edge")
    return _upsample_padded(padded)[:, :height, :width]


def _upsample_padded(x: np.ndarray) -> np.ndarray:
    """(C, 2 h, 2 w) of ``x: (C, h + 2, w + 2)`` uint16 below 2^14."""
    channels, height, width = x.shape[0], x.shape[1] - 2, x.shape[2] - 2
    near = 3 * x[:, 1:-1] + 2
    rows = np.empty((channels, height, 2, width + 2), x.dtype)
    rows[:, :, 0] = (near + x[:, :-2]) >> 2
    rows[:, :, 1] = (near + x[:, 2:]) >> 2
    near = 3 * rows[..., 1:-1] + 2
    both = np.empty((channels, height, 2, width, 2), x.dtype)
    both[..., 0] = (near + rows[..., :-2]) >> 2
    both[..., 1] = (near + rows[..., 2:]) >> 2
    return both.reshape(channels, 2 * height, 2 * width)


def _pull_pixels(pixels: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `_pull` gives for ``pixels: (C, H, W)`` uint8, in units of 1 / `_UNIT`."""
    channels, height, width = pixels.shape
    half = (height + 1) // 2
    values = np.empty((channels, half, (width + 1) // 2), np.uint16)
    present = np.empty(values.shape[1:], bool)
    weights = np.array([0, *(_UNIT // count for count in (1, 2, 3, 4))], np.uint16)
    for top in range(0, half, _BAND):
        fine, coarse = slice(2 * top, 2 * (top + _BAND)), slice(top, top + _BAND)
        count = _sum_2x2(known[fine].view(np.uint8))
        sums = _sum_2x2((pixels[:, fine] * known[fine]).astype(np.uint16))
        np.multiply(sums, weights[count], out=values[:, coarse])
        np.not_equal(count, 0, out=present[coarse])
    return values, present


def _push_pixels(pixels: np.ndarray, known: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """``pixels: (C, H, W)`` uint8 with ``coarse``, as `_pull_pixels` has it, interpolated where they are not known."""
    filled = pixels.copy()
    padded = np.pad(coarse, ((0, 0), (1, 1), (1, 1)), mode="edge")
    for top in range(0, coarse.shape[1], _BAND):
        fine = slice(2 * top, 2 * (top + _BAND))
        hidden = ~known[fine]
        if hidden.any():
            height, width = hidden.shape
            band = _upsample_padded(padded[:, top : top + _BAND + 2])[:, :height, :width]
            np.copyto(filled[:, fine], ((band + _UNIT // 2) // _UNIT).astype(np.uint8), where=hidden)
    return filled
