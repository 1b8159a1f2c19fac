"""The diffusion autoencoder (Rampas 2024): the files of an autoencoder, restored by a few steps of diffusion.

    encode   pixels ─ `DiffusionSpace.to_latent` ─▶ latent ─ coder ─▶ section "indices" or "latent"; hints, text
    decode   pixels ◀─ `Diffusion.restore` ─ latent ◀─ coder ─ section; hints, text

The coders are those of `difflate.codecs.autoencoder`. Encoder and decoder work in tiles.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from difflate.codecs.autoencoder import AutoencoderCodec, numbers_of
from difflate.codecs.indices import Indices
from difflate.codecs.learned import largest
from difflate.entropy.latent import Latent
from difflate.format.container import DflFile
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder
from difflate.models.diffusion_space import DiffusionSpace, diffusion_space
from difflate.nn.tiles import TILE_PX, Watch
from difflate.options import SamplingDecoding


class DiffaeCodec(AutoencoderCodec):
    """Pictures to .dfl files and back, with a `DiffusionAutoencoder`; without steps its head restores them."""

    space: DiffusionSpace

    def __init__(self, name: str, model: DiffusionAutoencoder):
        """Raises ModelError if what is coded with does not fit the networks."""
        space, decoder = diffusion_space(name, model), model.decoder
        defaults = SamplingDecoding(tile_px=TILE_PX, steps=decoder.steps, guidance=decoder.guidance, seed=0)
        super().__init__("diffae", space, Diffusion(space), defaults)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The codec of a model's folder. Raises ModelError if a file is missing, or altered since it was written."""
        return cls(folder.name, DiffusionAutoencoder.from_pretrained(folder))

    @property
    def model(self) -> DiffusionAutoencoder:
        return self.space.model

    def analyse(self, pixels: Sequence[Tensor], quality: float | None, options: Any) -> list[Tensor]:
        model = self.space.model  # a file keeps what it is asked for
        model.decoder.check_guidance(options.guidance)
        model.check_text(options.text or "")
        return super().analyse(pixels, quality, options)


class Diffusion:
    """What steps of diffusion make of a latent."""

    def __init__(self, space: DiffusionSpace):
        self.space = space

    def restore(
        self, latents: Sequence[Indices | Latent], files: Sequence[DflFile], options: Any, watch: Watch | None = None
    ) -> Tensor:
        """See `difflate.codecs.learned.Restorer`."""
        return self.space.sample(
            torch.stack([*map(numbers_of, latents)]), *largest(files), options.tile_px, options.steps,
            options.guidance, options.seed, options.text or "", watch,
        )  # fmt: skip
