"""What the commands share on clips: which inputs are one, progress in frames, what is said of one."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from difflate.media.clip import Clip, Frame

T = TypeVar("T")


def clip_line(width: int, height: int, frames: int, seconds: Fraction, size_bytes: int) -> str:
    """Size, frames, duration and rates of a clip, as all commands print them."""
    bpp, kbit_per_s = clip_rates(width, height, frames, seconds, size_bytes)
    length = f"{frames} frame{'s' * (frames > 1)} in {float(seconds):.2f} s"
    return f"{width}x{height} px, {length}, {size_bytes} bytes, {bpp:.4f} bpp, {kbit_per_s:.1f} kbit/s"


def clip_rates(width: int, height: int, frames: int, seconds: Fraction, size_bytes: int) -> tuple[float, float]:
    """Bits per pixel and kilobits per second."""
    return 8 * size_bytes / (width * height * frames), float(8 * size_bytes / seconds / 1000)


def watched(things: Iterable[T], total: int | None, unit: str) -> Iterator[T]:
    """``things``, their number shown on a terminal as they go by."""
    from tqdm import tqdm

    yield from tqdm(things, total=total, unit=unit, leave=False, file=sys.stderr, disable=not sys.stderr.isatty())


class Watched:
    """The frames of a clip as they go by: counted, and shown on a terminal."""

    def __init__(self, clip: Clip):
        self._clip = clip
        self.times: list[int] = []
        """Of the frames that went by last."""

    def __iter__(self) -> Iterator[Frame]:
        frames, self.times = self._clip.frames, []
        for frame in watched(frames, len(frames) if isinstance(frames, Sized) else None, "frame"):
            self.times.append(frame.time)
            yield frame

    def line(self, size_bytes: int) -> str:
        """What is said of the clip in a file of so many bytes."""
        from difflate.format.stream import duration

        clip = self._clip
        seconds = duration(self.times, clip.time_base, clip.rate)
        return clip_line(clip.width, clip.height, len(self.times), seconds, size_bytes)


def taken_as_clip(path: Path) -> bool:
    """Whether the file ``path`` is a clip by its name."""
    from difflate.media.video import is_clip

    return is_clip(path) and not path.is_dir()


def clips_in(folder: Path) -> list[Path]:
    """The files below ``folder`` that are clips by their names, but for hidden ones."""
    from difflate.data.images import files_in
    from difflate.media.video import CLIP_SUFFIXES

    return files_in(folder, CLIP_SUFFIXES, [])
