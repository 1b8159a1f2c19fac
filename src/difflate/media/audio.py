"""Sound that goes along with a clip: the packets of its audio stream, copied and never decoded.

As bytes (`Clip.audio`), little-endian: the magic, a version; how many bytes the head, the packed table and the packets
have (u32 each), how many packets there are (u32) and the time base (u32 / u32); the head; the table; the packets one
after the other. The head is a Matroska file of the first packet alone: codec, rate, channels and all else that a
container must know are in it. The table is zlib's of four rows of int64: pts, dts and duration in the time base, and
size in bytes; of pts and dts the differences from packet to packet.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from difflate.errors import FormatError, ImageError, LimitExceeded, TruncatedError, VersionError
from difflate.extras import require

MAGIC, VERSION = b"\x8fDFS", 1
SOUND_BYTES = 2**28
"""Of all packets: 25 minutes of uncompressed stereo."""
PACKETS = 2**20
_HEAD_BYTES = 2**22
_FIXED = struct.Struct("<4sB6I")
_ROWS = 4
_TIMES = 2**62


class SoundPacket(NamedTuple):
    """A coded packet; times in the time base of its `Sound`."""

    data: bytes
    pts: int
    dts: int
    duration: int
    """0: unknown."""


@dataclass(frozen=True)
class Sound:
    """An audio stream."""

    head: bytes
    """A Matroska file with the first packet alone."""
    time_base: Fraction
    """Seconds."""
    packets: tuple[SoundPacket, ...]
    """At least one."""


def read_sound(container: Any, stream: Any) -> Sound | None:
    """The packets of ``stream`` in ``container``, an av.InputContainer at its start; None if it has none.

    Raises ImageError for damage, LimitExceeded.
    """
    packets, total, following = [], 0, 0
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.is_corrupt:
            raise ImageError(f"audio packet {len(packets)} is damaged; leave the sound out, or repair the file first")
        dts = packet.dts if packet.dts is not None else packet.pts if packet.pts is not None else following
        pts = packet.pts if packet.pts is not None else dts
        duration = packet.duration or 0
        packets.append(SoundPacket(bytes(packet), pts, dts, duration))
        following, total = dts + duration, total + packet.size
        _check(total, len(packets))
    if not packets:
        return None
    base = Fraction(stream.time_base.numerator, stream.time_base.denominator)
    return Sound(_head(stream, packets[0]), base, tuple(packets))


def _check(total: int, count: int) -> None:
    if total > SOUND_BYTES or count > PACKETS:
        raise LimitExceeded(f"its sound has {count} packets of {total} bytes, above the limit; leave the sound out")


def _head(stream: Any, packet: SoundPacket) -> bytes:
    av = require("av", "video")
    file = io.BytesIO()
    # without random identifiers: the same sound gives the same bytes
    with av.open(file, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        copy = container.add_stream_from_template(stream)
        first = _av_packet(packet._replace(pts=0, dts=0), Fraction(1, 1000), copy)
        container.mux(first)
    return file.getvalue()


def to_bytes(sound: Sound) -> bytes:
    """The bytes of ``sound``, see above."""
    rows = np.array([(p.pts, p.dts, p.duration, len(p.data)) for p in sound.packets], "<i8").T.copy()
    rows[:2, 1:] -= rows[:2, :-1].copy()
    table = zlib.compress(rows.tobytes(), 9)
    data = b"".join(packet.data for packet in sound.packets)
    base = sound.time_base
    sizes = (len(sound.head), len(table), len(data), len(sound.packets), base.numerator, base.denominator)
    return _FIXED.pack(MAGIC, VERSION, *sizes) + sound.head + table + data


def from_bytes(data: bytes) -> Sound:
    """The sound that `to_bytes` made ``data`` of. Raises FormatError for anything else, LimitExceeded."""
    if data[:4] != MAGIC:
        raise FormatError("the sound is not in the form of Difflate; the file is damaged")
    if len(data) < _FIXED.size:
        raise TruncatedError("the sound ends within its header; get a complete copy of the file")
    _, version, head, table, size, count, above, below = _FIXED.unpack_from(data)
    if version != VERSION:
        raise VersionError(f"the sound is in version {version} of its form; update difflate")
    _check(size, count)
    if len(data) != _FIXED.size + head + table + size:
        raise TruncatedError("the sound does not have the length that its header says; get a complete copy of the file")
    if not count or not above or not below or head > _HEAD_BYTES:
        raise _damaged()
    rest = memoryview(data)[_FIXED.size :]
    rows = _rows(bytes(rest[head : head + table]), count)
    if rows[2:].min() < 0 or rows[3].sum() != size or np.abs(rows[:2]).max() > _TIMES:
        raise _damaged()
    at, packets = head + table, []
    for pts, dts, duration, length in rows.T.tolist():
        packets.append(SoundPacket(bytes(rest[at : at + length]), pts, dts, duration))
        at += length
    return Sound(bytes(rest[:head]), Fraction(above, below), tuple(packets))


def _rows(table: bytes, count: int) -> np.ndarray:
    """(4, count) int64."""
    size = 8 * _ROWS * count
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(table, size + 1)
    except zlib.error as error:
        raise _damaged() from error
    if len(raw) != size or not inflate.eof or inflate.unused_data:
        raise _damaged()
    rows = np.frombuffer(raw, "<i8").reshape(_ROWS, count).copy()
    rows[:2] = rows[:2].cumsum(axis=1)
    return rows


def _damaged() -> FormatError:
    return FormatError("the sound is damaged; get another copy of the file")


class SoundCopy:
    """The packets of ``sound`` on their way into ``container``, an av.OutputContainer, its times moved by ``delay`` s.

    Make it after the video stream and before anything is muxed.
    """

    def __init__(self, sound: Sound, container: Any, delay: Fraction = Fraction(0)) -> None:
        self._container, self._base = container, sound.time_base
        self._delay = round(delay / sound.time_base)
        self._left = iter(sound.packets)
        self._next = next(self._left, None)
        with _opened(sound.head) as head:
            self._stream = container.add_stream_from_template(head.streams.audio[0])

    def until(self, seconds: Fraction | None) -> None:
        """Muxes what is due by ``seconds``; None: all that is left. Called often, it keeps the muxer's queue short."""
        while self._next is not None:
            packet = self._next._replace(pts=self._next.pts + self._delay, dts=self._next.dts + self._delay)
            if seconds is not None and packet.dts * self._base > seconds:
                return
            self._container.mux(_av_packet(packet, self._base, self._stream))
            self._next = next(self._left, None)


def fits(sound: Sound, format: str) -> bool:
    """Whether a container of ``format``, ffmpeg's name, takes the codec of ``sound``. Raises FormatError for damage."""
    av = require("av", "video")
    try:
        with av.open(io.BytesIO(), "w", format=format) as container:
            SoundCopy(Sound(sound.head, sound.time_base, sound.packets[:1]), container).until(None)
    except (ValueError, av.error.FFmpegError):
        return False
    return True


@contextlib.contextmanager
def _opened(head: bytes) -> Iterator[Any]:
    av = require("av", "video")
    try:
        container = av.open(io.BytesIO(head), format="matroska")
    except (av.error.FFmpegError, ValueError) as error:
        raise _damaged() from error
    with container:
        if not container.streams.audio:
            raise _damaged()
        yield container


def _av_packet(packet: SoundPacket, time_base: Fraction, stream: Any) -> Any:
    copy = require("av", "video").Packet(packet.data)
    copy.pts, copy.dts, copy.duration, copy.time_base = packet.pts, packet.dts, packet.duration, time_base
    copy.is_keyframe = True
    copy.stream = stream
    return copy
