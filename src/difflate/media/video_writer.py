"""Clips to video files and streams, through PyAV."""

from __future__ import annotations

import io
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from difflate.errors import ConfigError, DifflateError
from difflate.extras import require
from difflate.media.audio import SoundCopy, fits, from_bytes
from difflate.media.clip import Clip, Frame
from difflate.media.video_colour import BT709, LIMITED, Packer, interleaved
from difflate.media.video_times import KEY, from_milliseconds, to_milliseconds, to_tag

_INT = 2**31 - 1


@dataclass(frozen=True)
class Format:
    """A kind of video file that is written."""

    muxer: str
    codec: str
    options: dict[str, str]
    crf: int | None = None
    """The quality without a choice; None: it is lossless, or as good as its samples."""
    most_crf: int = 0
    seekable: bool = False
    """Whether its header is written last, so that it cannot go to a stream."""
    odd_sizes_in: str = "yuv420p"
    """The pixels of frames with an odd side, with a quality; not all encoders have chroma at half size for those."""
    packet_filter: str = ""
    """ffmpeg's bitstream filter between encoder and file."""
    sets_times: bool = True
    """False: clips of a few frames come with times of decoding that the encoder never set."""


# x264's code for AVX-512 lets memory that nobody has written decide on bits: files differ by a percent from run to run
_X264 = {"x264-params": "asm=AVX2"} if platform.machine() in ("x86_64", "AMD64") else {}
FORMATS = {
    "mp4": Format(
        "mp4", "libx264", {"preset": "medium", **_X264}, crf=12, most_crf=51, seekable=True, odd_sizes_in="yuv444p"
    ),
    "mkv": Format("matroska", "ffv1", {"level": "3", "slicecrc": "1", "g": "1"}),
    "webm": Format("webm", "libvpx-vp9", {"b": "0", "row-mt": "1", "cpu-used": "4"}, crf=15, most_crf=63),
    "y4m": Format("yuv4mpegpipe", "rawvideo", {}),
}


def check_settings(clip: Clip, name: str, crf: int | None, stream: bool) -> None:
    """Raises ConfigError for what a file of format ``name`` cannot have."""
    form = FORMATS[name]
    if crf is not None and form.crf is None:
        raise ConfigError(f"crf (={crf}) has no meaning in .{name}; leave it out, or write .mp4 or .webm")
    if crf is not None and not 0 <= crf <= form.most_crf:
        raise ConfigError(f"crf (={crf}) must be from 0 to {form.most_crf} in .{name}")
    if stream and form.seekable:
        raise ConfigError(f".{name} cannot be written to a stream; write it to a file, or .y4m or .mkv to the stream")
    for what, value in (("rate", clip.rate), ("time base", clip.time_base)):
        if not 0 < value.numerator <= _INT or value.denominator > _INT:
            raise ConfigError(f"the clip's {what} (={value}) cannot be written to .{name}; write a folder of images")


def write_video(clip: Clip, frames: Iterator[Frame], target: Path | IO[bytes], name: str, crf: int | None) -> list[str]:
    """Writes ``frames`` of ``clip`` in format ``name``; gives notes. See `difflate.media.video.write_clip`."""
    av = require("av", "video")
    sink = f"file:{target}" if isinstance(target, Path) else _Sink(target)
    try:
        return _Writing(clip, name, FORMATS[name], crf).write(frames, sink)
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(sink, _Sink) and sink.error is not None:
            raise sink.error from None
        raise DifflateError(
            f"the clip cannot be written as .{name} ({error}); choose another format or output"
        ) from error


def mp4_bytes(clip: Clip, frames: Iterator[Frame], form: Format, crf: float) -> bytes:
    """The bytes of an .mp4 file of ``frames`` of ``clip``, encoded as ``form`` says.

    Raises ConfigError for a rate or time base that such a file cannot have, and for what the encoder refuses.
    """
    check_settings(clip, "mp4", None, stream=False)
    av = require("av", "video")
    file = io.BytesIO()
    try:
        _Writing(clip, "mp4", form, crf).write(frames, file)
    except av.error.FFmpegError as error:
        raise ConfigError(f"{form.codec} cannot encode this clip ({error}); use another codec") from error
    return file.getvalue()


class _Sink:
    """A binary stream as PyAV writes it: forwards only. PyAV hides what `write` raises, so it is kept."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.error: Exception | None = None

    def write(self, data: bytes) -> int:
        try:
            self._stream.write(data)
        except Exception as error:
            self.error = error
            raise
        return len(data)


class _Writing:
    def __init__(self, clip: Clip, name: str, form: Format, crf: float | None) -> None:
        self._clip, self._name, self._form = clip, name, form
        self._crf = form.crf if crf is None else crf
        self._packets: list[Any] = []
        """Those that wait for their times."""
        self._step = max(1, round(1 / clip.rate / clip.time_base))
        self._notes: list[str] = []
        self._last: int | None = None
        self._filter: Any = None

    def write(self, frames: Iterator[Frame], sink: Any) -> list[str]:
        clip = self._clip
        first = next(frames)
        shift = max(0, -first.time)
        if shift:
            self._note("times below zero cannot be kept: the clip is moved to begin at zero")
        sound = self._sound()
        options = self._container_options(sink)
        with require("av", "video").open(sink, "w", format=self._form.muxer, options=options) as file:
            stream, pack = self._video_stream(file)
            delay = shift * clip.time_base
            copy = None if sound is None else SoundCopy(sound, file, delay)
            for number, frame in enumerate(_with(first, frames)):
                time = self._time(frame.time + shift, number)
                if copy is not None:
                    copy.until(time * stream.codec_context.time_base)
                picture = pack(frame.pixels)
                picture.pts, picture.time_base = time, stream.codec_context.time_base
                self._mux(file, stream, picture)
            self._mux(file, stream, None)
            for packet in _in_order(self._packets):
                file.mux(packet)
            if copy is not None:
                copy.until(None)
        return self._notes

    def _sound(self) -> Any:
        if self._clip.audio is None:
            return None
        sound = from_bytes(self._clip.audio)
        if self._name != "y4m" and fits(sound, self._form.muxer):
            return sound
        self._note(f"the sound is left out: .{self._name} cannot hold its codec")
        return None

    def _container_options(self, sink: Any) -> dict[str, str]:
        if self._name != "mp4":
            # no random identifiers; sound that begins before zero, as that of most codecs does, would move the frames
            return {"fflags": "+bitexact", "avoid_negative_ts": "disabled"}
        scale = str(self._clip.time_base.denominator)
        # to put the header first, ffmpeg opens what it has written once more, which is possible by name only
        first = {"movflags": "faststart"} if isinstance(sink, str) else {}
        return {"movie_timescale": scale, "video_track_timescale": scale, **first}

    def _video_stream(self, file: Any) -> tuple[Any, Any]:
        """The stream, and what makes a frame for it of pixels (C, H, W)."""
        clip, form = self._clip, self._form
        options = dict(form.options)
        if self._crf is not None:
            options["crf"] = f"{self._crf:g}"
        stream = file.add_stream(form.codec, rate=clip.rate, options=options)
        context = stream.codec_context
        stream.width, stream.height = clip.width, clip.height
        context.time_base = stream.time_base = 1 / clip.rate if self._name == "y4m" else clip.time_base
        if form.muxer in ("matroska", "webm"):
            stream.metadata[KEY] = to_tag(clip.time_base, clip.rate)
        stream.pix_fmt, pack = self._pixels()
        if stream.pix_fmt.startswith("yuv"):
            context.color_range = LIMITED
        if form.crf is not None:
            context.colorspace = context.color_primaries = context.color_trc = BT709
        return stream, pack

    def _pixels(self) -> tuple[str, Any]:
        """The pixel format, and what makes a frame in it of pixels (C, H, W)."""
        clip, name = self._clip, self._name
        if clip.channels == 1 and self._form.crf is None:
            return "gray", lambda pixels: _frame(np.ascontiguousarray(pixels[0]), "gray")
        if name == "mkv":
            return "bgr0", lambda pixels: _frame(interleaved(pixels), "rgb24").reformat(format="bgr0")
        kind = "yuv444p" if name == "y4m" else "yuv420p"
        if name != "y4m" and (clip.width % 2 or clip.height % 2):
            kind = self._form.odd_sizes_in
        if name == "mp4" and kind == "yuv444p":
            self._note("its size is odd: .mp4 has its colours in full resolution (4:4:4), which not all players show")
        packer = Packer(clip.width, clip.height, kind, "bt601" if name == "y4m" else "bt709")
        return kind, lambda pixels: packer(pixels if len(pixels) == 3 else np.repeat(pixels, 3, axis=0))

    def _time(self, time: int, number: int) -> int:
        """The time of frame ``number`` in the unit of the encoder."""
        clip, name = self._clip, self._name
        if name == "y4m":
            if time * clip.time_base * clip.rate != number:
                self._note(f".y4m has frames at a constant rate ({clip.rate}) from zero on: their own times are lost")
            return number
        if name != "mp4":
            rounded = to_milliseconds(time, clip.time_base)
            if self._last is not None and rounded <= self._last:
                short = f"frame {number} is less than a millisecond after the last"
                raise ConfigError(f"{short}, which .{name} cannot hold; write .mp4")
            self._last = rounded
            if from_milliseconds(rounded, clip.time_base, clip.rate) != time:
                self._note(f"times are rounded to milliseconds, as .{name} has them")
        return time

    def _mux(self, file: Any, stream: Any, picture: Any) -> None:
        for packet in self._filtered(stream, picture):
            if not packet.duration:
                packet.duration = 1 if self._name == "y4m" else self._step
            if self._form.sets_times:
                file.mux(packet)
            else:
                self._packets.append(packet)

    def _filtered(self, stream: Any, picture: Any) -> Iterator[Any]:
        """The packets of ``picture``, or of all that is left for None."""
        packets = stream.encode(picture)
        if not self._form.packet_filter:
            yield from packets
            return
        if self._filter is None:
            context = require("av.bitstream", "video").BitStreamFilterContext
            self._filter = context(self._form.packet_filter, stream)
        for packet in packets:
            yield from self._filter.filter(packet)
        if picture is None:
            yield from self._filter.filter(None)

    def _note(self, note: str) -> None:
        if note not in self._notes:
            self._notes.append(note)


def _in_order(packets: list[Any]) -> list[Any]:
    """The packets with times of decoding that rise and are not after those of showing."""
    shown = sorted(packet.pts for packet in packets)
    place = {time: number for number, time in enumerate(shown)}
    delay = max((number - place[packet.pts] for number, packet in enumerate(packets)), default=0)
    step = shown[1] - shown[0] if len(shown) > 1 else 1
    for number, packet in enumerate(packets):
        packet.dts = shown[number - delay] if number >= delay else shown[0] - (delay - number) * step
    return packets


def _frame(pixels: np.ndarray, format: str) -> Any:
    return require("av", "video").VideoFrame.from_ndarray(pixels, format=format)


def _with(first: Frame, others: Iterator[Frame]) -> Iterator[Frame]:
    yield first
    yield from others
