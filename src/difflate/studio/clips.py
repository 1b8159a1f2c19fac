"""What the studio does with a clip: encode it with one codec, decode the file, measure."""

import dataclasses
import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from difflate.codecs.base import codec_of_clips
from difflate.codecs.classical_video import classical_video_codecs
from difflate.limits import Limits
from difflate.media.clip import Clip, Frame
from difflate.media.picture import Picture
from difflate.media.video import open_clip
from difflate.metrics.clips import FrameMean
from difflate.metrics.distortion import psnr
from difflate.store.hub import bundled_models
from difflate.studio.photographs import file_name, given, loaded
from difflate.studio.watching import streamed

MAX_FRAMES, MAX_PIXEL_FRAMES = 150, 2**25
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


@dataclass(frozen=True)
class Progress:
    """How many frames were encoded, or decoded."""

    what: str
    frames: int


def compress_clip(
    data: bytes, name: str, codec: str, limits: Limits, *, quality: float | None = None, steps: int | None = None,
    seed: int | None = None, device: str = "cpu",
) -> Iterator[Progress | ClipOutcome]:  # fmt: skip
    """What happens while the clip in ``data``, of a video file ``name``, is encoded with ``codec`` and decoded again;
    the last is the outcome.

    ``quality`` None: the codec's default. What the codec does not take it is not given. Raises DifflateError.
    """

    def work(tell: Callable[[Progress | ClipOutcome], None]) -> None:
        tell(_tried(data, name, codec, limits, quality, {"steps": steps, "seed": seed}, device, tell))

    return streamed(work)


def _tried(
    data: bytes, name: str, codec: str, limits: Limits, quality: float | None, options: dict[str, int | None],
    device: str, tell: Callable[[Progress | ClipOutcome], None],
) -> ClipOutcome:  # fmt: skip
    """Raises DifflateError."""

    def counted(clip: Clip, what: str) -> Clip:
        def frames() -> Iterator[Frame]:
            for number, frame in enumerate(clip.frames, 1):
                tell(Progress(what, number))
                yield frame

        return dataclasses.replace(clip, frames=frames())

    limits = dataclasses.replace(limits, frames=MAX_FRAMES, pixel_frames=MAX_PIXEL_FRAMES)
    coder = codec_of_clips(loaded(codec, device))
    original = open_clip(data, limits=limits)
    began = time.perf_counter()
    asked = None if coder.quality_range is None else quality
    coded = coder.encode_clip(counted(original, "encoding"), quality=asked, limits=limits, **given(coder, **options))
    encoded = time.perf_counter()
    restored = counted(coder.decode_clip(coded, limits=limits), "decoding").loaded()
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
