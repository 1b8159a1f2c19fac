"""Clips: frames of one size, one after the other, each with its time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from difflate.errors import ImageError
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture, to_srgb


class Frame(NamedTuple):
    """A frame of a clip."""

    pixels: np.ndarray
    """(C, H, W) uint8, C = 1 (grey) or 3 (sRGB)."""
    time: int
    """When it is shown, in units of the clip's `time_base`; each is above that of the frame before."""


@dataclass(frozen=True)
class Clip:
    """A video as codecs take it: 8 bits, upright, grey or sRGB, without alpha.

    Its frames are read as they are asked for, so a clip may be longer than memory; how many there are is known when
    the last was read. They can be gone through again, unless the clip came from standard input.
    """

    width: int
    height: int
    channels: int
    """Of all frames: 1 (grey) or 3 (sRGB)."""
    rate: Fraction
    """Frames per second, above 0; of a clip with variable frame times their mean or what its file says."""
    time_base: Fraction
    """Seconds, above 0: the unit of the frames' times."""
    frames: Iterable[Frame]
    """At least one. Iterating raises ImageError for what cannot be decoded, LimitExceeded for too many."""
    audio: bytes | None = None
    """Sound as copied packets, in the form of `difflate.media.audio`; codecs keep it as it is. None: there is none."""
    notes: Sequence[str] = ()
    """What of the file is lost in this clip, one line each."""

    def loaded(self) -> Clip:
        """The same clip with all its frames in memory, as a tuple."""
        return replace(self, frames=tuple(self.frames))


def clip_of(pictures: Sequence[Picture], fps: Fraction | int, limits: Limits = DEFAULT_LIMITS) -> Clip:
    """The clip of ``pictures``, grey if all are; colours are brought to sRGB. Frame n is shown at n / ``fps`` seconds.

    Raises ImageError for none, different sizes, transparency, or ``fps`` not above 0; LimitExceeded for too many.
    """
    if not pictures:
        raise ImageError("a clip has no frames; give at least one")
    if fps <= 0:
        raise ImageError(f"fps (={fps}) must be above 0")
    first = pictures[0]
    limits.check_frames(len(pictures), first.width, first.height)
    for number, picture in enumerate(pictures):
        check_frame(picture, number, first.width, first.height)
    planes = [to_srgb(picture).pixels for picture in pictures]
    channels = max(map(len, planes))
    frames = [Frame(np.broadcast_to(x, (channels, *x.shape[1:])), number) for number, x in enumerate(planes)]
    rate = Fraction(fps)
    return Clip(first.width, first.height, channels, rate, 1 / rate, tuple(frames))


def check_frame(picture: Picture, number: int, width: int, height: int) -> None:
    """Raises ImageError for a picture that cannot be frame ``number`` of a clip of that size."""
    if (picture.width, picture.height) != (width, height):
        size = f"{picture.width}x{picture.height}"
        raise ImageError(f"frame {number} is {size} px, the first {width}x{height}; scale them alike")
    if picture.alpha is not None:
        raise ImageError(f"frame {number} is transparent, which a clip is not; lay it over a background first")
