"""The nearest codeword, the inner loop of every quantizer."""

import torch
from torch import Tensor

_ROWS = 2048
"""Vectors scored at a time: their (rows, K) scores stay in the second-level cache for the arg-max that follows."""

# oneDNN's float32 product, which torch.compile uses too: up to twice as fast as the one behind torch.addmm (measured
# on one AMD EPYC with AVX-512). Not in every build of torch, hence the fallback.
_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def linear(vectors: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(N, K) vectors @ weight.T + bias of ``vectors: (N, n)``, ``weight: (K, n)``, ``bias: (K,)``. No gradients."""
    if _ONEDNN is not None and vectors.device.type == "cpu" and vectors.dtype == torch.float32 and len(vectors):
        return _ONEDNN(vectors.detach(), weight.detach(), bias, "none", [], "")
    return torch.nn.functional.linear(vectors.detach(), weight.detach(), bias)


def score_bias(codebook: Tensor) -> Tensor:
    """(K,) minus half the squared norm of each codeword of ``codebook: (K, n)``."""
    return codebook.detach().square().sum(dim=1) / -2


def argmax_rows(scores: Tensor) -> Tensor:
    """(N,) int64 position of the largest entry of each row of ``scores: (N, K)``."""
    if scores.device.type == "cpu":  # numpy's arg-max is vectorised, torch's is not: 4 times faster (measured)
        return torch.from_numpy(scores.numpy().argmax(axis=1))
    return scores.argmax(dim=1)


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """(N,) int64 index of the codeword nearest to each vector, Eq. 9 of Scribano et al. 2023.

    ``vectors: (N, n)``, ``codebook: (K, n)`` float32.
    argmin ||x - c||^2 = argmax x.c - ||c||^2 / 2, one matrix product.
    """
    bias = score_bias(codebook)
    codes = [argmax_rows(linear(part, codebook, bias)) for part in vectors.split(_ROWS)]
    return torch.cat(codes) if codes else torch.empty(0, dtype=torch.int64, device=vectors.device)
