"""Pictures without a colour that are stored with three channels, as scans and most black-and-white photographs are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from difflate.media.picture import Picture, to_srgb

_LEVELS = 4
"""The channels of a grey pixel are within so many levels of one another: rounding, or JPEG at a high quality."""
_MOST_LEVELS = 16
"""What a pixel that stands out may have. A spot of more is seen, however small."""
_SHARE = 1e-3
"""Pixels that may stand out."""
_BAND = 64
"""Rows that are looked at together."""


def without_colour(picture: Picture) -> Picture:
    """``picture`` as a grey one, each pixel the mean of its channels, if it has no colour; else ``picture`` itself.

    An ICC profile of RGB, which no longer fits, is applied. A tint all over of more than 4 levels is a colour.
    """
    if len(picture.pixels) == 1 or not _is_grey(picture.pixels):
        return picture
    plain = to_srgb(picture)
    if plain.notes != picture.notes or not _is_grey(plain.pixels):  # the profile is damaged, or gives a tint
        return picture
    mean = (plain.pixels.sum(axis=0, keepdims=True, dtype=np.uint16) + 1) // 3
    return replace(plain, pixels=mean.astype(np.uint8))


def _is_grey(pixels: np.ndarray) -> bool:
    """Whether the channels of ``pixels: (3, H, W)`` uint8 are alike."""
    allowed = _SHARE * pixels[0].size
    for top in range(0, pixels.shape[1], _BAND):  # most pictures have a colour in the first band
        band = pixels[:, top : top + _BAND]
        spread = band.max(axis=0) - band.min(axis=0)
        allowed -= np.count_nonzero(spread > _LEVELS)
        if allowed < 0 or spread.max() > _MOST_LEVELS:
            return False
    return True
