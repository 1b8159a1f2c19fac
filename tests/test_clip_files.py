"""Clips in .dfl files: what is told of the frames is exact, every damage is told, and what is left can be salvaged."""

import random
import zlib
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difflate.errors import (
    ChecksumError,
    DifflateError,
    FormatError,
    ImageError,
    LimitExceeded,
    TruncatedError,
    VersionError,
)
from difflate.format import sections
from difflate.format.container import DflFile, read_dfl, write_dfl
from difflate.format.salvage import salvage_clip_file
from difflate.format.stream import Part, Stream, clip_of_file, read_clip_file, write_clip_file
from difflate.format.varints import varint
from difflate.limits import Limits

HINTS = ((sections.TEXT, b"a clip"),)
HEADER = DflFile(1, b"abcd", 768, 512, False, 0x1234, HINTS)
GROUPS = [b"\1" + bytes(range(n, 40)) for n in range(5)]
UNLIMITED = Limits(frames=None, pixel_frames=None)
RATE = Fraction(30000, 1001)


def write(times=range(9), group_frames=2, groups=GROUPS, audio=b"sound" * 9, header=HEADER) -> bytes:
    return write_clip_file(header, RATE, Fraction(1, 90000), times, group_frames, groups, audio)


SAMPLE = write()


@settings(max_examples=150)
@given(
    st.fractions(min_value=Fraction(1, 2**40), max_value=2**20, max_denominator=2**40),
    st.fractions(min_value=Fraction(1, 2**40), max_value=2**20, max_denominator=2**40),
    st.integers(-(2**61), 2**61),
    st.one_of(st.tuples(st.integers(1, 2**40), st.integers(0, 40)), st.lists(st.integers(1, 2**40), max_size=40)),
    st.integers(1, 9),
    st.binary(max_size=30),
)
def test_what_is_told_of_the_frames_is_exact(rate, time_base, first, steps, group_frames, audio) -> None:
    if isinstance(steps, tuple):
        times = tuple(range(first, first + steps[0] * (steps[1] + 1), steps[0]))
    else:
        times = tuple(first + sum(steps[:n]) for n in range(len(steps) + 1))
    groups = [b"\1" * (n + 1) for n in range(-(-len(times) // group_frames))]
    file = read_clip_file(write_clip_file(HEADER, rate, time_base, times, group_frames, groups, audio))
    assert (file.stream.rate, file.stream.time_base, tuple(file.stream.times)) == (rate, time_base, times)
    counted = list(file.counted_groups())
    assert [group for group, _ in counted] == groups
    assert sum(frames for _, frames in counted) == len(times) == file.frames
    assert all(frames == group_frames for _, frames in counted[:-1])
    assert (file.audio, file.symbols_crc, file.header.sections) == (audio or None, 0x1234, HINTS)


def test_regular_times_take_a_byte_and_each_group_five() -> None:
    few, many = write(range(0, 3000, 1500), 1, GROUPS[:2]), write(range(0, 4500, 1500), 1, GROUPS[:3])
    assert len(many) - len(few) == len(GROUPS[2]) + 5


def test_a_reader_that_knows_no_clips_refuses_them(monkeypatch) -> None:
    for number in (sections.STREAM, sections.GROUPS):
        monkeypatch.delitem(sections.NAMES, number)
    with pytest.raises(VersionError, match="section type 6 is unknown; install a newer difflate"):
        read_dfl(SAMPLE)


def test_every_truncation_and_every_flipped_bit_is_told() -> None:
    for length in range(len(SAMPLE)):
        with pytest.raises(TruncatedError):
            read_clip_file(SAMPLE[:length])
    for bit in range(8 * len(SAMPLE)):
        with pytest.raises(FormatError):
            read_clip_file(flipped(SAMPLE, bit))


def flipped(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def section_on_frames() -> bytes:
    found = read_dfl(SAMPLE).section(sections.STREAM)
    assert found is not None
    return found


def with_section(told: bytes) -> bytes:
    """The sample with right checksums around another section on its frames."""
    parts = tuple((n, told if n == sections.STREAM else data) for n, data in read_dfl(SAMPLE).sections)
    return write_dfl(DflFile(1, b"abcd", 768, 512, False, 0x1234, parts))


def test_what_is_altered_behind_right_checksums_is_one_kind_of_error() -> None:
    told, draws = section_on_frames(), random.Random(0)
    refused = 0
    for _ in range(1500):
        altered = bytearray(told[: draws.randrange(len(told) + 1)] if draws.random() < 0.2 else told)
        for _ in range(draws.randrange(4)):
            if altered:
                altered[draws.randrange(len(altered))] = draws.choice((0, 1, 127, 128, 255, draws.randrange(256)))
        for read in (read_clip_file, salvage_clip_file):
            try:
                read(with_section(bytes(altered)), UNLIMITED)
            except DifflateError:
                refused += 1
    assert refused > 1500


def listed(steps: bytes) -> bytes:
    packed = zlib.compress(steps)
    return b"\0\0" + varint(len(packed)) + packed


def told(frames=9, group_frames=2, rate=(30, 1), base=(1, 30), times=b"\0\1", parts=5, audio=b"\0") -> bytes:
    numbers = b"".join(map(varint, (frames, group_frames, *rate, *base)))
    return numbers + times + parts * (varint(40) + bytes(4)) + audio


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (told(frames=0, parts=0), "a 0 where none can be"),
        (told(group_frames=0), "a 0 where none can be"),
        (told(rate=(0, 1)), "a 0 where none can be"),
        (told(base=(1, 0)), "a 0 where none can be"),
        (told(parts=3), "no room for the 5 groups"),
        (told(parts=6), "bytes too many"),
        (told(times=b"\0\0\3abc"), "times that cannot be read"),
        (told(times=listed(bytes([1] * 7 + [0]))), "at the same time"),
        (told(times=listed(b"\1" * 7)), "ends too early"),
        (told(times=listed(b"\1" * 9)), "more times than frames"),
        (told(times=listed(bytes(10**6))), "at the same time"),
        (told(times=b"\0" + varint(2**61)), "a time of 2"),
        (told(times=b"\0" + varint(2**63)), "longer than 9 bytes"),
        (told(frames=2**33, group_frames=2**33, parts=1), "tells of 8589934592 frames"),
        (told(frames=5, group_frames=1, parts=5), "do not have the bytes"),
    ],
)  # fmt: skip
def test_sections_that_cannot_be(section, said) -> None:
    kept = ((n, section if n == sections.STREAM else data) for n, data in read_dfl(SAMPLE).sections)
    parts = tuple(part for part in kept if part[0] != sections.AUDIO)
    with pytest.raises(FormatError, match=said):
        clip_of_file(DflFile(1, b"abcd", 768, 512, False, 0, parts), UNLIMITED)


def test_parts_that_are_not_those_told_of() -> None:
    file = read_dfl(SAMPLE)
    hints, stream, audio, groups = file.sections

    def refuse(*parts: tuple[int, bytes], error=FormatError) -> None:
        with pytest.raises(error):
            clip_of_file(DflFile(1, b"abcd", 768, 512, False, 0, parts))

    refuse(hints, stream, groups)
    refuse(hints, stream, groups, audio)
    refuse(hints, stream, audio)
    refuse(stream, audio, groups, hints)
    refuse((sections.CONTEXT, b"x"), stream, audio, groups)
    refuse(hints, audio, groups)
    refuse(stream, (sections.AUDIO, audio[1][::-1]), groups, error=ChecksumError)
    refuse(stream, audio, (sections.GROUPS, groups[1][::-1]), error=ChecksumError)


def test_limits_are_checked_before_anything_is_made_for_the_frames() -> None:
    many = with_section(told(frames=10**9, group_frames=10**9, parts=1))
    with pytest.raises(LimitExceeded, match="1000000000 frames of 768x512 px"):
        read_clip_file(many)
    with pytest.raises(LimitExceeded):
        salvage_clip_file(many)
    with pytest.raises(LimitExceeded):
        write_clip_file(HEADER, RATE, 1 / RATE, range(40000), 1, [], None)


def test_numbers_without_room_are_refused_when_written() -> None:
    for stream in (
        Stream(Fraction(2**63 + 1, 2), RATE, range(1), 1, [Part.of(b"\1")]),
        Stream(RATE, Fraction(1, 2**63), range(1), 1, [Part.of(b"\1")]),
        Stream(RATE, RATE, range(2**62, 2**62 + 1), 1, [Part.of(b"\1")]),
        Stream(RATE, RATE, range(0, 2**63, 2**62), 1, [Part.of(b"\1")] * 2),
    ):
        with pytest.raises(ImageError, match="give simpler ones"):
            stream.to_bytes()


# What is left


def places() -> tuple[int, int, int]:
    """Where the section on the frames, the sound and the groups end."""
    end = len(SAMPLE) - 6
    groups = end - sum(map(len, GROUPS))
    return groups - 3 - 45 - 2, groups - 3, end


def test_what_stands_before_the_damage_is_salvaged() -> None:
    sealed, sound, end = places()
    for length in range(len(SAMPLE)):
        if length < end - sum(map(len, GROUPS[1:])):
            with pytest.raises(FormatError, match=r"nothing can be salvaged|not a .dfl file|empty"):
                salvage_clip_file(SAMPLE[:length])
            continue
        clip = salvage_clip_file(SAMPLE[:length])
        whole = sum(end - sum(map(len, GROUPS[n + 1 :])) <= length for n in range(5))
        assert [group for group, _ in clip.counted_groups()] == GROUPS[:whole]
        assert clip.frames == min(2 * whole, 9)
        assert clip.audio == b"sound" * 9
        assert len(clip.notes) == (whole < 5)
        if clip.notes:
            assert clip.notes[0].startswith(f"salvaged {2 * whole} of 9 frames")
    assert sealed < sound < end


def test_any_flipped_bit_leaves_what_is_before_it() -> None:
    sealed, sound, end = places()
    for bit in range(8 * len(SAMPLE)):
        at, data = bit // 8, flipped(SAMPLE, bit)
        groups = end - sum(map(len, GROUPS))
        if at < sealed or groups <= at < groups + len(GROUPS[0]):
            with pytest.raises(DifflateError):
                salvage_clip_file(data)
            continue
        clip = salvage_clip_file(data)
        ends = [end - sum(map(len, GROUPS[n + 1 :])) for n in range(5)]
        whole = 5 if at < groups or at >= end else sum(place <= at for place in ends)
        assert [group for group, _ in clip.counted_groups()] == GROUPS[:whole]
        assert (clip.audio is None) == (sealed + 2 <= at < sound) == any("sound" in note for note in clip.notes)


def test_a_picture_is_no_clip_and_a_clip_no_picture() -> None:
    image = write_dfl(DflFile(1, b"abcd", 8, 8, False, 0, ((1, b"x"),)))
    with pytest.raises(FormatError, match=r"holds an image, not a clip; .*difflate.decode"):
        read_clip_file(image)
    with pytest.raises(FormatError, match="nothing can be salvaged: the file holds no clip"):
        salvage_clip_file(image)
