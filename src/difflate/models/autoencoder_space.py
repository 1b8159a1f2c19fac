"""What an autoencoder codes of images of any size, indices or numbers in steps, and back, in tiles."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from difflate.errors import ConfigError
from difflate.models.autoencoder import Autoencoder
from difflate.nn.colour import signed_to_uint8
from difflate.nn.encoders import conv_reach_sites
from difflate.nn.tiles import TILE_PX, blend, restore_in_tiles, sites_of, windows

_MARGIN_PX, _RAMP_PX = 96, 64
"""Of the tiles' overlaps. Networks may see further than the margin, faintly: what is left of it fades over the ramp."""
_WHOLE_PX = 2048
"""Side of the tiles, at least, of encoders that look at a mean of the whole image: up to it an image is one tile."""
_BAND_SITES = 1 << 16
"""Sites whose features become indices at a time: distances to all codewords are larger than the features."""


class AutoencoderSpace(nn.Module):
    """Images to what files hold of them, and back by the plain decoder."""

    def __init__(self, name: str, autoencoder: Autoencoder):
        super().__init__()
        self.name, self.autoencoder = name, autoencoder
        self.stride_px, self.fingerprint = autoencoder.stride_px, autoencoder.fingerprint
        self.planes = len(autoencoder.between.sizes or range(autoencoder.channels))

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @torch.no_grad()
    def to_latent(self, images: Tensor, tile_px: int = TILE_PX) -> Tensor:
        """(B, C, ⌈H/stride⌉, ⌈W/stride⌉) of ``images: (B, 3, H, W)`` uint8 RGB, on `device`: int64 indices, or float32
        numbers in steps, not rounded.

        Large images in tiles of ``tile_px``, whose features are blended before they become indices. Encoders with
        squeeze-and-excitation are not local: theirs are of at least 2048 px, and larger images depend a little on where
        tiles lie. Raises ConfigError.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ConfigError(f"images ({tuple(images.shape)}, {images.dtype}) must be (B, 3, H, W) uint8")
        stride, encode = self.stride_px, self.autoencoder.encode
        count, rows, columns = len(images), *(-(-side // stride) for side in images.shape[2:])
        channels = count * self.autoencoder.between.features
        features = torch.zeros(channels, rows, columns, dtype=torch.float32, device=self.device)
        tile = sites_of(self.encoder_tile_px(tile_px), stride)
        for down, across in windows(rows, columns, tile, self.margin(encode.reach), self.ramp, 1):
            part = images[:, :, down.start * stride : down.stop * stride, across.start * stride : across.stop * stride]
            found = encode(part.to(self.device).float() / 127.5 - 1)
            blend(features, found.float().flatten(0, 1), down, across, 1)
        return self.banded(features.unflatten(0, (count, -1)))

    def encoder_tile_px(self, tile_px: int) -> int:
        """Side of the encoder's tiles where ``tile_px`` is asked for."""
        return tile_px if self.autoencoder.encode.is_local else max(tile_px, _WHOLE_PX)

    def banded(self, features: Tensor) -> Tensor:
        """What files hold of ``features: (B, features, h, w)``, a few rows at a time."""
        bands = features.split(max(1, _BAND_SITES // (len(features) * features.shape[3])), dim=2)
        return torch.cat([self.autoencoder.between.coded(band) for band in bands], dim=2)

    @torch.no_grad()
    def head(self, latent: Tensor, height: int, width: int, tile_px: int) -> Tensor:
        """(B, 3, ``height``, ``width``) uint8 on the CPU: what the plain decoder makes of ``latent: (B, C, h, w)``,
        indices or numbers as files have them, in tiles of ``tile_px``."""
        autoencoder = self.autoencoder

        def tile(part: Tensor, row: int, column: int) -> Tensor:
            return autoencoder.restore(autoencoder.between.latent(part if part.is_floating_point() else part.long()))

        margin = self.margin(conv_reach_sites(autoencoder.decoder))
        return restore_in_tiles(
            tile, latent.cpu().numpy(), height, width, tile_px, margin, self.ramp, self.stride_px, self.device
        )

    @torch.no_grad()
    def from_latent(self, latent: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
        """(B, 3, H, W) uint8 RGB of ``latent: (B, C, h, w)``, int64 indices or numbers in steps, cropped if a size is
        given. Raises ConfigError."""
        height, width = self.check(latent, height, width)
        if max(latent.shape[2:]) <= sites_of(TILE_PX, self.stride_px):
            latent = latent.to(self.device)
            z = self.autoencoder.between.latent(latent if latent.is_floating_point() else latent.long())
            return signed_to_uint8(self.autoencoder.restore(z))[:, :, :height, :width]
        return torch.cat([self.head(image[None], height, width, TILE_PX) for image in latent]).to(self.device)

    def check(self, latent: Tensor, height: int | None, width: int | None) -> tuple[int, int]:
        """(height, width) in pixels of ``latent: (B, C, h, w)``, or those given. Raises ConfigError if that is no
        latent of this space, or smaller than asked for."""
        if latent.ndim != 4 or latent.shape[1] != self.planes:
            raise ConfigError(f"latent ({tuple(latent.shape)}) must be (B, {self.planes}, h, w)")
        rows, columns = (side * self.stride_px for side in latent.shape[2:])
        if (height or rows) > rows or (width or columns) > columns:
            raise ConfigError(f"size (={width}x{height} px) must be within the latent's, {columns}x{rows} px")
        return height or rows, width or columns

    def margin(self, reach: int) -> int:
        """Width of a tile's margin in sites, for networks that see ``reach`` sites far."""
        return min(reach, -(-_MARGIN_PX // self.stride_px))

    @property
    def ramp(self) -> int:
        """Width in sites over which a tile fades into the next."""
        return -(-_RAMP_PX // self.stride_px)


class FiniteSpace(AutoencoderSpace):
    """A `difflate.models.latent_space.LatentSpace` of an `Autoencoder` whose bottleneck has indices."""

    def __init__(self, name: str, autoencoder: Autoencoder):
        """Raises ConfigError for a bottleneck without indices."""
        if autoencoder.between.sizes is None:
            raise ConfigError(f"{name} codes numbers in steps, not indices; take the model of a finite bottleneck")
        super().__init__(name, autoencoder)
        self.sizes: Sequence[int] = list(autoencoder.between.sizes)

    @property
    def codebooks(self) -> list[Tensor]:
        """C of (K_c, n_c) float32: what each index of a plane stands for."""
        return self.autoencoder.between.codebooks

    def from_codewords(self, codewords: Sequence[Tensor]) -> Tensor:
        """(B, 3, H, W) float32 in about [-1, 1] of C ``codewords: (B, n_c, h, w)``, those of `codebooks` or mixtures of
        them; differentiable. The plain decoder makes it."""
        return self.autoencoder.restore(self.autoencoder.between.join(codewords)).float()

    def check(self, latent: Tensor, height: int | None, width: int | None) -> tuple[int, int]:
        size = super().check(latent, height, width)
        if latent.is_floating_point():
            raise ConfigError(f"latent ({latent.dtype}) must be integers")
        sizes = torch.tensor(self.sizes, device=latent.device)[:, None, None]
        if latent.numel() and bool(((latent < 0) | (latent >= sizes)).any()):
            raise ConfigError(f"an index of the latent is outside its plane (sizes {list(self.sizes)})")
        return size
