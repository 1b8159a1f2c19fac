"""Video files and streams to clips, through PyAV."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np

from difflate.errors import ConfigError, ImageError, naming
from difflate.extras import require
from difflate.limits import Limits
from difflate.media.audio import read_sound, to_bytes
from difflate.media.clip import Clip, Frame
from difflate.media.files import sniff_format
from difflate.media.video_checks import Ffv1Check, matroska_bytes
from difflate.media.video_colour import Coding, Unpacker, coding_of, colour_notes
from difflate.media.video_times import KEY, from_milliseconds, from_tag

PREFIX_BYTES = 4096
_DEMUXERS = (
    "asf,avi,dv,flv,h264,hevc,ivf,m4v,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,"
    "yuv4mpegpipe"
)
"""ffmpeg's names of what holds video. Not among them: playlists, which would open other files, and images."""
_OPTIONS = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "file"}
_MATRIX = struct.Struct("=9i")
_ATTACHED_PICTURE = 0x400
_MOVED = "frames whose times do not rise, or are missing, follow the one before at the clip's rate"
_FALLBACK_RATE = Fraction(25)  # ffmpeg's own, where a file says nothing
_COPY = "get a complete copy of the file, or repair it with: ffmpeg -i FILE -c copy REPAIRED"


class Pipe:
    """A binary stream as PyAV reads it: forwards only, its first bytes looked at already, its length counted."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.prefix = self._unread = stream.read(PREFIX_BYTES)
        if not isinstance(self.prefix, bytes):
            raise ConfigError("the stream to read a clip from gives text; open it in binary mode")
        self.count = 0

    def read(self, size: int) -> bytes:
        data, self._unread = self._unread[:size], self._unread[size:]
        if not data:
            data = self._stream.read(size)
        self.count += len(data)
        return data


def read_video(source: Path | Pipe, name: str, audio: bool, limits: Limits) -> Clip:
    """The clip in a video file or stream; ``name`` is for messages. See `difflate.media.video.open_clip`."""
    if isinstance(source, Pipe):
        prefix = source.prefix
    else:
        with source.open("rb") as file:
            prefix = file.read(PREFIX_BYTES)
    _check_kind(prefix, name)
    if isinstance(source, Path):
        size = source.stat().st_size
        _check_length(matroska_bytes(prefix), size, name)
        video = _Video(name, lambda: _open(f"file:{source}", name), limits, lambda: size)
    else:
        container = _open(source, name)
        video = _Video(name, lambda: container, limits, lambda: source.count, matroska_bytes(prefix))
    first = video.look(once=isinstance(source, Pipe))
    notes = video.notes
    sound = None
    if video.has_audio:
        if not audio:
            notes.append("its sound is left out")
        elif isinstance(source, Pipe):
            notes.append("its sound is left out, since the clip is read from a stream")
        else:
            with naming(name), video.opened() as container:
                sound = read_sound(container, container.streams.audio[0])
    data = None if sound is None else to_bytes(sound)
    channels, height, width = first.pixels.shape
    return Clip(width, height, channels, video.rate, video.time_base, video, data, notes)


def _check_kind(prefix: bytes, name: str) -> None:
    if not prefix:
        raise ImageError(f"{name}: the file is empty; get a complete copy of it")
    kind = sniff_format(prefix)
    if kind == ".dfl":
        raise ImageError(f"{name}: it is a .dfl file; decode it with: difflate decompress")
    if kind is not None:
        raise ImageError(
            f"{name}: it is a {kind} image, not a video; open it as an image, or a folder of them as a clip"
        )


def _check_length(said: int | None, there: int, name: str) -> None:
    if said is not None and there < said:
        raise ImageError(f"{name}: it ends after {there} of {said} bytes; {_COPY}")


def _open(source: str | Pipe, name: str) -> Any:
    av = require("av", "video")
    try:
        return av.open(source, options=_OPTIONS)
    except (av.error.FFmpegError, ValueError) as error:
        advice = "if it is one, " + _COPY
        if isinstance(source, Pipe):
            advice = "an .mp4 with its index at the end can only be read as a file, not from a stream"
        raise ImageError(
            f"{name}: is not a video, or damaged or of an unusual kind ({_reason(error)}); {advice}"
        ) from error


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip().rstrip(".")


class _Video:
    """The frames of a file, decoded as they are asked for, anew each time; those of a stream once."""

    def __init__(
        self,
        name: str,
        open: Callable[[], Any],
        limits: Limits,
        count: Callable[[], int],
        said: int | None = None,
    ) -> None:
        """``count()``: bytes of the file, or read of the stream so far; ``said``: bytes a stream should have."""
        self._name, self._open, self._limits, self._count, self._said = name, open, limits, count, said
        self.notes: list[str] = []
        self.has_audio = False
        self.rate = self.time_base = Fraction(0)
        self.exact: tuple[Fraction, Fraction] | None = None
        self._coding: Coding | None = None
        self._turn = np.asarray
        self._running: Iterator[Frame] | None = None
        """Of a stream, from its first frame on; None for a file."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        av = require("av", "video")
        container = self._open()
        try:
            yield container
        except av.error.FFmpegError as error:
            raise ImageError(f"{self._name}: cannot be read ({_reason(error)}); {_COPY}") from error
        finally:
            container.close()

    def look(self, once: bool) -> Frame:
        """The first frame, by which all is known that holds for the clip; ``once``: it is a stream."""
        frames = self._frames()
        try:
            first = next(frames)
        except StopIteration:
            raise ImageError(f"{self._name}: has no frame; {_COPY}") from None
        if once:
            self._running = _and_then(first, frames)
        else:
            frames.close()
        return first

    def __iter__(self) -> Iterator[Frame]:
        if self._running is None:
            return self._frames()
        running, self._running = self._running, _spent(self._name)
        return running

    def _frames(self) -> Iterator[Frame]:
        with self.opened() as container:
            stream = self._stream(container)
            self._look_at(container, stream)
            unpack = None
            times = _Times(self, container.format.name)
            count = 0
            for frame in self._decoded(container, stream):
                coding = coding_of(frame, self._name)
                if unpack is None or coding != self._coding:
                    self._change(coding, frame, stream, count)
                    unpack = Unpacker(coding)
                time = times(frame)
                count += 1
                self._limits.check_frames(count, coding.width, coding.height)
                pixels = np.ascontiguousarray(self._turn(self._channels(unpack(frame))))
                yield Frame(pixels, time)

    def _stream(self, container: Any) -> Any:
        streams = [s for s in container.streams.video if not int(getattr(s, "disposition", 0)) & _ATTACHED_PICTURE]
        if not streams:
            raise ImageError(f"{self._name}: has no video; give a file with one")
        stream = streams[0]
        if stream.codec_context is None:
            raise ImageError(f"{self._name}: its video codec is not known to PyAV; convert it with ffmpeg first")
        return stream

    def _look_at(self, container: Any, stream: Any) -> None:
        """Takes from the header what holds for all frames. Raises LimitExceeded before anything is decoded."""
        context = stream.codec_context
        width, height = context.width, context.height
        if width and height:
            self._limits.check_frames(max(stream.frames, 1), width, height)
        if self._coding is not None:
            return
        self.has_audio = bool(container.streams.audio)
        rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
        self.rate = next((Fraction(r.numerator, r.denominator) for r in rates if r), _FALLBACK_RATE)
        self.time_base = Fraction(stream.time_base.numerator, stream.time_base.denominator)
        if "matroska" in container.format.name:
            self.exact = from_tag(stream.metadata.get(KEY, ""))
            if self.exact is not None:
                self.time_base, self.rate = self.exact
        if len(container.streams.video) > 1:
            self.notes.append("only one of its video streams is kept")
        if container.streams.subtitles:
            self.notes.append("its subtitles are left out")
        ratio = stream.sample_aspect_ratio
        if ratio and ratio != 1:
            shape = f"{ratio.numerator}:{ratio.denominator}"
            self.notes.append(f"its pixels are not square ({shape}), and are taken as if they were")

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """The frames as they are stored. Raises ImageError for damage."""
        av = require("av", "video")
        sums = Ffv1Check() if stream.codec_context.name == "ffv1" and stream.codec_context.extradata else None
        count = end = 0
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                damaged = packet.is_corrupt or (packet.size and sums and not sums(bytes(packet)))
                frames = [] if damaged else packet.decode()
            except (av.error.FFmpegError, ValueError) as error:
                raise self._damaged(count, _reason(error)) from error
            if damaged:
                raise self._damaged(count, "a packet is incomplete or does not match its checksum")
            if packet.size and packet.pos is not None:
                end = packet.pos + packet.size
            for frame in frames:
                if frame.is_corrupt:
                    raise self._damaged(count, "its data cannot be decoded")
                yield frame
                count += 1
        _check_length(self._said, self._count(), self._name)
        if container.format.name == "yuv4mpegpipe" and end < self._count():
            raise self._damaged(count, "the file ends within it")

    def _damaged(self, number: int, reason: str) -> ImageError:
        return ImageError(f"{self._name}: frame {number} is damaged ({reason}); {_COPY}")

    def _change(self, coding: Coding, frame: Any, stream: Any, number: int) -> None:
        """Takes the ``coding`` of the first frame, or a new one of a later frame if a clip can have it."""
        old, self._coding = self._coding, coding if self._coding is None else self._coding
        if old is not None:
            sizes = f"{coding.width}x{coding.height}", f"{old.width}x{old.height}"
            if sizes[0] != sizes[1]:
                raise ImageError(
                    f"{self._name}: frame {number} is {sizes[0]} px, the first {sizes[1]}; scale them alike with ffmpeg"
                )
            if coding.grey != old.grey and old.grey:
                raise ImageError(f"{self._name}: frame {number} has colour, the first none; convert the file first")
            return
        context = stream.codec_context
        if stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1":
            raise ImageError(f"{self._name}: has transparency, which a clip has not; lay it over a background first")
        self.notes += colour_notes(coding, int(context.color_trc), int(context.color_primaries))
        if frame.interlaced_frame:
            self.notes.append("it is interlaced, and taken as if it were not; deinterlace it first for whole frames")
        matrix = _matrix(frame)
        turn = _turn(matrix) if matrix else None
        if turn is not None:
            self._turn = turn
        elif matrix:
            self.notes.append("it is turned by other than quarter turns, which is not done")

    def _channels(self, pixels: np.ndarray) -> np.ndarray:
        """With three channels if the first frame had them."""
        assert self._coding is not None
        return pixels if self._coding.grey or len(pixels) == 3 else np.repeat(pixels, 3, axis=0)


class _Times:
    """The times of frames, from the first on: as they are stored, but always rising."""

    def __init__(self, video: _Video, format: str) -> None:
        self._video = video
        # AVI has decoding times only; ffmpeg's guess at the others is wrong where there are B-frames
        self._decoding = format == "avi"
        self._step = max(1, round(1 / video.rate / video.time_base))
        self._first = self._last = None

    def __call__(self, frame: Any) -> int:
        time = self._stored(frame)
        if self._last is None:
            time = time or 0
        elif time is None or time <= self._last:
            if not self._decoding and _MOVED not in self._video.notes:
                self._video.notes.append(_MOVED)
            time = self._last + self._step
        self._last = time
        return time

    def _stored(self, frame: Any) -> int | None:
        if self._decoding:
            if self._first is None:
                self._first = frame.dts or 0
            return None if frame.dts is None else frame.dts - self._first
        exact = self._video.exact
        return frame.pts if exact is None or frame.pts is None else from_milliseconds(frame.pts, *exact)


def _and_then(first: Frame, others: Iterator[Frame]) -> Iterator[Frame]:
    yield first
    yield from others


def _spent(name: str) -> Iterator[Frame]:
    raise ConfigError(f"{name}: a clip from a stream can be gone through once only; save it to a file first")
    yield


def _matrix(frame: Any) -> tuple[int, ...] | None:
    """The display matrix of ``frame``, 3 by 3, if it has one."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else _MATRIX.unpack(bytes(data)[: _MATRIX.size])


def _turn(matrix: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray] | None:
    """What turns (C, H, W) as ``matrix`` shows it: column x, row y of a frame go to ax + cy and bx + dy.

    None if that is not a matter of quarter turns and mirrors.
    """
    a, b, _, c, d = matrix[:5]
    if not b and not c and a and d:
        return lambda pixels: pixels[..., :: _sign(d), :: _sign(a)]
    if not a and not d and b and c:
        return lambda pixels: pixels.swapaxes(-1, -2)[..., :: _sign(b), :: _sign(c)]
    return None


def _sign(value: int) -> int:
    return 1 if value > 0 else -1
