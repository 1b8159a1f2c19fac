"""The parts of codecs with a finite latent space: indices, coded by context or at a fixed rate, looked up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difflate.codecs.learned import LearnedCodec, as_grey
from difflate.entropy import ContextModel, SymbolReader, SymbolWriter
from difflate.entropy.fixed_rate import pack, packed_bytes, unpack
from difflate.errors import FormatError
from difflate.format import sections
from difflate.format.container import DflFile
from difflate.models.latent_space import LatentSpace
from difflate.models.refiner import load_refiner
from difflate.nn.tiles import TILE_PX
from difflate.options import IndexDecoding, Options
from difflate.registry import Kind


class IndexCodec(LearnedCodec):
    """A codec of any `LatentSpace`, which is its `space`."""

    space: LatentSpace

    def __init__(self, name: str, kind: Kind, space: LatentSpace, context: ContextModel, neutral: Mapping[int, int]):
        """``context``: for the planes of ``space``. ``neutral``: planes that grey pictures leave out; their index."""
        super().__init__(name, kind, space.fingerprint, space, IndexCoder(context, neutral, space.sizes), LookUp(space))

    def analyse(self, pixels: Tensor, quality: float | None, options: Options) -> Tensor:
        return self.space.to_latent(pixels.expand(3, -1, -1)[None])[0]

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
        if options.fixed_rate:
            planes = enumerate(zip(grid, self.context.plane_bits, strict=True))
            return (
                sections.FIXED,
                b"".join(pack(plane, bits) for p, (plane, bits) in planes if p not in given),
                Indices(grid),
            )
        writer = SymbolWriter()
        self.context.encode(grid, writer, given)
        return sections.CONTEXT, writer.finish(), Indices(grid)

    def read(self, kept: Mapping[int, bytes], rows: int, columns: int, grey: bool) -> Indices:
        """See `difflate.codecs.learned.LatentCoder`. Raises FormatError, DesyncError."""
        given = self.neutral if grey else {}
        coded, fixed = kept.get(sections.CONTEXT), kept.get(sections.FIXED)
        if coded is not None and fixed is not None:
            raise FormatError("the file has its indices twice; get an intact copy of it")
        if coded is not None:
            grid = self.context.decode(rows, columns, SymbolReader(coded), given).astype(np.uint16)
        elif fixed is not None:
            grid = self._read_fixed(fixed, rows, columns, given)
        else:
            raise FormatError("the file has no section with the image's indices")
        for plane, size in zip(grid, self.sizes, strict=True):
            if plane.size and plane.max() >= size:
                raise FormatError(f"an index (={plane.max()}) is above the {size} of its plane; get an intact copy")
        return Indices(grid)

    def _read_fixed(self, data: bytes, rows: int, columns: int, given: Mapping[int, int]) -> np.ndarray:
        plane_bits = self.context.plane_bits
        grid = np.empty((len(plane_bits), rows, columns), np.uint16)
        sizes = [0 if p in given else packed_bytes(rows * columns, bits) for p, bits in enumerate(plane_bits)]
        if sum(sizes) != len(data):
            raise FormatError(f"the indices take {len(data)} bytes where the header asks for {sum(sizes)}")
        start = 0
        for p, (bits, size) in enumerate(zip(plane_bits, sizes, strict=True)):
            if p in given:
                grid[p] = given[p]
            else:
                grid[p] = unpack(data[start : start + size], bits, rows * columns).reshape(rows, columns)
            start += size
        return grid


class LookUp:
    """The codewords of the indices; improved by a `Refiner` where one is asked for."""

    def __init__(self, space: LatentSpace):
        self.space = space

    def restore(self, latent: Indices, file: DflFile, options: IndexDecoding) -> Tensor:
        """See `difflate.codecs.learned.Restorer`. Raises ModelError if there is no refiner for this codec."""
        refiner = load_refiner(self.space, options.refiner) if options.refines else None
        grid = torch.from_numpy(latent.grid.astype(np.int64))
        rgb = self.space.from_latent(grid[None], file.height, file.width)[0].cpu()
        if refiner is None:
            return rgb
        if file.grey:  # the neutral patches are not quite
            rgb = as_grey(rgb).expand(3, -1, -1)
        return refiner.refine(rgb[None], tile_px=TILE_PX if options.tile_px is None else options.tile_px)[0]
