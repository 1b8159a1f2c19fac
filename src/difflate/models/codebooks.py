"""The latent space of the model-based codec: patches of Y, Cr and Cb, each the index of its nearest codeword.

Scribano, Pezzi, Franchini, Prato: Denoising Diffusion Models on Model-Based Latent Space, Algorithms 2023, 16, 501,
sections 3.1 and 3.2.1. The context model that codes the indices without loss is an addition to the paper.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from difflate.entropy import ContextModel
from difflate.errors import ConfigError, ModelError
from difflate.files import atomic_write
from difflate.nn.colour import rgb_to_ycrcb, ycrcb_to_rgb, ycrcb_to_signed_rgb
from difflate.nn.padding import pad_to_multiple
from difflate.nn.patches import from_patches, to_patches
from difflate.quantize import ProductQuantizer, Quantizer, ResidualQuantizer
from difflate.store.config import CARD, CONFIG, read_config
from difflate.store.deflated import load_arrays, save_arrays
from difflate.store.fingerprint import fingerprint

KIND = "vq"
WEIGHTS = "model.safetensors"

_BAND_PATCHES = 1 << 10
"""Patches of a channel that are in work at a time: bounds the memory of large images, and keeps that of small ones in
the cache (decoding 512x512 pixels is 3 times faster than in one piece)."""


class CodebookModel(nn.Module):
    """Each s x s patch of each channel as the indices of its nearest codewords: a `LatentSpace`.

    Latent planes, C in all: those of Y, then of Cr, then of Cb, one per codebook (OPQ-32-8-8: 4 + 1 + 1).
    """

    def __init__(
        self, name: str, patch_px: int, quantizers: Sequence[Quantizer], neutral: Sequence[int], context: ContextModel
    ):
        """``quantizers``: for Y, Cr, Cb. ``neutral``: index of a patch without colour for each Cr and Cb plane."""
        super().__init__()
        self.name = name
        self.stride_px = patch_px
        self.quantizers = nn.ModuleList(quantizers)
        self.context = context
        self.luma_planes = len(quantizers[0].sizes)
        self.neutral = {self.luma_planes + i: int(v) for i, v in enumerate(neutral)}
        self.fingerprint = fingerprint(self.architecture(), self.exact_tensors())
        """(32 bytes) what tells this model from others, see `difflate.store.fingerprint`."""

    @property
    def sizes(self) -> list[int]:
        """Codewords of each latent plane's codebook, C numbers."""
        return [size for q in self.quantizers for size in q.sizes]  # type: ignore[union-attr]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def architecture(self) -> str:
        """What, beside the tensors, the meaning of a file's symbols depends on."""
        # BITSTREAM: part of the fingerprint, class names included
        kinds = [type(q).__name__ for q in self.quantizers]
        return f"vq patch={self.stride_px} quantizers={kinds} sizes={self.sizes} neutral={self.neutral}"

    def exact_tensors(self) -> dict[str, np.ndarray]:
        """Codebooks and context model: change one and old files mean something else."""
        state = self.quantizers.state_dict()
        tensors = {f"quantizers.{k}": np.ascontiguousarray(v.cpu().numpy()) for k, v in state.items()}
        return tensors | {f"context.{k}": v for k, v in self.context.tensors.items()}

    @torch.no_grad()
    def to_latent(self, images: Tensor) -> Tensor:
        """(B, C, ceil(H/s), ceil(W/s)) int64 indices of ``images: (B, 3, H, W)`` uint8 RGB.

        Indices of plane c are below ``sizes[c]``. Where s does not divide a side, the edge is repeated.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ConfigError(f"images ({tuple(images.shape)}, {images.dtype}) must be (B, 3, H, W) uint8")
        bands = [self._latent_band(band) for band in self._bands(images, self.stride_px)]
        return torch.cat(bands, dim=2)

    def _latent_band(self, images: Tensor) -> Tensor:
        size = self.stride_px
        channels = rgb_to_ycrcb(pad_to_multiple(images.to(self.device), size))
        b, _, height, width = channels.shape
        codes = [
            q.encode(to_patches(channels[:, c], size)).reshape(b, height // size, width // size, -1)
            for c, q in enumerate(self._quantizers())
        ]
        return torch.cat(codes, dim=3).permute(0, 3, 1, 2)

    @torch.no_grad()
    def from_latent(self, latent: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
        """(B, 3, H, W) uint8 RGB of ``latent: (B, C, h, w)`` integers, cropped to ``height``, ``width`` if given.

        Raises ConfigError if the planes or indices are not those of this codec.
        """
        sizes = torch.tensor(self.sizes, device=latent.device)[:, None]
        if latent.ndim != 4 or latent.shape[1] != len(sizes):
            raise ConfigError(f"latent ({tuple(latent.shape)}) must be (B, {len(sizes)}, h, w)")
        if latent.is_floating_point():
            raise ConfigError(f"latent ({latent.dtype}) must be integers")
        latent = latent.long()
        if latent.numel() and bool(((latent < 0) | (latent >= sizes[:, :, None])).any()):
            raise ConfigError(f"an index of the latent is outside its codebook (sizes {self.sizes})")
        bands = [self._image_band(band) for band in self._bands(latent, 1)]
        return torch.cat(bands, dim=2)[:, :, :height, :width]

    def _image_band(self, latent: Tensor) -> Tensor:
        b, _, rows, columns = latent.shape
        codes = latent.to(self.device).permute(0, 2, 3, 1).reshape(b * rows * columns, -1)
        planes, used = [], 0
        for q in self._quantizers():
            patches = q.decode(codes[:, used : used + len(q.sizes)])
            planes.append(from_patches(patches, self.stride_px, b, rows, columns))
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
            planes.append(from_patches(patches, self.stride_px, b, rows, columns))
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

    def save(self, folder: Path, method: str, card: str) -> None:
        """Writes a model folder, each file complete or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "kind": KIND,
            "name": self.name,
            "method": method,
            "patch_px": self.stride_px,
            "neutral": list(self.neutral.values()),
            "plane_bits": self.context.plane_bits,
            "fingerprint": self.fingerprint.hex(),
        }
        save_arrays(self.exact_tensors(), folder / WEIGHTS)
        atomic_write(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
        atomic_write(folder / CARD, card.encode())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The model in a folder. Raises ModelError if a file is missing, or altered since it was written."""
        config, path = _read_vq_config(folder), folder / WEIGHTS
        try:
            tensors = load_arrays(path)
        except FileNotFoundError as error:
            raise ModelError(f"{folder}: {WEIGHTS} is missing; get the model folder again") from error
        except (OSError, SafetensorError, TypeError, ValueError, KeyError, struct.error) as error:
            raise ModelError(f"{path}: damaged ({error}); get the model folder again") from error
        try:
            model = cls(*_parts(config, tensors))
        except ModelError as error:
            raise ModelError(f"{folder}: {error}; get the model folder again") from error
        except (KeyError, TypeError, ValueError, IndexError, OverflowError, RuntimeError) as error:
            raise ModelError(
                f"{folder}: {CONFIG} and {WEIGHTS} do not fit together ({error}); get them again"
            ) from error
        if model.fingerprint.hex() != config.get("fingerprint"):
            raise ModelError(f"{folder}: the weights are not those that the model was saved with; get the folder again")
        return model


def _read_vq_config(folder: Path) -> dict[str, Any]:
    config, path = read_config(folder), folder / CONFIG
    kind = config.get("kind", config.get("codec"))  # before version 1 it was "codec"
    if kind != KIND:
        raise ModelError(f'{path}: kind (={kind}) must be "{KIND}"')
    for key in ("name", "method", "fingerprint"):
        if not isinstance(config.get(key), str):
            raise ModelError(f"{path}: {key} (={config.get(key)}) must be a text; get the model folder again")
    return config


def _parts(
    config: dict[str, Any], tensors: dict[str, np.ndarray]
) -> tuple[str, int, list[Quantizer], list[int], ContextModel]:
    """What `CodebookModel` is made of. Raises ModelError, or what wrong types raise."""
    quantizers = [_quantizer(config["method"], i, tensors) for i in range(3)]
    plane_bits = [int(b) for b in config["plane_bits"]]
    sizes = [size for q in quantizers for size in q.sizes]
    if any(not 1 <= b <= 16 for b in plane_bits) or sizes != [2**b for b in plane_bits]:
        raise ModelError(f"plane_bits (={plane_bits}) do not fit the codebooks of {sizes} entries")
    patch_px = int(config["patch_px"])
    for q in quantizers:
        length = q.decode(torch.zeros(1, len(q.sizes), dtype=torch.int64)).shape[1]
        if length != patch_px**2:
            raise ModelError(f"codewords of {length} values do not fit patches of {patch_px}x{patch_px} px")
    neutral = [int(v) for v in config["neutral"]]
    chroma_bits = plane_bits[len(quantizers[0].sizes) :]
    if len(neutral) != len(chroma_bits) or any(not 0 <= v < 2**b for v, b in zip(neutral, chroma_bits, strict=True)):
        raise ModelError(f"neutral (={neutral}) must hold an index for each plane of Cr and Cb")
    prefix = "context."
    context = ContextModel(plane_bits, {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    return str(config["name"]), patch_px, quantizers, neutral, context


def _quantizer(method: str, channel: int, tensors: dict[str, np.ndarray]) -> Quantizer:
    start = f"quantizers.{channel}."
    books = []
    while (name := f"{start}codebooks.{len(books)}") in tensors:
        book = tensors[name]
        if book.ndim != 2 or book.dtype != np.float32 or not np.isfinite(book).all():
            raise ModelError(f"tensor {name} must be a finite float32 matrix")
        books.append(torch.from_numpy(book.copy()))
    if not books:
        raise ModelError(f"tensor {start}codebooks.0 is missing")
    if method == "rq":
        return ResidualQuantizer(books)
    rotation = tensors.get(start + "rotation")
    return ProductQuantizer(books, None if rotation is None else torch.from_numpy(rotation.copy()))
