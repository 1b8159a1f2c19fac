"""What generators, latent data sets and refiners ask of a codec: a finite latent space, and nothing of files."""

from collections.abc import Sequence
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class LatentSpace(Protocol):
    """Pixels to planes of indices and back: codebooks (VQ, PQ, OPQ, RQ) and finite scalars alike.

    A latent has C planes of h x w sites; the indices of plane c are numbers below ``sizes[c]``, and neighbouring
    indices of a plane mean similar pictures.
    """

    name: str
    """Of the model that it is of."""
    stride_px: int
    """Pixels between two sites, down and sideways."""
    fingerprint: bytes
    """(32 bytes) what tells this model from others."""

    @property
    def sizes(self) -> list[int]:
        """K_c of each of the C planes."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def codebooks(self) -> list[Tensor]:
        """C of (K_c, n_c) float32: what each index of a plane stands for."""
        ...

    def to(self, device: torch.device) -> Self: ...

    def to_latent(self, images: Tensor) -> Tensor:
        """(B, C, ⌈H/stride⌉, ⌈W/stride⌉) int64 indices of ``images: (B, 3, H, W)`` uint8 RGB. Raises ConfigError."""
        ...

    def from_latent(self, latent: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
        """(B, 3, H, W) uint8 RGB of ``latent: (B, C, h, w)`` int64, cropped if a size is given. Raises ConfigError."""
        ...

    def from_codewords(self, codewords: Sequence[Tensor]) -> Tensor:
        """(B, 3, H, W) float32 in about [-1, 1] of C ``codewords: (B, n_c, h, w)``, those of `codebooks` or mixtures of
        them; differentiable."""
        ...
