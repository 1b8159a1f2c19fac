"""What generators, latent data sets and refiners ask of a codec: a finite latent space, and nothing of files."""

from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from difflate.errors import ConfigError


@runtime_checkable
class LatentSpace(Protocol):
    """Pixels to planes of indices and back: codebooks (VQ, PQ, OPQ, RQ) and finite scalars alike.

    A latent has C planes of h x w sites; the indices of plane c are numbers below ``sizes[c]``, and neighbouring
    indices of a plane mean similar pictures.
    """

    @property
    def name(self) -> str:
        """The name of the model which it belongs to."""
        ...

    @property
    def sizes(self) -> Sequence[int]:
        """K_c, the number of indices, of each of the C planes."""
        ...

    @property
    def stride_px(self) -> int:
        """Pixels between two sites, down and sideways."""
        ...

    @property
    def fingerprint(self) -> bytes:
        """(32 bytes) what tells this model from others."""
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


def latent_space(codec: Any) -> LatentSpace:
    """The finite latent space of a loaded ``codec``, or ``codec`` itself if it is a space.

    Raises ConfigError for a codec that has none.
    """
    for space in (getattr(codec, "space", None), codec):
        if isinstance(space, LatentSpace):
            return space
    raise ConfigError(
        f"codec {codec.name!r} has no finite latent space of images; choose one that has, such as eopq-32-8-8 or "
        "opq-32-8-8, or the folder of one"
    )
