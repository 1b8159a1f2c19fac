"""Clips as a codec of pictures codes them: each frame by itself, in a group of its own.

A group is the type of a section and its data, as in the file of that picture. What a file says once for all frames,
such as the steps and the seed of diffusion, holds for each: all are restored from the same noise, so frames that are
equal in the file stay equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from difflate.codecs.base import Latent
from difflate.errors import FormatError
from difflate.format import sections
from difflate.format.container import DflFile


class PictureCoder(Protocol):
    """What is asked of `difflate.codecs.learned.LearnedCodec`."""

    def write_pixels(
        self, pixels: Sequence[np.ndarray], quality: float | None, options: Any
    ) -> list[tuple[int, bytes, bytes]]: ...

    def read_pixels(self, kept: Mapping[int, bytes], height: int, width: int, grey: bool) -> Latent: ...

    def restore_pixels(self, latents: Sequence[Any], files: Sequence[DflFile], options: Any) -> list[Any]: ...


@dataclass(frozen=True)
class FrameByFrame:
    """A `difflate.codecs.clips.GroupCoder` of groups of one frame."""

    codec: PictureCoder
    group_frames: int = 1

    def writer(self, header: DflFile, quality: float | None, options: Any) -> _Writer:
        """See `difflate.codecs.clips.GroupCoder`."""
        return _Writer(self.codec, quality, options)

    def reader(self, header: DflFile) -> _Reader:
        """See `difflate.codecs.clips.GroupCoder`."""
        return _Reader(self.codec, header)


@dataclass(frozen=True)
class _Writer:
    codec: PictureCoder
    quality: float | None
    options: Any

    def write(self, frames: np.ndarray) -> tuple[bytes, bytes]:
        ((number, data, symbols),) = self.codec.write_pixels([frames[0]], self.quality, self.options)
        return bytes([number]) + data, symbols


@dataclass(frozen=True)
class _Picture:
    """A frame as the file of a picture."""

    latent: Latent
    file: DflFile

    def symbols(self) -> bytes:
        return self.latent.symbols()


@dataclass(frozen=True)
class _Reader:
    codec: PictureCoder
    header: DflFile

    def read(self, group: bytes, frames: int) -> _Picture:
        number, data = group[0], group[1:]
        if number not in sections.PIXELS:
            raise FormatError(f"a frame of the clip is in a section of type {number}; get an intact copy of the file")
        header = self.header
        latent = self.codec.read_pixels({number: data}, header.height, header.width, header.grey)
        return _Picture(latent, replace(header, sections=((number, data), *header.sections)))

    def restore(self, latent: _Picture, frames: int, options: Any) -> np.ndarray:
        (frame,) = self.codec.restore_pixels([latent.latent], [latent.file], options)
        return frame.numpy()[None]
