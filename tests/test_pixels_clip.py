"""Clips: from pictures and back, and the limits on frames."""

from fractions import Fraction

import numpy as np
import pytest

from difflate.errors import ImageError, LimitExceeded
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.clip import clip_of
from difflate.media.picture import Picture
from image_helpers import P3_TO_XYZ, noise, rgb_profile, same


def test_pictures_become_a_clip_and_come_back() -> None:
    for channels in (1, 3):
        pictures = [Picture(noise(channels, 4, 6, seed=i)) for i in range(3)]
        clip = clip_of(pictures, Fraction(30000, 1001))
        assert (clip.width, clip.height, clip.channels) == (6, 4, channels)
        assert (clip.rate, clip.time_base) == (Fraction(30000, 1001), Fraction(1001, 30000))
        for _ in range(2):  # frames can be gone through again
            frames = list(clip.frames)
            assert [frame.time for frame in frames] == [0, 1, 2]
            assert all(same(Picture(frame.pixels), x) for frame, x in zip(frames, pictures, strict=True))


def test_one_coloured_picture_makes_a_coloured_clip_in_srgb() -> None:
    grey, colour = Picture(noise(1, 4, 6)), Picture(noise(3, 4, 6), icc=rgb_profile(P3_TO_XYZ))
    first, second = (frame.pixels for frame in clip_of([grey, colour], 25).frames)
    assert (first == grey.pixels).all()
    assert first.shape == second.shape == (3, 4, 6)
    assert not np.array_equal(second, colour.pixels)


@pytest.mark.parametrize(
    ("pictures", "fps", "message"),
    [
        ([], 25, "no frames"),
        ([Picture(noise(1, 4, 6))], 0, r"fps \(=0\) must be above 0"),
        ([Picture(noise(1, 4, 6)), Picture(noise(1, 6, 4))], 25, "frame 1 is 4x6 px, the first 6x4"),
        ([Picture(noise(1, 2, 2), noise(2, 2))], 25, "frame 0 is transparent"),
    ],
)
def test_what_is_no_clip_is_refused(pictures: list[Picture], fps: int, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        clip_of(pictures, fps)


def test_frames_are_bounded_by_number_and_by_pixels() -> None:
    DEFAULT_LIMITS.check_frames(36000, 1920, 1080)
    for frames, width, height in ((36001, 1, 1), (36000, 3840, 2160), (10**9, 1, 1), (1, 65536, 1)):
        with pytest.raises(LimitExceeded, match=f"{width}x{height} px"):
            DEFAULT_LIMITS.check_frames(frames, width, height)
    Limits(frames=None, pixel_frames=None).check_frames(10**9, 3840, 2160)
    with pytest.raises(LimitExceeded):
        clip_of([Picture(noise(1, 2, 2))] * 3, 25, Limits(frames=2))
