"""What the studio does with a clip: encode it with one codec, decode the file, measure."""

import dataclasses
import importlib.util
import time
from dataclasses import dataclass
from fractions import Fraction

from difflate.codecs.base import codec_of_clips
from difflate.codecs.classical_video import classical_video_codecs
from difflate.limits import Limits
from difflate.media.clip import Clip
from difflate.media.picture import Picture
from difflate.media.video import open_clip
from difflate.metrics.clips import FrameMean
from difflate.metrics.distortion import psnr
from difflate.store.hub import bundled_models
from difflate.studio.photographs import file_name, given, loaded

MAX_FRAMES, MAX_PIXEL_FRAMES = 300, 2**26
"""Of a clip in the studio, all of whose restored frames are in memory."""


@dataclass(frozen=True)
class ClipOutcome:
    """A file of a clip, and what is decoded from it."""

    name: str
    data: bytes
    original: Clip
    restored: Clip
    """Loaded."""
    frames: int
    bpp: float
    """Bits per pixel and frame."""
    kbit_s: float
    psnr: float
    """dB, the mean over the frames."""
    encode_s: float
    decode_s: float


def clips_work() -> bool:
    """Whether clips can be read here."""
    return importlib.util.find_spec("av") is not None


def clip_codecs() -> list[str]:
    """The names of all codecs of clips, those that code clips alone first."""
    bundled = bundled_models("codec")
    return [*sorted(bundled, key=lambda name: "video" not in name), *classical_video_codecs()]


def compress_clip(
    data: bytes, name: str, codec: str, limits: Limits, *, quality: float | None = None, steps: int | None = None,
    seed: int | None = None, device: str = "cpu",
) -> ClipOutcome:  # fmt: skip
    """The clip in ``data``, of a video file ``name``, encoded with ``codec`` and decoded again.

    ``quality`` None: the codec's default. What the codec does not take it is not given. Raises DifflateError.
    """
    limits = dataclasses.replace(limits, frames=MAX_FRAMES, pixel_frames=MAX_PIXEL_FRAMES)
    coder = codec_of_clips(loaded(codec, device))
    original = open_clip(data, limits=limits)
    began = time.perf_counter()
    asked = None if coder.quality_range is None else quality
    coded = coder.encode_clip(original, quality=asked, limits=limits, **given(coder, steps=steps, seed=seed))
    encoded = time.perf_counter()
    restored = coder.decode_clip(coded, limits=limits).loaded()
    decoded = time.perf_counter()
    mean, times = FrameMean(psnr), []
    for before, after in zip(original.frames, restored.frames, strict=True):
        mean.add(Picture(before.pixels), Picture(after.pixels))
        times.append(after.time)
    frames = len(times)
    seconds = Fraction(frames) / restored.rate
    return ClipOutcome(
        name=file_name(name, coder),
        data=coded,
        original=original,
        restored=restored,
        frames=frames,
        bpp=8 * len(coded) / (frames * restored.width * restored.height),
        kbit_s=float(8 * len(coded) / seconds / 1000),
        psnr=mean.value() or 0.0,
        encode_s=encoded - began,
        decode_s=decoded - encoded,
    )
