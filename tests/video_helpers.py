from fractions import Fraction

import numpy as np

from difflate.media.clip import Clip, Frame

NTSC = Fraction(30000, 1001)


def made(channels=3, height=11, width=13, times=range(5), rate=NTSC, time_base=None, seed=0, smooth=False):
    """A clip whose frames are loaded."""
    rng = np.random.default_rng(seed)
    frames = []
    for time in times:
        pixels = rng.integers(0, 256, (channels, height, width), dtype=np.uint8)
        if smooth:
            y, x = np.mgrid[:height, :width]
            pixels = np.stack([128 + 90 * np.sin((x + y * k + time) / 9) for k in range(channels)]).astype(np.uint8)
        frames.append(Frame(pixels, time))
    rate = Fraction(rate)
    return Clip(width, height, channels, rate, time_base or 1 / rate, tuple(frames))


def assert_same(clip, other):
    """Equal pixels, and equal times in seconds."""
    mine, theirs = tuple(clip.frames), tuple(other.frames)
    assert [f.time * clip.time_base for f in mine] == [f.time * other.time_base for f in theirs]
    assert (clip.width, clip.height, clip.channels) == (other.width, other.height, other.channels)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)
