"""Finite scalar quantization (Mentzer et al. 2023): each channel rounded to a few values, without learned codebooks."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from difflate.diffusion.categorical import IndexSpace
from difflate.errors import ConfigError

_MAX_SIZE = 1 << 16
_BEYOND = 1e-3
"""How far the bound reaches beyond the outermost values; the paper's ε."""


def straight_through(chosen: Tensor, x: Tensor) -> Tensor:
    """``chosen``, same shape as ``x``, which it was made of; the gradient passes straight through to x."""
    return x + (chosen - x).detach()


class FiniteScalarQuantizer(nn.Module):
    """Codes each of C channels as one of L_c values, evenly spaced from -1 to 1.

    Index 0 is -1 and L - 1 is 1, so neighbouring indices are neighbouring values. In training `quantize` stands in the
    place of `encode` and `decode`.
    """

    def __init__(self, levels: Sequence[int]):
        """``levels``: L_c, how many values each channel has. Raises ConfigError."""
        super().__init__()
        if not levels or not all(isinstance(size, int) and 2 <= size <= _MAX_SIZE for size in levels):
            raise ConfigError(f"`levels` (={levels}) must be one or more whole numbers from 2 to {_MAX_SIZE}")
        self.sizes = list(levels)
        """Number of values of each channel."""
        self._space = IndexSpace(tuple(levels))
        # Where L is even, 0 is between two values; as in the paper, z is shifted so that it stands for one of them. Of
        # two values the shift would leave one out of reach: there the sign of z decides.
        shifts = [0.0 if size % 2 or size == 2 else math.atanh(1 / ((1 + _BEYOND) * (size - 1))) for size in levels]
        self.shift: Tensor
        self.register_buffer("shift", torch.tensor(shifts, dtype=torch.float32), persistent=False)

    @property
    def codebooks(self) -> list[Tensor]:
        """C of (L_c, 1) float32: the values of each channel."""
        device = self.shift.device
        return [IndexSpace((size,)).scale(torch.arange(size, device=device)[:, None]) for size in self.sizes]

    def encode(self, vectors: Tensor) -> Tensor:
        """(N, C) or (B, C, …) int64 indices of the values nearest to ``vectors``, same shape, in about [-1, 1]."""
        return self._space.indices(vectors)

    def decode(self, codes: Tensor) -> Tensor:
        """(N, C) or (B, C, …) float32 values in [-1, 1] of ``codes``, int64, same shape."""
        return self._space.scale(codes)

    def join(self, codewords: Sequence[Tensor]) -> Tensor:
        """(N, C) vectors of C ``codewords: (N, 1)``, one of each channel or a mixture of its own; differentiable."""
        return torch.cat(list(codewords), dim=1)

    def bound(self, z: Tensor) -> Tensor:
        """``z: (B, C, …)``, any numbers, within ± 1.001; float32, or float64 as it is; same shape.

        1.001·tanh(z + shift), which takes 0 to a value of the channel (Mentzer et al. 2023, Listing 1).
        """
        z = z if z.dtype == torch.float64 else z.float()
        return (1 + _BEYOND) * (z + self.shift.reshape(-1, *[1] * (z.ndim - 2))).tanh()

    def quantize(self, z: Tensor) -> Tensor:
        """``z: (B, C, …)`` bounded and rounded to values of `codebooks`, same shape; the gradient is `bound`'s."""
        bounded = self.bound(z)
        return straight_through(self.decode(self.encode(bounded)).to(bounded), bounded)
