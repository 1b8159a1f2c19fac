"""The codecs that people use for video today, to compare with: AVC, HEVC and AV1, each in an .mp4 file of its own.

By x264, x265 and SVT-AV1 through PyAV (the extra ``video``). The quality is the encoders' constant rate factor, so lower
is better. Frames are BT.709 in limited range, and files say so; docs/video.md has all settings. The same frames give
the same file only with the same versions and number of threads of the encoders.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from difflate.codecs.base import quality_for
from difflate.errors import ConfigError, ImageError, LimitExceeded
from difflate.extras import require
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.clip import Clip, Frame
from difflate.options import Options, VideoEncoding

_X26_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip
_SVT_PRESETS = tuple(map(str, range(14)))
_BT709 = 1
_LIMITED, _FULL = 1, 2
_MAX_INT = 2**31 - 1
"""Of the two numbers of a fraction in FFmpeg."""


def classical_video_codecs() -> dict[str, VideoCodec]:
    """Every classical codec of clips by its name. They need the extra ``video`` when they are used, not before."""
    codecs = (
        VideoCodec(
            "avc", (0, 51, 23), "libx264", _X26_PRESETS, "medium",
            "AVC (H.264) by x264; -q is its CRF: lower is better; needs difflate[video]",
            # x264's settings in words, 700 bytes: of a file of ten kilobytes they would be a part
            packet_filter="filter_units=remove_types=6",
        ),
        VideoCodec(
            "hevc", (0, 51, 28), "libx265", _X26_PRESETS, "medium",
            "HEVC (H.265) by x265; -q as avc's; needs difflate[video]",
            # info: its settings in words. x265 4.2 takes smaller frames, and writes beyond its memory
            {"x265-params": "log-level=none:info=0"}, min_side_px=64,
        ),
        VideoCodec(
            "av1", (1, 63, 35), "libsvtav1", _SVT_PRESETS, "8",
            "AV1 by SVT-AV1; -q as avc's, whole numbers; needs difflate[video]",
            # some smaller frames SVT-AV1 4 never comes back from
            min_side_px=64, odd_sizes_in="yuv420p", whole_quality=True,
        ),
    )  # fmt: skip
    return {codec.name: codec for codec in codecs}


@dataclass
class VideoCodec:
    """A codec of clips that FFmpeg has; see `difflate.codecs.base.ClipCodec`."""

    name: str
    quality_range: tuple[float, float, float] | None
    """(best, worst, default) of the constant rate factor."""
    encoder: str
    """By FFmpeg's name."""
    presets: tuple[str, ...]
    preset: str
    """The one that is taken unless another is asked for."""
    about: str
    """A few words for lists."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What the encoder is told beside quality and preset."""
    min_side_px: int = 1
    """Shortest width or height that the encoder takes, in pixels."""
    odd_sizes_in: str = "yuv444p"
    """The format of frames with an odd side: not all encoders have chroma at half size for those."""
    whole_quality: bool = False
    """Whether only whole numbers are qualities."""
    packet_filter: str = ""
    """FFmpeg's bitstream filter between the encoder and the file."""
    suffix: str = ".mp4"
    encoding: type[VideoEncoding] = VideoEncoding
    decoding: type[Options] = Options

    def encode_clip(
        self, clip: Clip, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> bytes:
        """The bytes of a complete file, without sound; grey clips are stored as colour without saturation.

        Raises ConfigError (quality, options, package, a rate or time base that a file cannot hold) and LimitExceeded
        (size, frames), and what reading the frames raises.
        """
        settings = self._settings(quality, self.encoding.of(options, self.name))
        pix_fmt = self._pix_fmt(clip, limits)
        av = require("av", "video")
        file = io.BytesIO()
        with self._failures(av), av.open(file, "w", format="mp4") as container:
            stream = container.add_stream(self.encoder, rate=clip.rate, options=settings)
            stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, pix_fmt
            stream.time_base = stream.codec_context.time_base = clip.time_base
            context = stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED
            packets = self._encoded(av, stream, clip, limits)
            if self.packet_filter:
                packets = _filtered(av.bitstream.BitStreamFilterContext(self.packet_filter, stream), packets)
            for packet in _in_order(list(packets)):
                container.mux(packet)
        return file.getvalue()

    def decode_clip(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> Clip:
        """The clip in ``data``, in sRGB, its frames decoded each time that they are gone through.

        Times are the same in seconds; their unit is that of the file. Raises ConfigError, ImageError, LimitExceeded.
        """
        self.decoding.of(options, self.name)
        return _open_mp4(data, limits)

    def _settings(self, quality: float | None, chosen: VideoEncoding) -> dict[str, str]:
        """What the encoder is told. Raises ConfigError."""
        crf = quality_for(self, quality)
        assert crf is not None
        if self.whole_quality and crf != int(crf):
            raise ConfigError(f"quality (={crf:g}) must be a whole number for {self.name}")
        preset = self.preset if chosen.preset is None else str(chosen.preset)
        if preset not in self.presets:
            raise ConfigError(f"`preset` (={preset}) must be one of {', '.join(self.presets)} for {self.name}")
        return {"crf": f"{crf:g}", "preset": preset, **self.settings}

    def _pix_fmt(self, clip: Clip, limits: Limits) -> str:
        """What FFmpeg calls the format of the frames. Raises as `encode_clip` for what cannot be encoded."""
        limits.check_size(clip.width, clip.height, what="frame")
        for what, value in (("rate", clip.rate), ("time base", clip.time_base)):
            if max(value.numerator, value.denominator) > _MAX_INT:
                raise ConfigError(f"the {what} of the clip (={value}) has too many digits for .mp4; round it")
        if min(clip.width, clip.height) < self.min_side_px:
            size = f"{clip.width}x{clip.height}"
            raise LimitExceeded(
                f"frames of {size} px are too small for {self.name}, below {self.min_side_px} px a side; use avc"
            )
        return self.odd_sizes_in if clip.width % 2 or clip.height % 2 else "yuv420p"

    def _encoded(self, av: Any, stream: Any, clip: Clip, limits: Limits) -> Iterator[Any]:
        for number, frame in enumerate(clip.frames):
            limits.check_frames(number + 1, clip.width, clip.height)
            yield from stream.encode(_to_yuv(av, frame, stream.pix_fmt, clip.time_base))
        yield from stream.encode(None)

    @contextmanager
    def _failures(self, av: Any) -> Iterator[None]:
        """The encoders' errors as ConfigError, and their own words on stderr silenced."""
        os.environ.setdefault("SVT_LOG", "-1")
        try:
            yield
        except av.error.FFmpegError as error:
            raise ConfigError(f"{self.name} cannot encode this clip ({error}); use another codec") from error


def _filtered(bitstream_filter: Any, packets: Iterator[Any]) -> Iterator[Any]:
    for packet in packets:
        yield from bitstream_filter.filter(packet)
    yield from bitstream_filter.filter(None)


def _in_order(packets: list[Any]) -> list[Any]:
    """The packets with times of decoding that rise and are not after those of showing.

    x265 gives clips of a few frames times of decoding that it never set.
    """
    shown = sorted(packet.pts for packet in packets)
    place = {time: number for number, time in enumerate(shown)}
    delay = max(number - place[packet.pts] for number, packet in enumerate(packets))
    step = shown[1] - shown[0] if len(shown) > 1 else 1
    for number, packet in enumerate(packets):
        packet.dts = shown[number - delay] if number >= delay else shown[0] - (delay - number) * step
    return packets


def _open_mp4(data: bytes, limits: Limits) -> Clip:
    av = require("av", "video")
    try:
        with av.open(io.BytesIO(data), format="mp4") as container:
            stream = container.streams.video[0]
            limits.check_size(stream.width, stream.height, what="frame")
            rate, base = Fraction(stream.average_rate), Fraction(stream.time_base)
            return Clip(stream.width, stream.height, 3, rate, base, _Frames(data, limits))
    except (av.error.FFmpegError, IndexError) as error:
        raise ImageError(f"video data: not an .mp4 file that can be read ({error}); get a complete copy") from error


@dataclass(frozen=True)
class _Frames:
    """The frames of an .mp4 file, decoded each time that they are gone through."""

    data: bytes
    limits: Limits

    def __iter__(self) -> Iterator[Frame]:
        av = require("av", "video")
        try:
            with av.open(io.BytesIO(self.data), format="mp4") as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for number, frame in enumerate(container.decode(stream)):
                    self.limits.check_frames(number + 1, frame.width, frame.height)
                    yield Frame(_to_rgb(av, frame), frame.pts)
        except av.error.FFmpegError as error:
            raise ImageError(f"video data: a frame cannot be decoded ({error}); get a complete copy") from error


def _flags(av: Any) -> int:
    """How FFmpeg scales chroma: its default is off by a level on average, and 5 to 10 dB further from the original."""
    flags = av.video.reformatter.Interpolation
    return int(flags.BICUBIC | flags.ACCURATE_RND | flags.FULL_CHR_H_INT | flags.FULL_CHR_H_INP)


def _to_yuv(av: Any, frame: Frame, pix_fmt: str, time_base: Fraction) -> Any:
    """The frame as an encoder takes it."""
    pixels = np.broadcast_to(frame.pixels, (3, *frame.pixels.shape[1:])).transpose(1, 2, 0)
    result = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
        format=pix_fmt, src_colorspace=_BT709, dst_colorspace=_BT709, src_color_range=_FULL,
        dst_color_range=_LIMITED, interpolation=_flags(av),
    )  # fmt: skip
    result.pts, result.time_base = frame.time, time_base
    return result


def _to_rgb(av: Any, frame: Any) -> np.ndarray:
    """(3, H, W) uint8, sRGB."""
    rgb = frame.reformat(
        format="rgb24", src_colorspace=_BT709, dst_colorspace=_BT709, src_color_range=_LIMITED,
        dst_color_range=_FULL, interpolation=_flags(av),
    )  # fmt: skip
    return rgb.to_ndarray().transpose(2, 0, 1)
