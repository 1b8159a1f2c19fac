"""Learned codecs on clips: frame by frame as they code images, in groups where a codec has them; errors and memory."""

import copy
import random
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import difflate
from clip_helpers import NTSC, moving, pixels
from difflate.codecs.base import ClipCodec
from difflate.codecs.learned import LearnedCodec
from difflate.errors import (
    ConfigError,
    DesyncError,
    DifflateError,
    FormatError,
    ImageError,
    LimitExceeded,
    ModelError,
    VerificationFailed,
)
from difflate.format import sections
from difflate.format.container import DflFile, read_dfl, write_dfl
from difflate.format.stream import read_clip_file, write_clip_file
from difflate.limits import Limits
from difflate.media.clip import Clip, Frame
from difflate.media.picture import Picture

CHEAP = "opq-32-8-8"


def learned(name: str = CHEAP) -> LearnedCodec:
    codec = difflate.load(name)
    assert isinstance(codec, LearnedCodec)
    return codec


@pytest.mark.parametrize(
    ("name", "options"),
    [(CHEAP, {}), (CHEAP, {"fixed_rate": True}), ("hyperprior-small", {"quality": 20}), ("diffae-small", {"seed": 7})],
)
def test_each_frame_is_what_the_image_codec_makes_of_it(name: str, options: dict[str, Any]) -> None:
    codec, clip = learned(name), moving(2)
    assert isinstance(codec, ClipCodec)
    data = codec.encode_clip(clip, **options)
    restored = codec.decode_clip(data)
    assert (restored.width, restored.height, restored.channels) == (19, 13, 3)
    assert (restored.rate, restored.time_base, restored.audio, restored.notes) == (NTSC, 1 / NTSC, None, ())
    for frame, decoded in zip(clip.frames, restored.frames, strict=True):
        alone = codec.decode(codec.encode(Picture(frame.pixels), **options))
        np.testing.assert_array_equal(decoded.pixels, alone.pixels)
        assert decoded.time == frame.time
    np.testing.assert_array_equal(pixels(restored), pixels(restored))  # they can be gone through again
    latents = list(codec.read_latents(read_clip_file(data)))
    assert [frames for _, frames in latents] == [1, 1]


@pytest.mark.parametrize("clip", [moving(1), moving(1, 1, 1), moving(2, 33, 8, 1), moving(4, times=[-3, 1, 2, 90])])
def test_any_clip_is_restored_with_its_size_and_times(clip: Clip) -> None:
    codec = learned()
    restored = codec.decode_clip(codec.encode_clip(replace(clip, audio=b"copied")))
    assert pixels(restored).shape == pixels(clip).shape
    assert [frame.time for frame in restored.frames] == [frame.time for frame in clip.frames]
    assert restored.audio == b"copied"


def test_hints_stand_once_and_can_be_overridden() -> None:
    codec = learned("cdc-small")
    image = pixels(moving(1, 20, 12))[0]
    clip = Clip(20, 12, 3, NTSC, 1 / NTSC, (Frame(image, 0), Frame(image, 1)))
    data = codec.encode_clip(clip, gamma=0.8, seed=3, learned_only=True)
    assert [number for number, _ in read_dfl(data).sections] == [sections.DIFFUSION, sections.STREAM, sections.GROUPS]
    first, second = codec.decode_clip(data).frames
    np.testing.assert_array_equal(first.pixels, second.pixels)  # the same noise for equal frames
    assert (next(iter(codec.decode_clip(data, seed=4).frames)).pixels != first.pixels).any()
    with pytest.raises(ConfigError, match=r"`steps` .*must be from 0 to 1000"):
        codec.decode_clip(data, steps=1001)
    with pytest.raises(LimitExceeded):
        codec.decode_clip(data, steps=3, limits=Limits(steps=2))


def test_a_frame_that_a_transform_fails_at_is_webp() -> None:
    codec = learned("hyperprior-small")
    smooth = pixels(moving(1, 64, 64))[0]
    drawn = np.broadcast_to((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8), (3, 64, 64))
    drawn = drawn * np.array([[[1]], [[0]], [[1]]], np.uint8)
    data = codec.encode_clip(Clip(64, 64, 3, NTSC, 1 / NTSC, (Frame(smooth, 0), Frame(drawn, 1))))
    assert [group[0] for group in read_clip_file(data).groups] == [sections.LATENT, sections.WEBP]
    np.testing.assert_array_equal(list(codec.decode_clip(data).frames)[1].pixels, drawn)


# Groups of frames that depend on those before


@dataclass(frozen=True)
class Residual:
    values: np.ndarray

    def symbols(self) -> bytes:
        return self.values.astype("<i2").tobytes()


class Pairs:
    """Groups of two frames, coded losslessly as differences to the last frame of the group before."""

    group_frames = 2

    def __init__(self, forgetful: bool = False):
        self.forgetful = forgetful

    def writer(self, header: DflFile, quality: float | None, options: Any) -> "Pairs.State":
        return Pairs.State(header, False)

    def reader(self, header: DflFile) -> "Pairs.State":
        return Pairs.State(header, self.forgetful)

    class State:
        def __init__(self, header: DflFile, forgetful: bool):
            self.shape = (1 if header.grey else 3, header.height, header.width)
            self.before = self.shown = np.zeros(self.shape, np.int16)
            self.forgetful = forgetful

        def write(self, frames: np.ndarray) -> tuple[bytes, bytes]:
            coded = Residual(frames - self.before)
            self.before = frames[-1].astype(np.int16)
            return bytes([sections.CONTEXT]) + coded.symbols(), coded.symbols()

        def read(self, group: bytes, frames: int) -> Residual:
            values = np.frombuffer(group[1:], "<i2").reshape(frames, *self.shape)
            context = 0 if self.before.any() and self.forgetful else 1
            self.before = self.before + values[-1]
            return Residual(values * context)

        def restore(self, latent: Residual, frames: int, options: Any) -> np.ndarray:
            restored = latent.values + self.shown
            self.shown = restored[-1]
            return restored.astype(np.uint8)


def paired(forgetful: bool = False) -> LearnedCodec:
    codec = copy.copy(learned())
    codec.groups = Pairs(forgetful)
    return codec


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_groups_may_depend_on_those_before(frames: int) -> None:
    codec, clip = paired(), moving(frames)
    data = codec.encode_clip(clip)
    np.testing.assert_array_equal(pixels(codec.decode_clip(data)), pixels(clip))
    np.testing.assert_array_equal(pixels(codec.decode_clip(data)), pixels(clip))
    counts = [count for _, count in codec.read_latents(read_clip_file(data))]
    assert counts == [2] * (frames // 2) + [1] * (frames % 2)
    with pytest.raises(FormatError, match="groups of 2 frames, its model of 1"):
        learned().decode_clip(data)


def test_the_encoder_reads_each_group_back() -> None:
    paired(True).encode_clip(moving(2))
    with pytest.raises(VerificationFailed):
        paired(True).encode_clip(moving(3))


def test_as_many_frames_are_in_memory_as_a_group_has() -> None:
    alive, most = 0, 0

    def let_go() -> None:
        nonlocal alive
        alive -= 1

    def frames() -> Iterator[Frame]:
        nonlocal alive, most
        for n in range(40):
            image = np.full((3, 5, 7), n, np.uint8)
            weakref.finalize(image, let_go)
            alive += 1
            most = max(most, alive)
            yield Frame(image, n)

    paired().encode_clip(Clip(7, 5, 3, NTSC, 1 / NTSC, frames()))
    assert most <= 4


# What is refused


def test_the_other_call_is_named() -> None:
    codec = learned()
    clip, image = codec.encode_clip(moving(1)), codec.encode(Picture(np.zeros((3, 5, 5), np.uint8)))
    with pytest.raises(FormatError, match=r"holds a clip, not an image; .*difflate.decode_clip"):
        codec.decode(clip)
    with pytest.raises(FormatError, match="holds a clip"):
        codec.read_latent(read_dfl(clip))
    with pytest.raises(FormatError, match=r"holds an image, not a clip; .*difflate.decode"):
        codec.decode_clip(image)


def test_frames_that_a_clip_cannot_have() -> None:
    codec, clip = learned(), moving(3)
    frames = list(clip.frames)
    with pytest.raises(ImageError, match=r"frame 2 is .*13, 18.* as the clip says"):
        codec.encode_clip(replace(clip, frames=[*frames[:2], Frame(frames[2].pixels[:, :, 1:], 2)]))
    with pytest.raises(ImageError, match=r"frame 1 is .*float"):
        codec.encode_clip(replace(clip, frames=[frames[0], Frame(frames[1].pixels / 2, 1)]))
    with pytest.raises(ImageError, match=r"frame 1 is shown at 0, not after"):
        codec.encode_clip(replace(clip, frames=[frames[0], frames[0]]))
    with pytest.raises(ImageError, match="no frames"):
        codec.encode_clip(replace(clip, frames=()))


def test_limits() -> None:
    codec = learned()
    with pytest.raises(LimitExceeded, match="3 frames"):
        codec.encode_clip(moving(3), limits=Limits(frames=2))
    data = codec.encode_clip(moving(3))
    with pytest.raises(LimitExceeded, match="3 frames of 19x13 px"):
        codec.decode_clip(data, limits=Limits(frames=2))
    with pytest.raises(LimitExceeded):
        codec.encode_clip(moving(1), limits=Limits(pixels=19 * 13 - 1))


def test_another_model_is_told_before_a_frame_is_asked_for() -> None:
    with pytest.raises(ModelError, match="not with pq-32-8-8"):
        learned("pq-32-8-8").decode_clip(learned().encode_clip(moving(1)))


def test_damage_is_one_kind_of_error_and_leaves_what_is_before() -> None:
    codec, draws = learned(), random.Random(1)
    data = codec.encode_clip(moving(3))
    whole, salvaged = pixels(codec.decode_clip(data)), 0
    for _ in range(60):
        cut = data[: draws.randrange(len(data))]
        flipped = bytearray(data)
        flipped[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
        for damaged in (cut, bytes(flipped)):
            with pytest.raises(FormatError):
                codec.decode_clip(damaged)
            try:
                clip = codec.decode_clip(damaged, salvage=True)
            except DifflateError:
                continue
            left = pixels(clip)
            np.testing.assert_array_equal(left, whole[: len(left)])
            assert bool(clip.notes) == (len(left) < 3)
            salvaged += 1
    assert salvaged > 30
    np.testing.assert_array_equal(pixels(codec.decode_clip(data, salvage=True)), whole)


@pytest.mark.parametrize("name", [CHEAP, "hyperprior-small"])
def test_groups_that_are_altered_behind_right_checksums(name: str) -> None:
    codec, draws = learned(name), random.Random(2)
    file = read_clip_file(codec.encode_clip(moving(2)))
    header, stream = replace(file.header, symbols_crc=file.symbols_crc or 0), file.stream
    for _ in range(40):
        groups = [bytearray(group) for group in file.groups]
        changed = groups[draws.randrange(2)]
        if draws.random() < 0.3:
            del changed[max(1, draws.randrange(len(changed))) :]
        changed[draws.randrange(len(changed)) if draws.random() < 0.7 else 0] ^= 1 << draws.randrange(8)
        data = write_clip_file(header, stream.rate, stream.time_base, stream.times, 1, [bytes(g) for g in groups])
        with pytest.raises(FormatError):
            list(codec.decode_clip(data).frames)
        with pytest.raises(FormatError):
            list(codec.read_latents(read_clip_file(data)))


def test_other_symbols_than_were_written() -> None:
    codec = learned()
    file = read_dfl(codec.encode_clip(moving(2)))
    altered = write_dfl(replace(file, symbols_crc=file.symbols_crc ^ 1))
    clip = codec.decode_clip(altered)
    with pytest.raises(DesyncError):
        list(clip.frames)
    with pytest.raises(DesyncError):
        list(codec.read_latents(read_clip_file(altered)))


def test_a_group_of_another_kind_of_section() -> None:
    codec = learned()
    reader = codec.groups.reader(read_clip_file(codec.encode_clip(moving(1))).header)
    with pytest.raises(FormatError, match="in a section of type 3"):
        reader.read(b"\3abc", 1)
