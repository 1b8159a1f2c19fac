"""What stands between an encoder and a decoder: features to what files hold, and to the latent that decoders see.

A bottleneck is finite (indices of values or codewords) or counts in steps (numbers that are rounded, as those of a
transform coder). All work on features (B, C, h, w) of any encoder.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from difflate.diffusion.draws import Generators
from difflate.errors import ConfigError
from difflate.quantize.scalar import FiniteScalarQuantizer


@dataclass(frozen=True)
class Passed:
    """What training sees of features that went through a bottleneck."""

    z: Tensor
    """(B, channels, h, w) float32: what decoders see."""
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
        """C of (K_c, n_c) float32: what each index of a plane stands for; finite bottlenecks only."""
        raise NotImplementedError

    def join(self, codewords: Sequence[Tensor]) -> Tensor:
        """z: (B, channels, h, w) of C ``codewords: (B, n_c, h, w)``, those of `codebooks` or mixtures of them."""
        return torch.cat(list(codewords), dim=1)


@dataclass(frozen=True)
class BottleneckConfig:
    """Which bottleneck, and how fine."""

    kind: Literal["fsq"] = "fsq"
    """fsq: finite scalars (Mentzer et al. 2023)."""
    levels: list[int] | tuple[int, ...] = (8, 8, 8, 8, 8)
    """fsq: how many values each channel has."""

    def build(self) -> Bottleneck:
        """The bottleneck. Raises ConfigError."""
        if self.kind not in BOTTLENECKS:
            raise ConfigError(f"`kind` (={self.kind!r}) must be one of {', '.join(BOTTLENECKS)}")
        return BOTTLENECKS[self.kind](self)


class FiniteScalars(Bottleneck):
    """Each channel one of a few values (FSQ)."""

    def __init__(self, config: BottleneckConfig):
        super().__init__()
        self.scalars = FiniteScalarQuantizer(list(config.levels))
        self.sizes = self.scalars.sizes
        self.features = self.channels = len(self.sizes)

    def forward(self, features: Tensor, generator: Generators = None) -> Passed:
        return Passed(self.scalars.quantize(features), features.new_zeros(len(features)))

    def coded(self, features: Tensor) -> Tensor:
        return self.scalars.encode(self.scalars.bound(features))

    def latent(self, coded: Tensor) -> Tensor:
        return self.scalars.decode(coded)

    @property
    def codebooks(self) -> list[Tensor]:
        return self.scalars.codebooks


BOTTLENECKS: dict[str, type[FiniteScalars]] = {"fsq": FiniteScalars}
"""By `BottleneckConfig.kind`."""
