"""An autoencoder of clips as a codec: few latent frames, coded by those before, restored by its plain decoder.

    encode   frames ─ `VideoSpace.analyse` ─▶ latent frames ─ coder ─▶ group of a clip's file
    decode   frames ◀─ `VideoSpace.decode` ─ latent frames ◀─ coder ─ group

A group is a few latent frames in one stream: its first byte is the type of the section that an image would have. The
coders are those of `difflate.codecs.autoencoder`; what is between are `difflate.codecs.clips` and
`difflate.codecs.learned`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from difflate import registry
from difflate.codecs.autoencoder import coder_of, numbers_of
from difflate.codecs.indices import IndexCoder, Indices
from difflate.codecs.learned import LearnedCodec, as_grey
from difflate.codecs.transform import HyperpriorLatents
from difflate.entropy.latent import Latent
from difflate.errors import ConfigError, FormatError
from difflate.format import sections
from difflate.format.container import DflFile
from difflate.format.varints import Cursor, varint
from difflate.models.video_autoencoder import VideoAutoencoder
from difflate.models.video_space import ClipPast, VideoSpace
from difflate.nn.tiles import TILE_PX, Watch
from difflate.options import AutoencoderDecoding, Options
from difflate.store.folders import FolderModel

_GROUP = 4
"""Latent frames of a group: BITSTREAM."""


class FrameRestorer(Protocol):
    """Latent frames to frames, perhaps by noise and steps; tolerances hold here, not bits."""

    def check(self, options: Any) -> None:
        """Raises ConfigError for options that the model has no use for: a file keeps what it is asked for."""
        ...

    def restore(self, latent: Tensor, frames: int, header: DflFile, options: Any, past: ClipPast) -> Tensor:
        """(``frames``, 3, H, W) uint8 on the CPU of ``latent: (C, h, w)``, as files have it."""
        ...


class VideoAutoencoderCodec(LearnedCodec):
    """Clips to .dfl files and back, with a `VideoAutoencoder`."""

    space: VideoSpace

    def __init__(self, kind: str, space: VideoSpace, restorer: FrameRestorer, defaults: Options):
        """``kind``: its row in the registry. Raises ModelError if what is coded with does not fit the networks."""
        coder = coder_of(space.autoencoder)
        groups = LatentGroups(space.eval(), coder, restorer)
        super().__init__(space.name, registry.KINDS[kind], space.fingerprint, space, coder, groups, defaults)
        self.groups = groups

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The codec of a model's folder. Raises ModelError if a file is missing, or altered since it was written."""
        space = VideoSpace(folder.name, VideoAutoencoder.from_pretrained(folder))
        return cls("video-autoencoder", space, PlainFrames(space), AutoencoderDecoding(tile_px=TILE_PX))

    @property
    def model(self) -> FolderModel:
        """All networks."""
        return self.space.video

    def write_pixels(self, pixels: Sequence[np.ndarray], quality: float | None, options: Any) -> NoReturn:
        raise ConfigError(f"{self.name} codes clips, not images; use encode_clip, or take diffae-small for an image")


class PlainFrames:
    """What the plain decoder makes of latent frames."""

    def __init__(self, space: VideoSpace):
        self.space = space

    def check(self, options: Any) -> None:
        """See `FrameRestorer`."""

    def restore(self, latent: Tensor, frames: int, header: DflFile, options: Any, past: ClipPast) -> Tensor:
        """See `FrameRestorer`."""
        return self.space.decode(latent, frames, header.height, header.width, options.tile_px, past)


@dataclass(frozen=True)
class LatentFrames:
    """What a file holds of a group."""

    frames: Sequence[Indices | Latent]

    def symbols(self) -> bytes:
        """Those of one latent frame after the other."""
        return b"".join(frame.symbols() for frame in self.frames)


@dataclass(frozen=True)
class LatentGroups:
    """A `difflate.codecs.clips.GroupCoder` of latent frames."""

    space: VideoSpace
    coder: IndexCoder | HyperpriorLatents
    restorer: FrameRestorer

    @property
    def group_frames(self) -> int:
        """Of `_GROUP` latent frames."""
        return _GROUP * self.space.chunk_frames

    def writer(self, header: DflFile, quality: float | None, options: Any) -> _Writer:
        """See `difflate.codecs.clips.GroupCoder`. Raises ConfigError for options that the model has no use for."""
        self.restorer.check(options)
        if options.fixed_rate and not isinstance(self.coder, IndexCoder):
            raise ConfigError("`fixed_rate` (=True) has no meaning for a latent that is no indices; leave it out")
        return _Writer(self, options)

    def restore(
        self, latents: Sequence[Any], files: Sequence[DflFile], options: Any, watch: Watch | None = None
    ) -> NoReturn:
        raise FormatError("the file has an image, and its model is one of clips; get an intact copy of it")

    def reader(self, header: DflFile) -> _Reader:
        """See `difflate.codecs.clips.GroupCoder`."""
        return _Reader(self, header)


class _Writer:
    """Indices look back at the last latent frame of the group before."""

    def __init__(self, groups: LatentGroups, options: Any):
        self.space, self.coder, self.options = groups.space, groups.coder, options
        self.past = ClipPast()
        self.last: np.ndarray | None = None

    def write(self, frames: np.ndarray) -> tuple[bytes, bytes]:
        coder, grey = self.coder, frames.shape[1] == 1
        pixels = torch.from_numpy(np.require(frames, requirements="W")).expand(-1, 3, -1, -1)
        chunks = pixels.split(self.space.chunk_frames)
        found = [self.space.analyse(chunk, self.options.tile_px, self.past) for chunk in chunks]
        if isinstance(coder, IndexCoder):
            grids = torch.stack(found).numpy().astype(np.uint16)
            section = sections.FIXED if self.options.fixed_rate else sections.CONTEXT
            data = coder.write_grids(grids, self.options.fixed_rate, past=self.last)
            self.last = grids[-1]
            return bytes([section]) + data, LatentFrames([Indices(grid) for grid in grids]).symbols()
        written = [coder.write(y, grey, None, self.options) for y in found]
        data = b"".join(varint(len(part)) + part for _, part, _ in written)
        return bytes([sections.LATENT]) + data, LatentFrames([latent for *_, latent in written]).symbols()


class _Reader:
    """Exact and free stage keep their pasts apart."""

    def __init__(self, groups: LatentGroups, header: DflFile):
        self.space, self.coder, self.restorer, self.header = groups.space, groups.coder, groups.restorer, header
        self.past = ClipPast()
        self.last: np.ndarray | None = None

    def read(self, group: bytes, frames: int) -> LatentFrames:
        coder, header, stride = self.coder, self.header, self.space.stride_px
        count = -(-frames // self.space.chunk_frames)
        size = -(-header.height // stride), -(-header.width // stride)
        section, data = group[0], group[1:]
        indices = isinstance(coder, IndexCoder)
        if section not in ((sections.CONTEXT, sections.FIXED) if indices else (sections.LATENT,)):
            raise FormatError(f"a group of the clip is of type {section}, which its model has not; get an intact copy")
        if isinstance(coder, IndexCoder):
            grids = coder.read_grids(data, count, *size, fixed_rate=section == sections.FIXED, past=self.last)
            self.last = grids[-1]
            return LatentFrames([Indices(grid) for grid in grids])
        cursor, latents = Cursor(data, "a group of the clip"), []
        for _ in range(count):
            latents.append(coder.read({section: cursor.take(cursor.varint())}, *size, header.grey))
        if cursor.left:
            raise FormatError(f"{cursor.left} bytes follow the latent frames of a group; get an intact copy")
        return LatentFrames(latents)

    def restore(self, latent: LatentFrames, frames: int, options: Any) -> np.ndarray:
        made: list[Tensor] = []
        for frame in latent.frames:
            count = min(self.space.chunk_frames, frames - sum(map(len, made)))
            made.append(self.restorer.restore(numbers_of(frame), count, self.header, options, self.past))
        pixels = torch.cat(made)
        if self.header.grey:
            pixels = torch.stack([as_grey(frame) for frame in pixels])
        return pixels.numpy()
