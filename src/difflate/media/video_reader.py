"""Video files and streams to clips, through PyAV."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Callable, Generator, Iterator
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
_NO_STREAM = "an .mp4 or .mov with its index at the end can only be read as a file, not from a stream"


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


def read_video(source: Path | Pipe | bytes, name: str, audio: bool, limits: Limits) -> Clip:
    """The clip in a video file, its bytes or a stream; ``name`` is for messages.

    See `difflate.media.video.open_clip`.
    """
    video = _Video(source, name, limits)
    first = video.look()
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
        raise ImageError(f"{name}: it is a {kind} image, not a video; a clip of images is a folder of numbered ones")


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).strip().rstrip(".")


class _Video:
    """The frames of a file, decoded as they are asked for, anew each time; those of a stream once."""

    def __init__(self, source: Path | Pipe | bytes, name: str, limits: Limits) -> None:
        """Raises ImageError for what is not a video by its first bytes, or a file shorter than they say."""
        self._source, self._name, self._limits = source, name, limits
        self._pipe = source if isinstance(source, Pipe) else None
        if isinstance(source, Path):
            with source.open("rb") as file:
                prefix = file.read(PREFIX_BYTES)
        else:
            prefix = source[:PREFIX_BYTES] if isinstance(source, bytes) else source.prefix
        _check_kind(prefix, name)
        self._said = matroska_bytes(prefix)
        if self._pipe is None:
            self._check_length()
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
        """The file, or the stream from where it is, as an av.InputContainer."""
        av = require("av", "video")
        advice = "if it is one, " + _COPY if self._pipe is None else _NO_STREAM
        try:
            container = av.open(self._opening(), options=_OPTIONS)
        except (av.error.FFmpegError, ValueError) as error:
            reason = _reason(error)
            raise ImageError(f"{self._name}: is not a video, or damaged ({reason}); {advice}") from error
        try:
            yield container
        except av.error.FFmpegError as error:
            raise ImageError(f"{self._name}: cannot be read ({_reason(error)}); {_COPY}") from error
        finally:
            container.close()

    def _opening(self) -> str | Pipe | io.BytesIO:
        """What PyAV opens."""
        if isinstance(self._source, bytes):
            return io.BytesIO(self._source)
        return f"file:{self._source}" if isinstance(self._source, Path) else self._source

    def look(self) -> Frame:
        """The first frame, by which all is known that holds for the clip."""
        frames = self._frames()
        try:
            first = next(frames)
        except StopIteration:
            raise ImageError(f"{self._name}: has no frame; {_COPY}") from None
        if self._pipe is not None:
            self._running = _and_then(first, frames)
        else:
            frames.close()
        return first

    def __iter__(self) -> Iterator[Frame]:
        if self._pipe is None or self._running is None:
            return self._frames()
        running, self._running = self._running, _spent(self._name)
        return running

    def _frames(self) -> Generator[Frame, None, None]:
        with self.opened() as container:
            stream = self._stream(container)
            self._look_at(container, stream)
            times = _Times(self, container.format.name)
            unpack = former = None
            for number, frame in enumerate(self._decoded(container, stream)):
                coding = coding_of(frame, self._name)
                if unpack is None or coding != former:
                    self._change(coding, frame, stream, number)
                    unpack, former = Unpacker(coding), coding
                self._limits.check_frames(number + 1, coding.width, coding.height)
                time = times(frame)
                pixels = np.ascontiguousarray(self._turn(self._channels(unpack(frame))))
                yield Frame(pixels, time)

    def _stream(self, container: Any) -> Any:
        streams = [s for s in container.streams.video if not int(getattr(s, "disposition", 0)) & _ATTACHED_PICTURE]
        if not streams:
            raise ImageError(f"{self._name}: has no video; give a file with one, or a complete copy of this one")
        stream = streams[0]
        if stream.codec_context is None:
            raise ImageError(f"{self._name}: its video codec is not known to PyAV; convert it with ffmpeg first")
        if self._limits.pixels is not None:  # what the codec's own header says may be more than the file's
            stream.codec_context.options = {"max_pixels": str(self._limits.pixels)}
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
                if self._pipe is not None and not count and "mov" in container.format.name:
                    raise ImageError(f"{self._name}: cannot be read; {_NO_STREAM}") from error
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
        self._check_length()
        if container.format.name == "yuv4mpegpipe" and 0 < end < self._bytes():
            raise self._damaged(count, "the file ends within it")

    def _bytes(self) -> int:
        """Of the file, or read of the stream so far."""
        if isinstance(self._source, bytes):
            return len(self._source)
        return self._source.count if isinstance(self._source, Pipe) else self._source.stat().st_size

    def _check_length(self) -> None:
        if self._said is not None and self._bytes() < self._said:
            raise ImageError(f"{self._name}: it ends after {self._bytes()} of {self._said} bytes; {_COPY}")

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
