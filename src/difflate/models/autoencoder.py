"""An encoder, a bottleneck and a plain decoder: what a diffusion autoencoder stands on, and is compared with.

    images ─ encoder ─▶ features ─ bottleneck ─▶ z ─ decoder ─▶ images

What the bottleneck makes is coded without loss, with integers that are stored beside the networks: indices with the
context model of `difflate.entropy.context`, which is fitted once the networks are trained; numbers in steps with the
bottleneck's own entropy model (`difflate.models.exact`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difflate.diffusion.draws import Generators
from difflate.entropy.context import ContextModel, exp_table, shapes
from difflate.errors import ConfigError, ModelError
from difflate.models.bottlenecks import BottleneckConfig, Passed
from difflate.nn.encoder_kinds import EncoderConfig, build_encoder
from difflate.nn.encoders import ConvConfig, ConvDecoder
from difflate.store.config import read_config
from difflate.store.deflated import load_arrays, save_arrays
from difflate.store.fingerprint import fingerprint
from difflate.store.folders import FolderModel

CONTEXT = "context.safetensors"
"""File in a model's folder: the context model in integers."""
_STD_SHARE = 0.02
"""Of a step in the moving average of the deviation of z."""


class Autoencoder(FolderModel):
    """Encoder, bottleneck and plain decoder, trained together."""

    kind = "autoencoder"
    looks_back = False
    """Whether indices are coded by those of the latent frame before."""

    def __init__(self, encoder: EncoderConfig | ConvConfig, bottleneck: BottleneckConfig, decoder: ConvConfig):
        """Raises ConfigError for settings that do not fit."""
        super().__init__()
        if encoder.stride_px != decoder.stride_px:
            raise ConfigError(
                f"the decoder's stride (={decoder.stride_px} px) must be the encoder's (={encoder.stride_px} px)"
            )
        self.encoder, self.bottleneck, self.decoder = EncoderConfig.of(encoder), bottleneck, decoder
        self.between = bottleneck.build()
        self.encode = build_encoder(self.encoder, self.between.features)
        self.decode = ConvDecoder(decoder, self.between.channels)
        self.std: Tensor
        self.register_buffer("std", torch.ones((), dtype=torch.float32))
        """() of z, a moving average that training keeps."""
        self._context: ContextModel | None = None

    @property
    def stride_px(self) -> int:
        """Pixels between two sites of the latent, down and sideways."""
        return self.encode.stride_px

    @property
    def channels(self) -> int:
        """Of z."""
        return self.between.channels

    @property
    def told_channels(self) -> int:
        """Of what decoders are told: z itself."""
        return self.channels

    def forward(self, images: Tensor, generator: Generators = None) -> Passed:
        """``images: (B, 3, H, W)`` in [-1, 1], to z and what the bottleneck asks for."""
        passed = self.between(self.encode(images), generator)
        if self.training:
            self.follow_std(passed.z)
        return passed

    @torch.no_grad()
    def follow_std(self, z: Tensor) -> None:
        """Moves `std` towards that of ``z``, of any shape."""
        self.std.lerp_(z.float().std(), _STD_SHARE)

    def restore(self, z: Tensor) -> Tensor:
        """(B, 3, s·h, s·w) in about [-1, 1], not clamped, of ``z: (B, channels, h, w)``; the caller crops."""
        return self.decode(z)

    @property
    def plane_bits(self) -> list[int]:
        """Bits that an index of each plane takes at a fixed rate."""
        return [max(1, (size - 1).bit_length()) for size in self.between.sizes or ()]

    @property
    def context(self) -> ContextModel:
        """The model that indices are coded with; until one is fitted, all are as likely."""
        if self._context is None:
            self._context = even_context(self.plane_bits, self.looks_back)
        return self._context

    @context.setter
    def context(self, fitted: ContextModel) -> None:
        self._context = fitted

    @property
    def fingerprint(self) -> bytes:
        """(32 bytes) of what the symbols in a file depend on, see `difflate.store.fingerprint`."""
        if self.between.exact is not None:
            return self.between.exact.fingerprint
        return fingerprint(self._architecture(), self.context.tensors)

    def _architecture(self) -> str:
        # BITSTREAM: part of the fingerprint
        return f"autoencoder stride={self.stride_px} sizes={list(self.between.sizes or ())}"

    def save_exact(self, folder: Path) -> dict[str, Any]:
        """Writes what files are coded with into a model's folder; gives its entries of config.json."""
        if self.between.exact is not None:
            return self.between.exact.save(folder) | self.exact_entries()
        save_arrays(self.context.tensors, folder / CONTEXT)
        return self.exact_entries()

    def exact_entries(self) -> dict[str, Any]:
        """What config.json says of files, their fingerprint, and of the latent: what a diffusion in it has to know, and
        what of it is in files."""
        return {"fingerprint": self.fingerprint.hex(), "latent": self._latent_entries()}

    def _latent_entries(self) -> dict[str, Any]:
        sizes = {"stride_px": self.stride_px, "channels": self.channels}
        return sizes | {"std": float(self.std), "plane_bits": self.plane_bits}

    def load_exact(self, folder: Path) -> None:
        """Reads what `save_exact` has written. Raises ModelError if it is missing, damaged or altered."""
        if self.between.exact is not None:
            return self.between.exact.load(folder)
        path = folder / CONTEXT
        if not path.is_file():
            raise ModelError(f"{folder}: {CONTEXT} is missing; get the model folder again")
        self._context = ContextModel(self.plane_bits, load_arrays(path))
        if self.fingerprint.hex() != read_config(folder).get("fingerprint"):
            raise ModelError(f"{folder}: {CONTEXT} is not what the model was saved with; get the folder again")

    def _save_beside(self, folder: Path, referred: Sequence[str]) -> dict[str, Any]:
        return self.save_exact(folder)

    def _load_beside(self, folder: Path, referred: Sequence[str]) -> None:
        self.load_exact(folder)

    def told(self, coded: Tensor) -> Tensor:
        """(B, told_channels, h, w) what decoders are told of ``coded: (B, C, h, w)`` as files have it."""
        return self.between.latent(coded)

    @torch.no_grad()
    def coded(self, images: Tensor) -> Tensor:
        """(B, C, ⌈H/s⌉, ⌈W/s⌉) what files hold of ``images: (B, 3, H, W)`` in [-1, 1]: see `Bottleneck.coded`."""
        return self.between.coded(self.encode(images))


def even_context(plane_bits: Sequence[int], looks_back: bool = False) -> ContextModel:
    """A context model without a preference, for planes of ``plane_bits``; of images, or of clips if it looks back."""
    tensors = {
        name: np.zeros(shape, np.int32 if name.endswith("bias") else np.int8)
        for name, shape in shapes(plane_bits, looks_back).items()
    }
    return ContextModel(plane_bits, tensors | {"exp": exp_table()})
