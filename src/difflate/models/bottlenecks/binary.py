"""Binary codes without a codebook: each channel is one bit, its sign (LFQ, BSQ)."""

import math

import torch
from torch import Tensor

from difflate.diffusion.draws import Generators
from difflate.models.bottlenecks.base import Bottleneck, Passed
from difflate.quantize.binary import BinaryQuantizer, binary_entropy


class Signs(Bottleneck):
    """The signs of the features, or of their direction on the sphere; each plane holds one bit."""

    def __init__(self, bits: int, *, spherical: bool, entropy_weight: float, commitment: float = 0.0):
        """``entropy_weight``: of `BinaryQuantizer.entropy_penalty`. ``commitment``: what the squared distance of
        features from their codes costs, a channel; on the sphere it is bounded."""
        super().__init__()
        self.signs = BinaryQuantizer(bits, spherical=spherical)
        self.sizes = self.signs.sizes
        self.features = self.channels = bits
        self.entropy_weight, self.commitment = entropy_weight, commitment

    def forward(self, features: Tensor, generator: Generators = None) -> Passed:
        with torch.autocast(features.device.type, enabled=False):  # a mean of many probabilities
            z = self.signs.quantize(features)
            loss = self.entropy_weight * self.signs.entropy_penalty(features)
            if self.commitment:
                distance = (self.signs.normalised(features) - z.detach()).square().flatten(1).mean(1)
                loss = loss + self.commitment * distance
        positive = (z.detach() > 0).float().mean(dim=(0, 2, 3))
        return Passed(z, loss, {"plane_bits": binary_entropy(positive).mean() / math.log(2)})

    def coded(self, features: Tensor) -> Tensor:
        return self.signs.encode(features)

    def latent(self, coded: Tensor) -> Tensor:
        return self.signs.decode(coded)

    @property
    def codebooks(self) -> list[Tensor]:
        return self.signs.codebooks
