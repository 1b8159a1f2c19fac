"""What all bottlenecks do."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from difflate.diffusion.draws import Generators
from difflate.models.exact import ExactEntropy


@dataclass(frozen=True)
class Passed:
    """What training sees of features that went through a bottleneck."""

    z: Tensor
    """(B, channels, h, w) float32: what decoders see; when not training, that of a file."""
    loss: Tensor
    """(B,) what the bottleneck itself asks for, such as commitment or the rate; zeros where it asks for nothing."""
    scalars: dict[str, Tensor] = field(default_factory=dict)
    """() further numbers to show."""


class Bottleneck(nn.Module, ABC):
    """Features to z; `coded` and `latent` are what files hold and what is made of it."""

    features: int
    """Channels that the encoder has to give."""
    channels: int
    """Channels of z."""
    sizes: Sequence[int] | None
    """How many indices each plane of what is coded has; None: they are no indices."""
    exact: ExactEntropy | None = None
    """What numbers in steps are written with; None: what is coded are indices."""

    @abstractmethod
    def forward(self, features: Tensor, generator: Generators = None) -> Passed:
        """``features: (B, features, h, w)``; noise from ``generator`` when training."""

    @abstractmethod
    def coded(self, features: Tensor) -> Tensor:
        """(B, C, h, w) what a file holds: int64 indices below `sizes`, or float32 numbers in quantizer steps."""

    @abstractmethod
    def latent(self, coded: Tensor) -> Tensor:
        """z: (B, channels, h, w) float32 of ``coded: (B, C, h, w)``, indices or numbers that were rounded."""

    @property
    def codebooks(self) -> list[Tensor]:
        """C of (K_c, n_c) float32: what each index of a plane stands for; [] where what is coded are no indices."""
        return []

    def join(self, codewords: Sequence[Tensor]) -> Tensor:
        """z: (B, channels, h, w) of C ``codewords: (B, n_c, h, w)``, those of `codebooks` or mixtures of them."""
        return torch.cat(list(codewords), dim=1)

    def put_in_order(self) -> None:
        """Numbers indices so that neighbours mean similar pictures, as `difflate.models.latent_space` has it; once,
        when the networks are trained."""
