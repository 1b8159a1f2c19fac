"""Pseudo-ordinality: codewords re-indexed so that neighbouring indices mean similar patches."""

import torch
from torch import Tensor


def order_along_principal_axis(codebook: Tensor) -> Tensor:
    """(K, n) the codewords of ``codebook: (K, n)`` in their `principal_order`."""
    return codebook[principal_order(codebook)]


def principal_order(codebook: Tensor) -> Tensor:
    """(K,) int64: codewords of ``codebook: (K, n)`` by their projection on its first principal axis, descending.

    Scribano et al. 2023, 3.2.1 (Eq. 18 and 19). The axis points to where the codewords' sum grows, so that the order
    of a codebook of patches runs from bright to dark whatever sign the decomposition gives.
    """
    wide = codebook.double()
    centred = wide - wide.mean(dim=0)
    axis = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    if axis.sum() < 0:
        axis = -axis
    return torch.argsort(centred @ axis, descending=True, stable=True)
