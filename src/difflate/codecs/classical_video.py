"""The codecs that people use for video today, to compare with: AVC, HEVC and AV1, each in an .mp4 file of its own.

By x264, x265 and SVT-AV1 through PyAV (the extra ``video``). The quality is the encoders' constant rate factor, so
lower is better. Frames are BT.709 in limited range, and files say so; docs/video.md has all settings. The same frames
give the same file only with the same versions and number of threads of the encoders.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from difflate.codecs.base import quality_for
from difflate.errors import ConfigError, LimitExceeded
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.clip import Clip, Frame
from difflate.media.video import checked_frames, open_clip
from difflate.options import Options, VideoEncoding

_X26_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip
_SVT_PRESETS = tuple(map(str, range(14)))


def classical_video_codecs() -> dict[str, VideoCodec]:
    """Every classical codec of clips by its name. They need the extra ``video`` when they are used, not before."""
    codecs = (
        VideoCodec(
            "avc", (0, 51, 23), "libx264", _X26_PRESETS, "medium",
            "AVC (H.264) by x264; -q is its CRF: lower is better; needs difflate[video]",
        ),
        # x265 4.2 takes smaller frames, and writes beyond its memory
        VideoCodec(
            "hevc", (0, 51, 28), "libx265", _X26_PRESETS, "medium",
            "HEVC (H.265) by x265; -q as avc's; needs difflate[video]",
            min_side_px=64,
        ),
        # some smaller frames SVT-AV1 4 never comes back from
        VideoCodec(
            "av1", (1, 63, 35), "libsvtav1", _SVT_PRESETS, "8",
            "AV1 by SVT-AV1; -q as avc's, whole numbers; needs difflate[video]",
            min_side_px=64, whole_quality=True,
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
    min_side_px: int = 1
    """Shortest width or height that the encoder takes, in pixels."""
    whole_quality: bool = False
    """Whether only whole numbers are qualities."""
    suffix: str = ".mp4"
    encoding: type[VideoEncoding] = VideoEncoding
    decoding: type[Options] = Options

    def encode_clip(
        self, clip: Clip, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> bytes:
        """The bytes of a complete file; grey clips are stored as colour without saturation.

        Raises ConfigError (quality, options, package, a rate or time base that a file cannot hold) and LimitExceeded
        (size, frames), and what reading the frames raises.
        """
        from difflate.media.video_writer import mp4_bytes

        chosen = self.encoding.of(options, self.name)
        crf = quality_for(self, quality)
        assert crf is not None
        if self.whole_quality and crf != int(crf):
            raise ConfigError(f"quality (={crf:g}) must be a whole number for {self.name}")
        preset = self.preset if chosen.preset is None else str(chosen.preset)
        if preset not in self.presets:
            raise ConfigError(f"`preset` (={preset}) must be one of {', '.join(self.presets)} for {self.name}")
        limits.check_size(clip.width, clip.height, what="frame")
        if min(clip.width, clip.height) < self.min_side_px:
            size = f"{clip.width}x{clip.height}"
            raise LimitExceeded(
                f"frames of {size} px are too small for {self.name}, below {self.min_side_px} px a side; use avc"
            )
        os.environ.setdefault("SVT_LOG", "-1")  # its own words on stderr
        return mp4_bytes(clip, _counted(clip, limits), _form(self.encoder, preset), crf)

    def decode_clip(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> Clip:
        """The clip in ``data``, in sRGB, its frames decoded each time that they are gone through.

        Raises ConfigError, ImageError, LimitExceeded.
        """
        self.decoding.of(options, self.name)
        return open_clip(data, audio=True, limits=limits)


def _form(encoder: str, preset: str) -> Any:
    """How an .mp4 file is written with that encoder."""
    from difflate.media.video_writer import FORMATS

    if encoder == "libx264":
        # x264's settings in words, 700 bytes: of a file of ten kilobytes they would be a part
        options = {**FORMATS["mp4"].options, "preset": preset}
        return replace(FORMATS["mp4"], options=options, packet_filter="filter_units=remove_types=6")
    form = replace(FORMATS["mp4"], codec=encoder, options={"preset": preset})
    if encoder == "libx265":
        # info: the same, 2 kilobytes
        options = {**form.options, "x265-params": "log-level=none:info=0"}
        return replace(form, options=options, sets_times=False)
    return replace(form, odd_sizes_in="yuv420p")


def _counted(clip: Clip, limits: Limits) -> Iterator[Frame]:
    for number, frame in enumerate(checked_frames(clip)):
        limits.check_frames(number + 1, clip.width, clip.height)
        yield frame
