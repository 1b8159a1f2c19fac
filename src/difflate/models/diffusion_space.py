"""What a diffusion autoencoder codes of images, restored by steps of diffusion, in tiles."""

import torch
from torch import Tensor

from difflate.models.autoencoder_space import AutoencoderSpace, FiniteSpace
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder
from difflate.nn.tiles import TILE_PX, Watch, place_noise, restore_in_tiles, watched
from difflate.nn.unet import reach_px


class DiffusionSpace(AutoencoderSpace):
    """`from_latent` takes the model's own steps, from the noise of seed 0."""

    def __init__(self, name: str, model: DiffusionAutoencoder):
        super().__init__(name, model.autoencoder)
        self.model = model

    @torch.no_grad()
    def from_latent(self, latent: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
        """See `AutoencoderSpace.from_latent`."""
        size, decoder = self.check(latent, height, width), self.model.decoder
        images = [self.sample(image[None], *size, TILE_PX, decoder.steps, decoder.guidance, 0) for image in latent]
        return torch.cat(images).to(self.device)

    @torch.no_grad()
    def sample(
        self, latent: Tensor, height: int, width: int, tile_px: int, steps: int, guidance: float, seed: int,
        text: str = "", watch: Watch | None = None,
    ) -> Tensor:  # fmt: skip
        """(B, 3, ``height``, ``width``) uint8 on the CPU: what ``steps`` steps make of ``latent: (B, C, h, w)``,
        indices or numbers as files have them.

        The noise that they start from follows from ``seed`` and the place in the image, so it does not depend on the
        tiles, of ``tile_px``, or on the batch. ``text``: what the images show; empty: nothing is said. ``watch`` is
        told of each step. No steps: `head`. Raises ConfigError.
        """
        model = self.model
        model.check_text(text)
        if not steps:
            return self.head(latent, height, width, tile_px)
        vector = model.told([text] * len(latent), self.device)
        sites = self.stride_px // model.stage.stride_px

        def tile(part: Tensor, row: int, column: int) -> Tensor:
            z = model.autoencoder.between.latent(part if part.is_floating_point() else part.long())
            count, channels, rows, columns = model.noise_shape(z)
            noise = place_noise(seed, row * sites, column * sites, rows, columns, channels).to(z.device)
            noise = noise.expand(count, -1, -1, -1)  # they have one seed
            top, left = row * self.stride_px, column * self.stride_px
            return model.restore(z, steps, noise, guidance, vector, watch=watched(watch, top, left))

        margin = self.margin(-(-reach_px(model.network) // sites))
        return restore_in_tiles(
            tile, latent.cpu().numpy(), height, width, tile_px, margin, self.ramp, self.stride_px, self.device
        )


class FiniteDiffusionSpace(DiffusionSpace, FiniteSpace):
    """A `difflate.models.latent_space.LatentSpace` of a model whose bottleneck has indices; `from_codewords` is the
    head's."""


def diffusion_space(name: str, model: DiffusionAutoencoder) -> DiffusionSpace:
    """The space of ``model``, which is finite if its bottleneck has indices."""
    finite = model.autoencoder.between.sizes is not None
    return (FiniteDiffusionSpace if finite else DiffusionSpace)(name, model)
