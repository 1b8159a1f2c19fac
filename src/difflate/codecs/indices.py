"""The parts of codecs with a finite latent space: indices, coded by context or at a fixed rate, looked up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difflate.codecs.batches import as_batch, as_images
from difflate.codecs.learned import LearnedCodec, as_grey, largest
from difflate.entropy import ContextModel, SymbolReader, SymbolWriter
from difflate.entropy.fixed_rate import pack, packed_bytes, unpack
from difflate.errors import FormatError
from difflate.format import sections
from difflate.format.container import DflFile
from difflate.models.latent_space import LatentSpace
from difflate.models.refiner import load_refiner
from difflate.nn.tiles import TILE_PX, Watch
from difflate.options import IndexDecoding, Options
from difflate.registry import Kind


class IndexCodec(LearnedCodec):
    """A codec of any `LatentSpace`, which is its `space`."""

    space: LatentSpace

    def __init__(self, name: str, kind: Kind, space: LatentSpace, context: ContextModel, neutral: Mapping[int, int]):
        """``context``: for the planes of ``space``. ``neutral``: planes that grey pictures leave out; their index."""
        super().__init__(name, kind, space.fingerprint, space, IndexCoder(context, neutral, space.sizes), LookUp(space))

    def analyse(self, pixels: Sequence[Tensor], quality: float | None, options: Options) -> list[Tensor]:
        return list(self.space.to_latent(as_images(pixels, self.space.stride_px)).cpu())

    def to_latent(self, images: Tensor) -> Tensor:
        """(B, C, ⌈H/stride⌉, ⌈W/stride⌉) int64 indices of ``images: (B, 3, H, W)`` uint8 RGB. Raises ConfigError."""
        return self.space.to_latent(images)

    def from_latent(self, latent: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
        """(B, 3, H, W) uint8 RGB of ``latent: (B, C, h, w)`` int64, cropped if a size is given. Raises ConfigError."""
        return self.space.from_latent(latent, height, width)


@dataclass(frozen=True)
class Indices:
    """What a file holds of a picture."""

    grid: np.ndarray
    """(C, h, w) uint16."""

    def symbols(self) -> bytes:
        """Plane after plane, as little-endian 16-bit integers."""
        return self.grid.astype("<u2").tobytes()


class IndexCoder:
    """Planes of indices to bytes and back."""

    def __init__(self, context: ContextModel, neutral: Mapping[int, int], sizes: Sequence[int]):
        """``neutral``: planes that are not coded where a picture is grey, with the index that stands all over them.
        ``sizes``: how many indices each plane has; where that is no power of two, more could be written."""
        self.context, self.neutral, self.sizes = context, dict(neutral), list(sizes)

    def write(self, analysed: Tensor, grey: bool, quality: float | None, options: Any) -> tuple[int, bytes, Indices]:
        """``analysed``: (C, h, w) int64; see `difflate.codecs.learned.LatentCoder`."""
        grid = analysed.cpu().numpy().astype(np.uint16)
        given = self.neutral if grey else {}
        for plane, index in given.items():
            grid[plane] = index
        section = sections.FIXED if options.fixed_rate else sections.CONTEXT
        return section, self.write_grids(grid[None], options.fixed_rate, given), Indices(grid)

    def write_grids(
        self, grids: np.ndarray, fixed_rate: bool = False, given: Mapping[int, int] | None = None,
        past: np.ndarray | None = None,
    ) -> bytes:  # fmt: skip
        """One stream of ``grids: (T, P, h, w)`` of indices, each told by the one before where the model looks back.

        ``given``: planes that hold one index all over and are not coded. ``past``: (P, h, w), the last grid of the
        stream before; None: this one is read without another. Raises ValueError if an index is too large for its plane.
        """
        if fixed_rate:
            planes = [(plane, bits) for grid in grids for plane, bits in self._coded(grid, given or {})]
            return b"".join(pack(plane, bits) for plane, bits in planes)
        writer = SymbolWriter()
        self.context.encode_sequence(grids, writer, given, past)
        return writer.finish()

    def read_grids(
        self, data: bytes, count: int, rows: int, columns: int, fixed_rate: bool = False,
        given: Mapping[int, int] | None = None, past: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """(``count``, P, rows, columns) uint16, the inverse of `write_grids`, with the same ``given`` and ``past``.

        The caller has checked the size against its limits. Raises FormatError, DesyncError.
        """
        grids = np.empty((count, len(self.context.plane_bits), rows, columns), np.uint16)
        if fixed_rate:
            self._read_fixed(data, grids, given or {})
        else:
            self.context.decode_sequence(grids, SymbolReader(data), given, past)
        for p, size in enumerate(self.sizes):
            largest = grids[:, p].max(initial=0)
            if largest >= size:
                raise FormatError(f"an index (={largest}) is above the {size} of its plane; get an intact copy")
        return grids

    def read(self, kept: Mapping[int, bytes], rows: int, columns: int, grey: bool) -> Indices:
        """See `difflate.codecs.learned.LatentCoder`. Raises FormatError, DesyncError."""
        given = self.neutral if grey else {}
        coded, fixed = kept.get(sections.CONTEXT), kept.get(sections.FIXED)
        if coded is not None and fixed is not None:
            raise FormatError("the file has its indices twice; get an intact copy of it")
        data = fixed if coded is None else coded
        if data is None:
            raise FormatError("the file has no section with the image's indices")
        return Indices(self.read_grids(data, 1, rows, columns, coded is None, given)[0])

    def _coded(self, grid: np.ndarray, given: Mapping[int, int]) -> list[tuple[np.ndarray, int]]:
        """Planes of ``grid`` that are not ``given``, each with its bits."""
        planes = enumerate(zip(grid, self.context.plane_bits, strict=True))
        return [each for p, each in planes if p not in given]

    def _read_fixed(self, data: bytes, grids: np.ndarray, given: Mapping[int, int]) -> None:
        """Fills ``grids: (T, P, h, w)``."""
        planes = [each for grid in grids for each in self._coded(grid, given)]
        sizes = [packed_bytes(plane.size, bits) for plane, bits in planes]
        if sum(sizes) != len(data):
            raise FormatError(f"the indices take {len(data)} bytes where the header asks for {sum(sizes)}")
        start = 0
        for (plane, bits), size in zip(planes, sizes, strict=True):
            plane[...] = unpack(data[start : start + size], bits, plane.size).reshape(plane.shape)
            start += size
        for p, index in given.items():
            grids[:, p] = index


class LookUp:
    """The codewords of the indices; improved by a `Refiner` where one is asked for."""

    def __init__(self, space: LatentSpace):
        self.space = space

    def restore(
        self, latents: Sequence[Indices], files: Sequence[DflFile], options: IndexDecoding, watch: Watch | None = None
    ) -> Tensor:
        """See `difflate.codecs.learned.Restorer`. Raises ModelError if there is no refiner for this codec."""
        refiner = load_refiner(self.space, options.refiner) if options.refines else None
        grids = torch.from_numpy(as_batch([latent.grid for latent in latents]).astype(np.int64))
        images = self.space.from_latent(grids, *largest(files)).cpu()
        if refiner is None:
            return images
        refined = torch.empty_like(images)  # whose margins, of smaller images, are not looked at
        for image, target, file in zip(images, refined, files, strict=True):
            rgb = image[:, : file.height, : file.width]
            if file.grey:  # the neutral patches are not quite
                rgb = as_grey(rgb).expand(3, -1, -1)
            tile_px = TILE_PX if options.tile_px is None else options.tile_px
            target[:, : file.height, : file.width] = refiner.refine(rgb[None], tile_px=tile_px)[0]
        return refined
