"""Finite scalars: no codebook is learned."""

from collections.abc import Sequence

from torch import Tensor

from difflate.diffusion.draws import Generators
from difflate.models.bottlenecks.base import Bottleneck, Passed
from difflate.quantize.scalar import FiniteScalarQuantizer


class FiniteScalars(Bottleneck):
    """Each channel one of a few values (Mentzer et al. 2023)."""

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        self.scalars = FiniteScalarQuantizer(list(levels))
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
