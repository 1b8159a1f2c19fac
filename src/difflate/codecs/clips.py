"""Clips to .dfl files and back, in groups of frames: one group is in memory, and what the next needs of it.

    frames ─ `GroupWriter.write` ─▶ group ─ section GROUPS ─ container ─▶ file
    frames ◀─ `GroupReader.restore` ─ latent ◀─ `GroupReader.read` ─ group ◀─ container ─ file

What all codecs of clips share is here: cutting frames into groups, times, limits, reading back what was written, the
checksum of all symbols. How a group is coded is a `GroupCoder`'s: a frame as a picture (`difflate.codecs.frames`), or
several together, told by those before.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from difflate.codecs.base import Latent
from difflate.errors import DesyncError, FormatError, ImageError, VerificationFailed
from difflate.format.container import DflFile, symbols_crc
from difflate.format.stream import ClipFile, write_clip_file
from difflate.limits import Limits
from difflate.media.clip import Clip, Frame


class GroupWriter(Protocol):
    """Codes the groups of one clip, in their order; keeps what the next one needs of those before."""

    def write(self, frames: np.ndarray) -> tuple[bytes, bytes]:
        """A group of ``frames: (T, 1 or 3, H, W)`` uint8, T up to `GroupCoder.group_frames`: its bytes, of which the
        first is the type of a section (`difflate.format.sections`) and the others are its data, and its symbols."""
        ...


class GroupReader(Protocol):
    """Decodes the groups of one clip, in their order.

    Either `read` alone is called, for each group, or `restore` after each `read`: what is exact keeps its own state
    and must not depend on what is restored.
    """

    def read(self, group: bytes, frames: int) -> Latent:
        """The latent of a group of so many frames: the exact stage. Raises FormatError."""
        ...

    def restore(self, latent: Any, frames: int, options: Any) -> np.ndarray:
        """(T, 1 or 3, H, W) uint8, T = ``frames``: the free stage. Raises ConfigError, ModelError."""
        ...


class GroupCoder(Protocol):
    """How a codec codes groups of frames."""

    @property
    def group_frames(self) -> int:
        """Of each group of a clip but the last, which has what is left."""
        ...

    def writer(self, header: DflFile, quality: float | None, options: Any) -> GroupWriter:
        """For one clip of the size that ``header`` says, whose sections are those that hold for all frames: the hints.

        ``options``: those of encoding.
        """
        ...

    def reader(self, header: DflFile) -> GroupReader:
        """For one clip; ``header`` as above."""
        ...


def encode(
    coder: GroupCoder, clip: Clip, header: DflFile, quality: float | None, options: Any, limits: Limits
) -> bytes:
    """The bytes of the .dfl file of ``clip``, each group read back before the next one is coded.

    Raises ImageError for frames that a clip cannot have, LimitExceeded, VerificationFailed.
    """
    writer, reader = coder.writer(header, quality, options), coder.reader(header)
    times: list[int] = []
    groups: list[bytes] = []
    crc = symbols_crc(b"")
    for frames in _batches(_checked(clip, times, limits), coder.group_frames):
        group, symbols = writer.write(frames)
        if reader.read(group, len(frames)).symbols() != symbols:
            raise VerificationFailed("what was coded does not read back, a defect in difflate; please report it")
        crc = symbols_crc(symbols, crc)
        groups.append(group)
    if not groups:
        raise ImageError("a clip has no frames; give at least one")
    return write_clip_file(
        replace(header, symbols_crc=crc),
        clip.rate,
        clip.time_base,
        times,
        coder.group_frames,
        groups,
        clip.audio,
        limits,
    )


def decode(coder: GroupCoder, file: ClipFile, options: Any) -> Clip:
    """The clip in ``file``, decoded as its frames are asked for. Raises FormatError."""
    _check_groups(coder, file)
    header, stream = file.header, file.stream
    return Clip(
        header.width, header.height, 1 if header.grey else 3, stream.rate, stream.time_base,
        _Decoded(coder, file, options), file.audio, file.notes,
    )  # fmt: skip


def latents(coder: GroupCoder, file: ClipFile) -> Iterator[tuple[Latent, int]]:
    """The latent of each group, and its frames: the exact stage of all, checked by the symbols' checksum at its end.

    Raises FormatError.
    """
    _check_groups(coder, file)
    return _latents(coder.reader(file.header), file)


def _latents(reader: GroupReader, file: ClipFile) -> Iterator[tuple[Latent, int]]:
    crc, last = symbols_crc(b""), len(file.stream.groups) - 1
    for number, (group, frames) in enumerate(file.counted_groups()):
        latent = reader.read(group, frames)
        crc = symbols_crc(latent.symbols(), crc)
        if number == last and file.symbols_crc not in (None, crc):
            raise DesyncError("the symbols decode to others than were written; report this with the file")
        yield latent, frames


@dataclass(frozen=True)
class _Decoded:
    """The frames of a clip's file, decoded anew each time they are gone through."""

    coder: GroupCoder
    file: ClipFile
    options: Any

    def __len__(self) -> int:
        return self.file.frames

    def __iter__(self) -> Iterator[Frame]:
        reader, times = self.coder.reader(self.file.header), iter(self.file.stream.times)
        for latent, frames in _latents(reader, self.file):
            for pixels in reader.restore(latent, frames, self.options):
                yield Frame(pixels, next(times))


def _check_groups(coder: GroupCoder, file: ClipFile) -> None:
    """Raises FormatError for groups of more frames than the model makes."""
    if file.stream.group_frames != coder.group_frames:
        raise FormatError(
            f"the clip has groups of {file.stream.group_frames} frames, its model of {coder.group_frames}; get an "
            "intact copy of the file"
        )


def _checked(clip: Clip, times: list[int], limits: Limits) -> Iterator[np.ndarray]:
    """The pixels of the frames of ``clip``, whose times go to ``times``. Raises ImageError, LimitExceeded."""
    shape = (clip.channels, clip.height, clip.width)
    for number, (pixels, time) in enumerate(clip.frames):
        limits.check_frames(number + 1, clip.width, clip.height)
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise ImageError(f"frame {number} is {pixels.shape} {pixels.dtype}, not {shape} uint8 as the clip says")
        if times and time <= times[-1]:
            raise ImageError(f"frame {number} is shown at {time}, not after the one before it, at {times[-1]}")
        times.append(int(time))
        yield pixels


def _batches(frames: Iterable[np.ndarray], most: int) -> Iterator[np.ndarray]:
    """(T, C, H, W), T up to ``most``."""
    rest = iter(frames)
    while batch := list(itertools.islice(rest, most)):
        yield np.stack(batch)
