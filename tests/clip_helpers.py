"""Small clips for tests of codecs: waves that move, of any size, grey or in colour, with any times."""

from collections.abc import Sequence

import numpy as np

from difflate.media.clip import Clip
from video_helpers import NTSC, made

__all__ = ["NTSC", "moving", "pixels"]


def moving(
    frames: int = 3, width: int = 19, height: int = 13, channels: int = 3, times: Sequence[int] | None = None
) -> Clip:
    """A clip at 30000/1001 frames a second."""
    return made(channels, height, width, range(frames) if times is None else times, smooth=True)  # pyright: ignore[reportArgumentType]


def pixels(clip: Clip) -> np.ndarray:
    """(T, C, H, W)."""
    return np.stack([frame.pixels for frame in clip.frames])
