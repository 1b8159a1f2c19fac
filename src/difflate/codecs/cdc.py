"""Conditional diffusion compression (Yang & Mandt 2023): files of a transform coder, restored by a diffusion model.

    encode   pixels ─ `TransformSpace.analyse` ─▶ y ─ `HyperpriorLatents.write` ─▶ section "latent"; hints
    decode   pixels ◀─ `Diffusion.restore` ─ ŷ ◀─ `HyperpriorLatents.read` ─ section "latent"; hints

The exact stage is that of `difflate.codecs.transform`. Then the synthesis of the transform coder gives an image, and
a few steps of diffusion refine it, tile by tile. The noise that they start from follows from the seed and the place in
the image, so it does not depend on the tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from difflate import registry
from difflate.codecs.learned import largest
from difflate.codecs.transform import TransformCodec, TransformSpace, quality_of
from difflate.entropy.latent import Latent, Latents
from difflate.format.container import DflFile
from difflate.models.diffusion_decoder import DiffusionDecoder
from difflate.nn.tiles import TILE_PX, Watch, place_noise, restore_in_tiles, watched
from difflate.options import DiffusionDecoding

_MARGIN, _RAMP = 6, 4
"""Widths in sites. The U-Net sees further than the margin, faintly: what is left of it fades over the ramp."""


class CdcCodec(TransformCodec):
    """Pictures to .dfl files and back, with a `DiffusionDecoder`; without steps it is the codec of its transform."""

    def __init__(self, name: str, model: DiffusionDecoder):
        """Raises ModelError if the entropy model does not fit the networks."""
        space, decoder = TransformSpace(model.coder), model.decoder
        defaults = DiffusionDecoding(tile_px=TILE_PX, steps=decoder.steps, gamma=decoder.gamma, seed=0)
        super().__init__(name, registry.KINDS["cdc"], model, space, Diffusion(model, space), defaults)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The codec of a model's folder. Raises ModelError if a file is missing, or altered since it was written."""
        return cls(folder.name, DiffusionDecoder.from_pretrained(folder))


class Diffusion:
    """The image of the transform, refined by diffusion."""

    def __init__(self, model: DiffusionDecoder, space: TransformSpace):
        self.model, self.space = model, space

    @torch.no_grad()
    def restore(
        self, latents: Sequence[Latent], files: Sequence[DflFile], options: Any, watch: Watch | None = None
    ) -> Tensor:
        """See `difflate.codecs.learned.Restorer`."""
        device, stride = self.space.device, self.space.stride_px
        quality = self.space.as_network_input(*(quality_of(dict(file.sections)) for file in files))

        def tile(part: Tensor, top: int, left: int) -> Tensor:
            conditions = self.model.conditions(part, quality)
            size = tuple(conditions.synthesis.shape[2:])
            if options.gamma and options.steps:
                noise = options.gamma * place_noise(options.seed, top * stride, left * stride, *size).to(device)
            else:
                noise = torch.zeros(1, 3, *size, dtype=torch.float32, device=device)
            noise = noise.expand(len(part), -1, -1, -1)  # they have one seed
            return self.model.refine(conditions, options.steps, noise, watched(watch, top * stride, left * stride))

        y_hat = Latents(latents)
        return restore_in_tiles(tile, y_hat, *largest(files), options.tile_px, _MARGIN, _RAMP, stride, device)
