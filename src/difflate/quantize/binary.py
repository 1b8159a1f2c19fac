"""Binary quantizers without codebooks: each channel of a vector is one bit, its sign.

Lookup-free quantization (Yu et al. 2024, "LFQ"): z = sign(features), codes {-1, 1}^L. Binary spherical quantization
(Zhao et al. 2024, "BSQ"): features are put on the unit sphere first, and codes are its points {-1/√L, 1/√L}^L, so that
no feature is further from its code than √(2 - 2/√L).

Either is trained with an entropy penalty, E[H(q(c|u))] - H(E[q(c|u)]) in nats: a vector should be sure of its code, and
all codes should be used. Under a softmax over all 2^L codes, q(c|u) ∝ exp(τ·cᵀu/|c_d|²), the bits are independent,

    q(c|u) = Π_d σ(2τ·c_d·u_d/|c_d|²)                                                        (BSQ, Eq. 8)

so the first term is exactly a sum over bits. The second is exact within groups of at most 8 bits and summed over the
groups, an upper bound (BSQ, Eq. 10) that makes 18 or 36 bits affordable. Summed over single bits it would be content
with bits that all say the same (measured: 2.6 bits of 10). Divided by |c_d|², τ means the same for any L, on the sphere
or not.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.diffusion.categorical import IndexSpace
from difflate.errors import ConfigError
from difflate.quantize.scalar import straight_through

MAX_BITS = 256
_GROUP_BITS = 8


class BinaryQuantizer(nn.Module):
    """Codes each of L channels by its sign; index 1 is the positive one.

    In training `quantize` stands in the place of `encode` and `decode`.
    """

    def __init__(self, bits: int, *, spherical: bool, sharpness: float = 1.0):
        """``bits``: L. ``spherical``: BSQ, else LFQ. ``sharpness``: τ. Raises ConfigError."""
        super().__init__()
        if not 1 <= bits <= MAX_BITS:
            raise ConfigError(f"`bits` (={bits}) must be from 1 to {MAX_BITS}")
        if not 0 < sharpness < math.inf:
            raise ConfigError(f"`sharpness` (={sharpness}) must be above 0")
        self.bits, self.spherical, self.sharpness = bits, spherical, sharpness
        self.sizes = [2] * bits
        """Number of values of each channel."""
        self.scale = bits**-0.5 if spherical else 1.0
        """Half the distance between the two values of a channel."""
        self._space = IndexSpace(tuple(self.sizes))
        self._where: Tensor
        self.register_buffer("_where", torch.zeros(0), persistent=False)

    @property
    def codebooks(self) -> list[Tensor]:
        """L of (2, 1) float32: the values of each channel."""
        values = torch.tensor([[-self.scale], [self.scale]], dtype=torch.float32, device=self._where.device)
        return [values] * self.bits

    def encode(self, vectors: Tensor) -> Tensor:
        """(N, L) or (B, L, …) int64, 0 or 1, of ``vectors``, same shape; 0 counts as positive."""
        return (vectors >= 0).long()

    def decode(self, codes: Tensor) -> Tensor:
        """(N, L) or (B, L, …) float32 values of ``codes``, int64, same shape."""
        return self._space.scale(codes) * self.scale

    def normalised(self, features: Tensor) -> Tensor:
        """``features: (B, L, …)`` in float32, on the unit sphere of the L channels if codes are."""
        return F.normalize(features.float(), dim=1) if self.spherical else features.float()

    def quantize(self, features: Tensor) -> Tensor:
        """The codes' values in the place of `normalised` ``features: (B, L, …)``; the gradient is that of these."""
        u = self.normalised(features)
        return straight_through(self.decode(self.encode(u)), u)

    def certainty(self, features: Tensor) -> Tensor:
        """(B, L, …) σ(2τ·u/|c_d|): how likely bit 1 is, of u, `normalised` ``features: (B, L, …)``."""
        return (2 * self.sharpness / self.scale * self.normalised(features)).sigmoid()

    def entropy_penalty(self, features: Tensor) -> Tensor:
        """(B,) E[H(q)] - H(E[q]) in nats of ``features: (B, L, …)``; E over all sites, of the batch in the second."""
        likely = self.certainty(features).flatten(2)
        each = binary_entropy(likely).sum(1).mean(1)
        groups = likely.movedim(1, -1).flatten(0, 1).tensor_split(-(-self.bits // _GROUP_BITS), dim=1)
        return each - torch.stack([_entropy(codes_of(group).mean(0)) for group in groups]).sum()


def codes_of(likely: Tensor) -> Tensor:
    """(N, 2^L) how likely each code is, of ``likely: (N, L)``, how likely bits are 1; the first bit counts most."""
    codes = likely.new_ones(len(likely), 1)
    for bit in likely.unbind(1):
        pair = torch.stack([1 - bit, bit], dim=1)
        codes = (codes[:, :, None] * pair[:, None]).flatten(1)
    return codes


def _entropy(q: Tensor) -> Tensor:
    """() in nats of probabilities ``q: (K,)``."""
    q = q.clamp_min(1e-9)
    return -(q * q.log()).sum()


def binary_entropy(p: Tensor) -> Tensor:
    """-p·log p - (1 - p)·log(1 - p) in nats; 0 where p is 0 or 1, with a finite gradient."""
    p = p.clamp(1e-7, 1 - 1e-7)
    return -(p * p.log() + (1 - p) * (1 - p).log())
