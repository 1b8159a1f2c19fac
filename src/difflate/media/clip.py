"""Clips: pictures of one size, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from difflate.errors import ImageError
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture, to_srgb


@dataclass(frozen=True)
class Clip:
    """A video as codecs take it: 8 bits, upright, grey or sRGB, without alpha and sound."""

    frames: np.ndarray
    """(T, C, H, W) uint8, C = 1 (grey) or 3 (sRGB); T, H and W >= 1."""
    fps: Fraction
    """Frames per second, above 0."""

    @property
    def width(self) -> int:
        return self.frames.shape[3]

    @property
    def height(self) -> int:
        return self.frames.shape[2]

    def pictures(self) -> list[Picture]:
        """Its frames; they share its memory."""
        return [Picture(frame) for frame in self.frames]


def clip_of(pictures: Sequence[Picture], fps: Fraction | int, limits: Limits = DEFAULT_LIMITS) -> Clip:
    """The clip of ``pictures``, grey if all are; colours are brought to sRGB.

    Raises ImageError for none, different sizes, transparency, or ``fps`` not above 0; LimitExceeded for too many.
    """
    if not pictures:
        raise ImageError("a clip has no frames; give at least one")
    if fps <= 0:
        raise ImageError(f"fps (={fps}) must be above 0")
    first = pictures[0]
    limits.check_frames(len(pictures), first.width, first.height)
    for number, picture in enumerate(pictures):
        size = f"{picture.width}x{picture.height}"
        if (picture.width, picture.height) != (first.width, first.height):
            raise ImageError(f"frame {number} is {size} px, the first {first.width}x{first.height}; scale them alike")
        if picture.alpha is not None:
            raise ImageError(f"frame {number} is transparent, which a clip is not; lay it over a background first")
    planes = [to_srgb(picture).pixels for picture in pictures]
    channels = max(map(len, planes))
    return Clip(np.stack([np.broadcast_to(x, (channels, *x.shape[1:])) for x in planes]), Fraction(fps))
