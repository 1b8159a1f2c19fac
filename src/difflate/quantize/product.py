"""Vector, product and optimised product quantization (Scribano et al. 2023, 3.1.1 and 3.1.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from difflate.quantize.nearest import linear, nearest


class ProductQuantizer(nn.Module):
    """Codes each of m consecutive parts of a vector with a codebook of its own (Eq. 11 to 13).

    One codebook makes it plain vector quantization (VQ); with ``rotation`` (Eq. 14) the vector is turned first (OPQ).
    """

    def __init__(self, codebooks: Sequence[Tensor], rotation: Tensor | None = None):
        """``codebooks``: m tensors (K_j, n_j) float32; ``rotation``: (n, n) orthogonal, n = sum of n_j."""
        super().__init__()
        self.codebooks = nn.ParameterList([nn.Parameter(c, requires_grad=False) for c in codebooks])
        self.rotation = None if rotation is None else nn.Parameter(rotation, requires_grad=False)

    @property
    def sizes(self) -> list[int]:
        """Number of codewords of each codebook."""
        return [len(c) for c in self.codebooks]

    def encode(self, vectors: Tensor) -> Tensor:
        """(N, m) int64 codes of ``vectors: (N, n)`` float32."""
        if self.rotation is not None:
            vectors = linear(vectors, self.rotation)
        parts = vectors.split([c.shape[1] for c in self.codebooks], dim=1)
        codes = [nearest(part, book) for part, book in zip(parts, self.codebooks, strict=True)]
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """(N, n) float32 vectors of ``codes: (N, m)`` int64."""
        parts = [c.index_select(0, codes[:, j]) for j, c in enumerate(self.codebooks)]
        vectors = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return vectors if self.rotation is None else linear(vectors, self.rotation.T)

    def join(self, codewords: Sequence[Tensor]) -> Tensor:
        """(N, n) vectors of m ``codewords: (N, n_j)``, one of each codebook or a mixture of its own; differentiable."""
        vectors = torch.cat(list(codewords), dim=1)
        return vectors if self.rotation is None else vectors @ self.rotation
