"""An autoencoder as a codec: what its bottleneck makes of an image, without loss, restored by its plain decoder.

    encode   pixels ─ `AutoencoderSpace.to_latent` ─▶ latent ─ coder ─▶ section "indices" or "latent"
    decode   pixels ◀─ `AutoencoderSpace.head` ─ latent ◀─ coder ─ section

The coder is that of indices by context or at a fixed rate (`difflate.codecs.indices`), or that of numbers in steps
with a hyperprior or a table for each channel (`difflate.codecs.transform`). What is between is
`difflate.codecs.learned`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from difflate import registry
from difflate.codecs.batches import as_images
from difflate.codecs.indices import IndexCoder, Indices
from difflate.codecs.learned import LearnedCodec, Restorer, largest
from difflate.codecs.transform import HyperpriorLatents
from difflate.entropy.latent import Latent
from difflate.errors import ConfigError
from difflate.format.container import DflFile
from difflate.models.autoencoder import Autoencoder
from difflate.models.autoencoder_space import AutoencoderSpace, FiniteSpace
from difflate.models.bottlenecks.rounded import CodedInSteps
from difflate.nn.tiles import TILE_PX, Watch
from difflate.options import AutoencoderDecoding, Options
from difflate.store.folders import FolderModel


class AutoencoderCodec(LearnedCodec):
    """Pictures to .dfl files and back, with an `Autoencoder`."""

    space: AutoencoderSpace

    def __init__(self, kind: str, space: AutoencoderSpace, restorer: Restorer, defaults: Options):
        """``kind``: its row in the registry. Raises ModelError if what is coded with does not fit the networks."""
        coder = coder_of(space.autoencoder)
        super().__init__(space.name, registry.KINDS[kind], space.fingerprint, space.eval(), coder, restorer, defaults)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The codec of a model's folder. Raises ModelError if a file is missing, or altered since it was written."""
        space = space_of(folder.name, Autoencoder.from_pretrained(folder))
        return cls("autoencoder", space, PlainDecoder(space), AutoencoderDecoding(tile_px=TILE_PX))

    @property
    def model(self) -> FolderModel:
        """All networks."""
        return self.space.autoencoder

    def analyse(self, pixels: Sequence[Tensor], quality: float | None, options: Any) -> list[Tensor]:
        if options.fixed_rate and not isinstance(self.space, FiniteSpace):
            raise ConfigError(
                f"`fixed_rate` (=True) has no meaning for {self.name}, whose latent is no indices; leave it out"
            )
        return list(self.space.to_latent(as_images(pixels, self.space.stride_px), options.tile_px).cpu())

    def to_latent(self, images: Tensor) -> Tensor:
        """(B, C, ⌈H/stride⌉, ⌈W/stride⌉), what files of ``images: (B, 3, H, W)`` uint8 RGB hold: int64 indices, or
        float32 numbers in steps. Raises ConfigError."""
        found = self.space.to_latent(images)
        if isinstance(self.coder, IndexCoder):
            return found
        options = self.encoding()
        latents: list[Any] = [self.coder.write(y, False, None, options)[2] for y in found.cpu()]
        return torch.stack([numbers_of(latent) for latent in latents])

    def from_latent(self, latent: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
        """(B, 3, H, W) uint8 RGB of ``latent: (B, C, h, w)`` as `to_latent` gives it, cropped if a size is given.

        Raises ConfigError.
        """
        return self.space.from_latent(latent, height, width)


def coder_of(model: Autoencoder) -> IndexCoder | HyperpriorLatents:
    """The coder of what the bottleneck of ``model`` makes."""
    between = model.between
    if isinstance(between, CodedInSteps):
        return HyperpriorLatents(between, between.exact.coder)
    return IndexCoder(model.context, {}, between.sizes or ())


def space_of(name: str, model: Autoencoder) -> AutoencoderSpace:
    """The space of what the bottleneck of ``model`` makes, which is finite if it makes indices."""
    return AutoencoderSpace(name, model) if model.between.sizes is None else FiniteSpace(name, model)


class PlainDecoder:
    """What the plain decoder makes of a latent."""

    def __init__(self, space: AutoencoderSpace):
        self.space = space

    def restore(
        self, latents: Sequence[Indices | Latent], files: Sequence[DflFile], options: Any, watch: Watch | None = None
    ) -> Tensor:
        """See `difflate.codecs.learned.Restorer`."""
        return self.space.head(torch.stack([*map(numbers_of, latents)]), *largest(files), options.tile_px)


def numbers_of(latent: Indices | Latent) -> Tensor:
    """(C, h, w) int64 indices, or float32 numbers in steps."""
    return torch.from_numpy(latent.grid.astype("int64") if isinstance(latent, Indices) else latent.y_hat)
