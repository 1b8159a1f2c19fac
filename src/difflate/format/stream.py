"""Clips in .dfl files: frames, rate and times in the section STREAM, what was coded in GROUPS; docs/format.md.

    header, hints, STREAM ─ its checksum covers all up to here
    AUDIO, if there is sound
    GROUPS ─ each group's bytes, whose lengths and checksums stand in STREAM

So a file that was cut or damaged behind STREAM still has the groups before (`difflate.format.salvage`).

BITSTREAM: a change here that alters the bytes of the same input is a new major version.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from difflate.errors import ChecksumError, FormatError, ImageError
from difflate.format import sections as kinds
from difflate.format.container import DflFile, read_dfl, write_dfl
from difflate.format.varints import Cursor, varint
from difflate.limits import DEFAULT_LIMITS, Limits

_LONGEST = 9
"""Bytes of a varint here."""
_MOST, _MOST_FRAMES = 2**63 - 1, 2**32 - 1
_GROUP_BYTES = 5
"""Of the entry of a group, at least."""


@dataclass(frozen=True)
class Part:
    """Bytes as STREAM tells of them."""

    size_bytes: int
    crc32: int

    @classmethod
    def of(cls, data: bytes) -> Part:
        return cls(len(data), zlib.crc32(data))

    def matches(self, data: bytes | memoryview) -> bool:
        """Whether ``data`` are these bytes."""
        return len(data) == self.size_bytes and zlib.crc32(data) == self.crc32


@dataclass(frozen=True)
class Stream:
    """What the section STREAM says."""

    rate: Fraction
    """Frames per second, as `time_base` is in seconds."""
    time_base: Fraction
    times: Sequence[int]
    """Of the frames, at least one, each above the one before; a range if they are regular."""
    group_frames: int
    """Of each group but the last, which has what is left."""
    groups: Sequence[Part]
    audio: Part | None = None

    def to_bytes(self) -> bytes:
        """The section, without its checksum. Raises ImageError for numbers that it has no room for."""
        first, step = self.times[0], _step(self.times)
        numbers = [
            len(self.times), self.group_frames, *self.rate.as_integer_ratio(), *self.time_base.as_integer_ratio(),
            2 * first if first >= 0 else -2 * first - 1, step,
        ]  # fmt: skip
        if max(*numbers, 2 * self.times[-1]) > _MOST:
            raise ImageError(
                "the clip's rate, time base or times have numbers that a file has no room for; give simpler ones"
            )
        out = bytearray().join(map(varint, numbers))
        if not step:
            steps = (after - before for before, after in itertools.pairwise(self.times))
            listed = zlib.compress(b"".join(map(varint, steps)), 9)
            out += varint(len(listed)) + listed
        for part in self.groups:
            out += varint(part.size_bytes) + part.crc32.to_bytes(4, "little")
        out += (
            varint(0) if self.audio is None else varint(self.audio.size_bytes) + self.audio.crc32.to_bytes(4, "little")
        )
        return bytes(out)

    @classmethod
    def from_bytes(cls, data: bytes, width: int, height: int, limits: Limits = DEFAULT_LIMITS) -> Stream:
        """The contents of the section. Raises FormatError, LimitExceeded."""
        reader = Cursor(data, "the section on the clip's frames", _LONGEST)
        frames, group_frames = reader.varint(), reader.varint()
        limits.check_frames(frames, width, height)
        rate, time_base = ((reader.varint(), reader.varint()) for _ in range(2))
        if not (frames and group_frames and all(rate) and all(time_base)):
            raise _damaged("has a 0 where none can be")
        if frames > _MOST_FRAMES:
            raise _damaged(f"tells of {frames} frames")
        times = _read_times(reader, frames)
        if 2 * times[-1] > _MOST:
            raise _damaged("has a time of 2^62 or more")
        groups = -(-frames // group_frames)
        if groups * _GROUP_BYTES > reader.left:
            raise _damaged(f"has no room for the {groups} groups that it tells of")
        parts = tuple(Part(reader.varint(), int.from_bytes(reader.take(4), "little")) for _ in range(groups))
        if not all(part.size_bytes for part in parts):
            raise _damaged("has a group without bytes")
        size = reader.varint()
        audio = Part(size, int.from_bytes(reader.take(4), "little")) if size else None
        if reader.left:
            raise _damaged(f"has {reader.left} bytes too many")
        return cls(Fraction(*rate), Fraction(*time_base), times, group_frames, parts, audio)


@dataclass(frozen=True)
class ClipFile:
    """A .dfl file of a clip, before its symbols are decoded."""

    header: DflFile
    """Of a picture of the frames' size, with the sections that are the same for all frames."""
    stream: Stream
    groups: Sequence[memoryview]
    """The first byte of each is the type of a section, the others are its data. Fewer than `stream` tells of in what
    was salvaged."""
    symbols_crc: int | None
    """Of the symbols of all groups; None: it was not read."""
    audio: bytes | None = None
    notes: Sequence[str] = ()
    """What of the clip was lost, one line each."""

    @property
    def frames(self) -> int:
        """Those that are there."""
        return min(len(self.groups) * self.stream.group_frames, len(self.stream.times))

    @property
    def seconds(self) -> Fraction:
        """From the first of these frames to the end of the last."""
        return duration(self.stream.times[: self.frames], self.stream.time_base, self.stream.rate)

    def counted_groups(self) -> Iterator[tuple[bytes, int]]:
        """Each group and how many frames it has."""
        left = len(self.stream.times)
        for group in self.groups:
            yield bytes(group), min(left, self.stream.group_frames)
            left -= self.stream.group_frames

    def kept(self) -> dict[int, bytes]:
        """The sections as of a picture, its pixels' being those of the first group."""
        return {**dict(self.header.sections), self.groups[0][0]: bytes(self.groups[0][1:])}


def write_clip_file(
    header: DflFile, rate: Fraction, time_base: Fraction, times: Sequence[int], group_frames: int,
    groups: Sequence[bytes], audio: bytes | None = None, limits: Limits = DEFAULT_LIMITS,
) -> bytes:  # fmt: skip
    """The bytes of a .dfl file; the arguments are as in `ClipFile` and `Stream`. Raises ImageError, LimitExceeded."""
    limits.check_frames(len(times), header.width, header.height)
    stream = Stream(
        rate, time_base, times, group_frames, [Part.of(g) for g in groups], Part.of(audio) if audio else None
    )
    sound = ((kinds.AUDIO, audio),) if audio else ()
    parts = (*header.sections, (kinds.STREAM, stream.to_bytes()), *sound, (kinds.GROUPS, b"".join(groups)))
    return write_dfl(replace(header, sections=parts), limits)


def is_clip_file(file: DflFile) -> bool:
    """Whether ``file`` holds a clip, not a picture."""
    return file.section(kinds.STREAM) is not None


def check_picture_file(file: DflFile) -> None:
    """Raises FormatError if ``file`` holds a clip."""
    if is_clip_file(file):
        raise FormatError(
            "the file holds a clip, not an image; restore it with `difflate decompress`, or `difflate.decode_clip` in "
            "Python"
        )


def read_clip_file(data: bytes, limits: Limits = DEFAULT_LIMITS) -> ClipFile:
    """The contents of the .dfl file ``data``, all checksums checked but that of symbols.

    Raises as `difflate.format.container.read_dfl`, and FormatError for the file of an image.
    """
    return clip_of_file(read_dfl(data, limits), limits)


def clip_of_file(file: DflFile, limits: Limits = DEFAULT_LIMITS) -> ClipFile:
    """The clip in ``file``. Raises FormatError, LimitExceeded."""
    header, stream = sealed_parts(file, limits)
    behind = file.sections[len(header.sections) + 1 :]
    audio, data = dict(behind).get(kinds.AUDIO), dict(behind).get(kinds.GROUPS)
    wanted = [kinds.AUDIO] * (stream.audio is not None) + [kinds.GROUPS]
    if data is None or [number for number, _ in behind] != wanted:
        raise FormatError("the sections of the clip are not those that its section on frames tells of")
    if sum(part.size_bytes for part in stream.groups) != len(data):
        raise FormatError("the groups of the clip do not have the bytes that its section on frames tells of")
    groups, start, view = [], 0, memoryview(data)
    for part in stream.groups:
        groups.append(view[start : start + part.size_bytes])
        start += part.size_bytes
    intact = all(part.matches(group) for part, group in zip(stream.groups, groups, strict=True))
    if not intact or (stream.audio is not None and not stream.audio.matches(audio or b"")):
        raise ChecksumError("a part of the clip has another checksum than its section on frames says")
    return ClipFile(header, stream, groups, file.symbols_crc, audio)


def sealed_parts(file: DflFile, limits: Limits) -> tuple[DflFile, Stream]:
    """The header of ``file`` with the sections before STREAM, and what that says. Raises FormatError, LimitExceeded."""
    numbers = [number for number, _ in file.sections]
    if kinds.STREAM not in numbers:
        raise FormatError(
            "the file holds an image, not a clip; restore it with `difflate decompress`, or `difflate.decode` in Python"
        )
    before = file.sections[: numbers.index(kinds.STREAM)]
    if not all(number & kinds.OPTIONAL for number, _ in before):
        raise FormatError("the file has an image beside its clip; get an intact copy of it")
    stream = Stream.from_bytes(file.sections[len(before)][1], file.width, file.height, limits)
    return replace(file, sections=before), stream


def duration(times: Sequence[int], time_base: Fraction, rate: Fraction) -> Fraction:
    """Seconds from the first of ``times`` to the end of the last, which is shown as long as the one before it.

    ``rate`` tells how long a single frame is shown.
    """
    last = (times[-1] - times[-2]) * time_base if len(times) > 1 else 1 / rate
    return (times[-1] - times[0]) * time_base + last


def _step(times: Sequence[int]) -> int:
    """From each of ``times`` to the next, 0 if that varies."""
    if len(times) == 1:
        return 1
    step = times[1] - times[0]
    return step if all(after - before == step for before, after in itertools.pairwise(times)) else 0


def _read_times(reader: Cursor, frames: int) -> Sequence[int]:
    folded, step = reader.varint(), reader.varint()
    first = folded // 2 if folded % 2 == 0 else -(folded + 1) // 2
    if step:
        return range(first, first + step * frames, step)
    inflater, most = zlib.decompressobj(), _LONGEST * (frames - 1)
    try:
        # never more than one byte above what so many times may have
        raw = inflater.decompress(reader.take(reader.varint()), most + 1)
    except zlib.error as error:
        raise _damaged(f"has times that cannot be read ({error})") from error
    steps, times = Cursor(raw, "the list of the frames' times", _LONGEST), [first]
    for _ in range(frames - 1):
        times.append(times[-1] + steps.varint())
        if times[-1] == times[-2]:
            raise _damaged("has two frames at the same time")
    if steps.left or not inflater.eof or inflater.unused_data:
        raise _damaged("has more times than frames")
    return tuple(times)


def _damaged(what: str) -> FormatError:
    return FormatError(f"the section on the clip's frames {what}; get an intact copy of the file")
