"""Clips for tests: a gradient that moves, of any size, grey or in colour, with any times."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from difflate.media.clip import Clip, Frame

NTSC = Fraction(30000, 1001)


def moving(
    frames: int = 3, width: int = 19, height: int = 13, channels: int = 3, times: Sequence[int] | None = None,
    time_base: Fraction = 1 / NTSC, audio: bytes | None = None,
) -> Clip:  # fmt: skip
    """A clip at 30000/1001 frames a second."""
    rows, columns = np.mgrid[:height, :width]
    planes = [
        np.stack([128 + 100 * np.sin((rows + n) / 5 + c + (columns - 2 * n) / 7) for c in range(channels)])
        for n in range(frames)
    ]
    shown = range(frames) if times is None else times
    made = tuple(Frame(x.astype(np.uint8), time) for x, time in zip(planes, shown, strict=True))
    return Clip(width, height, channels, NTSC, time_base, made, audio)
