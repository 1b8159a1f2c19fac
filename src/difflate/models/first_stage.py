"""What a diffusion runs on: the pixels themselves, or the latent of another model."""

from typing import Protocol

from torch import Tensor

from difflate.errors import ConfigError


class FirstStage(Protocol):
    """Images to what a diffusion runs on, of about unit variance or within ± `bound`, and back."""

    stride_px: int
    """Pixels between two sites, down and sideways."""
    channels: int
    scale: float
    """What the latent is multiplied by."""
    bound: float | None
    """What `encode` gives is within ± this, so that samplers keep to it; None: it may be anything."""

    def encode(self, images: Tensor) -> Tensor:
        """(B, channels, H/s, W/s) of ``images: (B, 3, H, W)`` in [-1, 1], s = `stride_px`, which divides H and W."""
        ...

    def decode(self, x: Tensor) -> Tensor:
        """(B, 3, s·h, s·w) in about [-1, 1], not clamped, of ``x: (B, channels, h, w)``; differentiable."""
        ...


class Pixels:
    """No first stage: PixelUnshuffle in the network costs what a latent at a quarter of the size does."""

    stride_px, channels, scale = 1, 3, 1.0
    bound: float | None = 1.0

    def encode(self, images: Tensor) -> Tensor:
        """``images`` as they are."""
        return images

    def decode(self, x: Tensor) -> Tensor:
        """``x`` as it is."""
        return x


def first_stage(name: str | None) -> FirstStage:
    """The first stage of that name; None: the pixels. Raises ConfigError."""
    if name is None:
        return Pixels()
    raise ConfigError(f"`first_stage` (={name}): no such model; give null, which is the pixels themselves")
