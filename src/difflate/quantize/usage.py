"""How many of the codes of a finite latent are used, and how evenly: what tells a collapse."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CodeUsage:
    """Of a number of sites."""

    sites: int
    used: int
    """Different codes, all planes of a site together."""
    possible: int
    """Codes that there are: the product of the planes' sizes."""
    plane_shares: tuple[float, ...]
    """Share of the indices of each plane that are used."""
    plane_bits: tuple[float, ...]
    """Entropy of the indices of each plane, in bits; evenly used ones have log2 of their number."""
    joint_bits: float
    """Entropy of the codes, in bits; at most log2 of `sites`, so of few sites it says little."""

    @property
    def share(self) -> float:
        """Of the codes that could be used in so many sites, how many are: `used` / min(`possible`, `sites`)."""
        return self.used / min(self.possible, self.sites)

    def scalars(self) -> dict[str, float]:
        """What a training shows: the share of codes used, and a plane's mean entropy in bits."""
        return {"codes_used": self.share, "plane_bits": math.fsum(self.plane_bits) / len(self.plane_bits)}


def code_usage(codes: Tensor, sizes: Sequence[int]) -> CodeUsage:
    """Of ``codes: (B, C, h, w)`` or (N, C), integers below ``sizes``. There must be at least one site."""
    rows = codes.movedim(1, -1).reshape(-1, codes.shape[1]).long()
    counts = [torch.bincount(plane, minlength=size) for plane, size in zip(rows.unbind(1), sizes, strict=True)]
    together = torch.unique(rows, dim=0, return_counts=True)[1]
    return CodeUsage(
        sites=len(rows),
        used=len(together),
        possible=math.prod(sizes),
        plane_shares=tuple(float((count > 0).double().mean()) for count in counts),
        plane_bits=tuple(map(entropy_bits, counts)),
        joint_bits=entropy_bits(together),
    )


def entropy_bits(counts: Tensor) -> float:
    """Entropy in bits of what ``counts: (K,)``, not all 0, are frequencies of."""
    shares = counts[counts > 0].double() / counts.sum()
    return max(0.0, float(-(shares * shares.log2()).sum()))
