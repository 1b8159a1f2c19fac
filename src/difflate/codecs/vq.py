"""The model-based codec: patches of Y, Cr and Cb, vector quantized.

Scribano, Pezzi, Franchini, Prato: Denoising Diffusion Models on Model-Based Latent Space, Algorithms 2023, 16, 501,
sections 3.1 and 3.2.1. Read `VqCodec.encode` and `VqCodec.decode` side by side; the lossless coding of the indices
(`difflate.entropy.context`) is an addition to the paper.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from difflate.codecs.base import check_quality
from difflate.codecs.beside import picture_of, sections_beside
from difflate.entropy import ContextModel, SymbolReader, SymbolWriter
from difflate.errors import ConfigError, DesyncError, FormatError, ModelError, VerificationFailed
from difflate.format import container
from difflate.format.container import DflFile, read_dfl, symbols_crc, write_dfl
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture
from difflate.models.refiner import Refiner, load_refiner
from difflate.nn.colour import rgb_to_ycrcb, to_uint8, ycrcb_to_rgb, ycrcb_to_signed_rgb
from difflate.nn.padding import pad_to_multiple
from difflate.nn.patches import from_patches, to_patches
from difflate.nn.tiles import TILE_PX
from difflate.quantize import Quantizer
from difflate.store.fingerprint import fingerprint

_BAND_PATCHES = 1 << 10
"""Patches of a channel that are in work at a time: bounds the memory of large images, and keeps that of small ones in
the cache (decoding 512x512 pixels is 3 times faster than in one piece)."""


class VqCodec(nn.Module):
    """Codes each s x s patch of each channel as the indices of its nearest codewords.

    Latent planes, C in all: those of Y, then of Cr, then of Cb, one per codebook (OPQ-32-8-8: 4 + 1 + 1).
    """

    suffix = ".dfl"
    quality_range: tuple[float, float, float] | None = None

    def __init__(
        self, name: str, patch_px: int, quantizers: Sequence[Quantizer], neutral: Sequence[int], context: ContextModel
    ):
        """``quantizers``: for Y, Cr, Cb. ``neutral``: index of a patch without colour for each Cr and Cb plane."""
        super().__init__()
        self.name = name
        self.patch_px = patch_px
        self.quantizers = nn.ModuleList(quantizers)
        self.context = context
        self.luma_planes = len(quantizers[0].sizes)
        self.neutral = {self.luma_planes + i: int(v) for i, v in enumerate(neutral)}

    @property
    def codebook_sizes(self) -> list[int]:
        """Codewords of each latent plane's codebook, C numbers."""
        return [size for q in self.quantizers for size in q.sizes]  # type: ignore[union-attr]

    @property
    def sizes(self) -> list[int]:
        """As `difflate.models.latent_space.LatentSpace` has it."""
        return self.codebook_sizes

    @property
    def stride_px(self) -> int:
        """As `difflate.models.latent_space.LatentSpace` has it."""
        return self.patch_px

    @property
    def space(self) -> VqCodec:
        """The latent space of the codec."""
        return self

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def architecture(self) -> str:
        """What, beside the tensors, the meaning of a file's symbols depends on."""
        # BITSTREAM: part of the fingerprint, class names included
        kinds = [type(q).__name__ for q in self.quantizers]
        return f"vq patch={self.patch_px} quantizers={kinds} sizes={self.codebook_sizes} neutral={self.neutral}"

    def exact_tensors(self) -> dict[str, np.ndarray]:
        """Codebooks and context model: change one and old files mean something else."""
        state = self.quantizers.state_dict()
        tensors = {f"quantizers.{k}": np.ascontiguousarray(v.cpu().numpy()) for k, v in state.items()}
        return tensors | {f"context.{k}": v for k, v in self.context.tensors.items()}

    @functools.cached_property
    def fingerprint(self) -> bytes:
        """(32 bytes) what tells this model from others, see `difflate.store.fingerprint`."""
        return fingerprint(self.architecture(), self.exact_tensors())

    @property
    def model_id(self) -> bytes:
        """(4 bytes) the first of the fingerprint; stands in each file."""
        return self.fingerprint[:4]

    # -- pixels and latents ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def to_latent(self, images: Tensor) -> Tensor:
        """(B, C, ceil(H/s), ceil(W/s)) int64 indices of ``images: (B, 3, H, W)`` uint8 RGB.

        Indices of plane c are below ``codebook_sizes[c]``. Where s does not divide a side, the edge is repeated.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ConfigError(f"images ({tuple(images.shape)}, {images.dtype}) must be (B, 3, H, W) uint8")
        bands = [self._latent_band(band) for band in self._bands(images, self.patch_px)]
        return torch.cat(bands, dim=2)

    def _latent_band(self, images: Tensor) -> Tensor:
        size = self.patch_px
        channels = rgb_to_ycrcb(pad_to_multiple(images.to(self.device), size))
        b, _, height, width = channels.shape
        codes = [
            q.encode(to_patches(channels[:, c], size)).reshape(b, height // size, width // size, -1)
            for c, q in enumerate(self._quantizers())
        ]
        return torch.cat(codes, dim=3).permute(0, 3, 1, 2)

    @torch.no_grad()
    def from_latent(self, latent: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
        """(B, 3, H, W) uint8 RGB of ``latent: (B, C, h, w)`` int64, cropped to ``height``, ``width`` if given.

        Raises ConfigError if the planes or indices are not those of this codec.
        """
        sizes = torch.tensor(self.codebook_sizes, device=latent.device)[:, None]
        if latent.ndim != 4 or latent.shape[1] != len(sizes):
            raise ConfigError(f"latent ({tuple(latent.shape)}) must be (B, {len(sizes)}, h, w)")
        if latent.numel() and bool(((latent < 0) | (latent >= sizes[:, :, None])).any()):
            raise ConfigError(f"an index of the latent is outside its codebook (sizes {self.codebook_sizes})")
        bands = [self._image_band(band) for band in self._bands(latent, 1)]
        return torch.cat(bands, dim=2)[:, :, :height, :width]

    def _image_band(self, latent: Tensor) -> Tensor:
        b, _, rows, columns = latent.shape
        codes = latent.to(self.device).permute(0, 2, 3, 1).reshape(b * rows * columns, -1)
        planes, used = [], 0
        for q in self._quantizers():
            patches = q.decode(codes[:, used : used + len(q.sizes)])
            planes.append(from_patches(patches, self.patch_px, b, rows, columns))
            used += len(q.sizes)
        return ycrcb_to_rgb(torch.stack(planes, dim=1))

    def from_codewords(self, codewords: Sequence[Tensor]) -> Tensor:
        """(B, 3, H, W) float32 RGB in about [-1, 1], not clamped, of C ``codewords: (B, n_c, h, w)``; differentiable.

        Plane c's are of its codebook, or mixtures of it (Scribano et al. 2023, Eq. 21).
        """
        b, _, rows, columns = codewords[0].shape
        flat = [words.permute(0, 2, 3, 1).flatten(0, 2) for words in codewords]
        planes, used = [], 0
        for q in self._quantizers():
            patches = q.join(flat[used : used + len(q.sizes)])
            planes.append(from_patches(patches, self.patch_px, b, rows, columns))
            used += len(q.sizes)
        return ycrcb_to_signed_rgb(torch.stack(planes, dim=1))

    @property
    def codebooks(self) -> list[Tensor]:
        """C of (K_c, n_c) float32: those of the latent's planes."""
        return [book for q in self._quantizers() for book in q.codebooks]

    def _bands(self, images: Tensor, patch: int) -> Sequence[Tensor]:
        """Horizontal bands of whole patch rows, about `_BAND_PATCHES` patches each."""
        per_row = max(1, images.shape[0] * -(-images.shape[3] // patch))
        return images.split(max(1, _BAND_PATCHES // per_row) * patch, dim=2)

    def _quantizers(self) -> list[Quantizer]:
        return list(self.quantizers)  # type: ignore[arg-type]

    # -- pictures and files ------------------------------------------------------------------------------------------

    def encode(
        self,
        picture: Picture,
        *,
        quality: float | None = None,
        limits: Limits = DEFAULT_LIMITS,
        fixed_rate: bool = False,
    ) -> bytes:
        """The bytes of a .dfl file.

        ``fixed_rate``: exactly the codec's bits per patch, as in the paper, instead of context coding.
        Raises ConfigError (this codec has one quality), LimitExceeded, VerificationFailed (the encoder reads its own
        symbols back before it returns).
        """
        check_quality(self, quality)
        limits.check_size(picture.width, picture.height)
        grey = picture.pixels.shape[0] == 1
        rgb = torch.from_numpy(np.broadcast_to(picture.pixels, (3, picture.height, picture.width)).copy())
        grid = self.to_latent(rgb[None])[0].cpu().numpy().astype(np.uint16)
        if grey:
            for plane, index in self.neutral.items():
                grid[plane] = index
        symbols = self._write_symbols(grid, grey, fixed_rate)
        kind = container.SECTION_FIXED if fixed_rate else container.SECTION_CONTEXT
        _, rows, columns = grid.shape
        if not np.array_equal(self._read_symbols(symbols, kind, rows, columns, grey), grid):
            raise VerificationFailed("the coded indices do not read back, a defect in difflate; please report it")
        file = DflFile(
            codec=container.CODEC_VQ,
            model_id=self.model_id,
            width=picture.width,
            height=picture.height,
            grey=grey,
            symbols_crc=symbols_crc(grid.astype("<u2").tobytes()),
            sections=((kind, symbols), *sections_beside(picture)),
        )
        return write_dfl(file, limits)

    def decode(
        self,
        data: bytes,
        *,
        limits: Limits = DEFAULT_LIMITS,
        refine: bool = False,
        refiner: str | Path | Refiner | None = None,
        tile_px: int | None = None,
    ) -> Picture:
        """The picture in a .dfl file.

        ``refine``: improved by the bundled refiner, or by ``refiner``, one that is loaded or the folder of one.
        ``tile_px``: side of the tiles that it works in. Raises FormatError, ModelError (another model wrote the file,
        or there is no refiner for it), LimitExceeded, ConfigError.
        """
        file = read_dfl(data, limits)
        grid = self.read_latent(file)
        found = load_refiner(self, refiner) if refine or refiner is not None else None
        if found is None and tile_px is not None:
            raise ConfigError(f"--tile has no meaning for {self.name} without --refine; leave it out")
        latent = torch.from_numpy(grid.astype(np.int64))[None]
        rgb = self.from_latent(latent, file.height, file.width).cpu()
        if found is not None:
            if file.grey:  # the neutral patches are not quite
                rgb = to_uint8(rgb.float().mean(dim=1, keepdim=True)).expand(-1, 3, -1, -1)
            rgb = found.refine(rgb, tile_px=TILE_PX if tile_px is None else tile_px)
        return picture_of(file, rgb[0])

    def read_latent(self, file: DflFile) -> np.ndarray:
        """(C, h, w) uint16 indices of a file: the exact stage of decoding, checked by the symbols' checksum."""
        if file.codec != container.CODEC_VQ or file.model_id != self.model_id:
            raise ModelError(
                f"written with model {file.model_id.hex()}, not with {self.name} ({self.model_id.hex()}); "
                "name the folder of the right model"
            )
        if file.section(container.SECTION_CONTEXT) is not None and file.section(container.SECTION_FIXED) is not None:
            raise FormatError("the file has its indices twice; get an intact copy of it")
        rows, columns = -(-file.height // self.patch_px), -(-file.width // self.patch_px)
        for kind in (container.SECTION_CONTEXT, container.SECTION_FIXED):
            data = file.section(kind)
            if data is not None:
                grid = self._read_symbols(data, kind, rows, columns, file.grey)
                if symbols_crc(grid.astype("<u2").tobytes()) != file.symbols_crc:
                    raise DesyncError("the indices decode to others than were written; report this with the file")
                return grid
        raise FormatError("the file has no section with the image's indices")

    def _given(self, grey: bool) -> Mapping[int, int]:
        """Planes that a grey image does not code, with the index that stands all over them."""
        return self.neutral if grey else {}

    def _write_symbols(self, grid: np.ndarray, grey: bool, fixed_rate: bool) -> bytes:
        if fixed_rate:
            given = self._given(grey)
            return b"".join(
                _pack(plane, bits)
                for p, (plane, bits) in enumerate(zip(grid, self.context.plane_bits, strict=True))
                if p not in given
            )
        writer = SymbolWriter()
        self.context.encode(grid, writer, self._given(grey))
        return writer.finish()

    def _read_symbols(self, data: bytes, kind: int, rows: int, columns: int, grey: bool) -> np.ndarray:
        given = self._given(grey)
        if kind == container.SECTION_CONTEXT:
            return self.context.decode(rows, columns, SymbolReader(data), given).astype(np.uint16)
        plane_bits = self.context.plane_bits
        grid = np.empty((len(plane_bits), rows, columns), np.uint16)
        sizes = [0 if p in given else -(-rows * columns * bits // 8) for p, bits in enumerate(plane_bits)]
        if sum(sizes) != len(data):
            raise FormatError(f"the indices take {len(data)} bytes where the header asks for {sum(sizes)}")
        start = 0
        for p, (bits, size) in enumerate(zip(plane_bits, sizes, strict=True)):
            if p in given:
                grid[p] = given[p]
            else:
                grid[p] = _unpack(data[start : start + size], bits, rows * columns).reshape(rows, columns)
            start += size
        return grid


def _pack(values: np.ndarray, bits: int) -> bytes:
    """``values``, integers below 2**bits, most significant bit first, the last byte filled with zeros."""
    wide = values.ravel().astype(">u2").view(np.uint8).reshape(-1, 2)
    return np.packbits(np.unpackbits(wide, axis=1)[:, 16 - bits :]).tobytes()


def _unpack(data: bytes, bits: int, count: int) -> np.ndarray:
    """(count,) uint16, the inverse of `_pack`."""
    narrow = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits).reshape(count, bits)
    wide = np.zeros((count, 16), np.uint8)
    wide[:, 16 - bits :] = narrow
    return np.packbits(wide, axis=1).view(">u2").ravel().astype(np.uint16)
