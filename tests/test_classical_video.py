"""AVC, HEVC and AV1: frames, sizes, times and colours come back, and what they refuse."""

import io
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import difflate
from clip_helpers import NTSC, moving
from difflate.codecs.base import ClipCodec, Codec
from difflate.codecs.classical_video import classical_video_codecs
from difflate.errors import ConfigError, ImageError, LimitExceeded
from difflate.limits import Limits
from difflate.media.clip import Clip, Frame
from difflate.metrics.distortion import psnr

av = pytest.importorskip("av")
CODECS = classical_video_codecs()


@pytest.mark.parametrize("name", list(CODECS))
def test_each_is_a_codec_of_clips_alone(name: str) -> None:
    codec = difflate.load(name)
    assert isinstance(codec, ClipCodec)
    assert not isinstance(codec, Codec)
    assert codec.name == name
    with pytest.raises(ConfigError, match=f"{name} codes clips, not images"):
        difflate.encode(np.zeros((64, 64, 3), np.uint8), name)


@pytest.mark.parametrize("name", list(CODECS))
@pytest.mark.parametrize(
    ("size", "times", "time_base"),
    [((66, 64), range(9), 1 / NTSC), ((65, 67), [5, 6, 40, 41], Fraction(1, 1000)), ((64, 97), [0], Fraction(1, 25))],
)
def test_frames_sizes_and_times_come_back(
    name: str, size: tuple[int, int], times: range | list[int], time_base: Fraction
) -> None:
    clip = replace(moving(len(times), *size, times=times), time_base=time_base)
    restored = CODECS[name].decode_clip(CODECS[name].encode_clip(clip, quality=10))
    frames = list(restored.frames)
    assert (restored.width, restored.height, restored.channels) == (*size, 3)
    assert [frame.time * restored.time_base for frame in frames] == [time * time_base for time in times]
    if isinstance(times, range):
        assert restored.rate == clip.rate
    for original, frame in zip(clip.frames, frames, strict=True):
        assert psnr(original.pixels.transpose(1, 2, 0), frame.pixels.transpose(1, 2, 0)) > 33
    again = list(restored.frames)  # decoded anew
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(frames, again, strict=True))


@pytest.mark.parametrize("size", [(1, 1), (5, 4), (16, 9)])
def test_avc_takes_the_smallest_frames_and_others_say_what_they_need(size: tuple[int, int]) -> None:
    clip = moving(2, *size)
    assert len(list(CODECS["avc"].decode_clip(CODECS["avc"].encode_clip(clip)).frames)) == 2
    for name in ("hevc", "av1"):
        with pytest.raises(LimitExceeded, match=f"too small for {name}, below 64 px a side; use avc"):
            CODECS[name].encode_clip(clip)


@pytest.mark.parametrize("name", list(CODECS))
def test_colours_are_bt709_in_limited_range_and_grey_stays_grey(name: str) -> None:
    colours = np.array([(200, 30, 40), (20, 190, 60), (30, 40, 210), (128, 128, 128)])
    flat = np.broadcast_to(colours.reshape(2, 2, 3).repeat(48, 0).repeat(48, 1).transpose(2, 0, 1), (3, 96, 96))
    clip = Clip(96, 96, 3, NTSC, 1 / NTSC, (Frame(flat.astype(np.uint8), 0),))
    data = CODECS[name].encode_clip(clip, quality=5)
    with av.open(io.BytesIO(data)) as file:
        frame = next(file.decode(video=0))
    assert (int(frame.colorspace), int(frame.color_range), frame.format.name) == (1, 1, "yuv420p")
    luma = frame.to_ndarray()[:96, :96]
    expected = 16 + 219 / 255 * colours @ [0.2126, 0.7152, 0.0722]
    assert np.abs(luma[24::48, 24::48].ravel() - expected).max() < 1.5
    restored = next(iter(CODECS[name].decode_clip(data).frames)).pixels
    assert np.abs(restored[:, 24::48, 24::48].astype(int) - flat[:, 24::48, 24::48]).max() <= 3
    grey = moving(3, 64, 64, channels=1)
    for frame in CODECS[name].decode_clip(CODECS[name].encode_clip(grey)).frames:
        assert np.ptp(frame.pixels.astype(int), axis=0).max() <= 4


@pytest.mark.parametrize("name", list(CODECS))
def test_a_higher_factor_means_fewer_bytes_and_files_have_no_words_of_the_encoder(name: str) -> None:
    clip = moving(8, 96, 64)
    sizes = [len(CODECS[name].encode_clip(clip, quality=quality)) for quality in (10, 30, 50)]
    assert sizes == sorted(sizes, reverse=True)
    data = CODECS[name].encode_clip(clip, preset="12" if name == "av1" else "ultrafast")
    assert b"options:" not in data


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("avc", {"quality": 52}, "from 0 to 51 for avc"),
        ("av1", {"quality": 30.5}, "whole number for av1"),
        ("av1", {"preset": "medium"}, "`preset` .=medium. must be one of 0, 1"),
        ("hevc", {"preset": "8"}, "must be one of ultrafast"),
        ("avc", {"speed": 3}, "`speed` has no meaning for avc"),
    ],
)
def test_what_it_is_told_is_checked(name: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CODECS[name].encode_clip(moving(1, 64, 64), **options)


def test_avc_makes_the_same_file_wherever_its_memory_lies() -> None:
    blocks = np.kron(np.random.default_rng(0).integers(0, 256, (3, 60, 90)), np.ones((1, 8, 8))).astype(np.uint8)
    moved = [np.roll(blocks, (n * n % 17, 3 * n), (1, 2))[:, :240, :432] for n in range(16)]
    frames = [Frame(np.ascontiguousarray(pixels), n) for n, pixels in enumerate(moved)]
    clip = Clip(432, 240, 3, Fraction(24), Fraction(1, 24), frames)
    files, kept = set(), []
    for size in range(5):
        files.add(CODECS["avc"].encode_clip(clip, quality=40))
        kept.append(np.full(10**6 * size + 1, size, np.uint8))
    assert len(files) == 1


def test_clips_that_cannot_be_are_refused() -> None:
    clip = moving(4, 64, 64)
    with pytest.raises(LimitExceeded, match="4 frames"):
        CODECS["avc"].encode_clip(clip, limits=Limits(frames=3))
    with pytest.raises(ImageError, match="no frame"):
        CODECS["avc"].encode_clip(replace(clip, frames=()))
    with pytest.raises(ConfigError, match="time base"):
        CODECS["avc"].encode_clip(replace(clip, time_base=Fraction(1, 2**31 + 11)))
    data = CODECS["avc"].encode_clip(clip)
    with pytest.raises(LimitExceeded):
        list(CODECS["avc"].decode_clip(data, limits=Limits(frames=3)).frames)
    with pytest.raises(ImageError, match="video data"):
        CODECS["avc"].decode_clip(data[:200])
