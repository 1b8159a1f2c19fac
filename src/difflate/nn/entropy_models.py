"""Entropy models for training: the bits that integers will take, as differentiable functions (Ballé et al. 2018).

A codec is trained on values with uniform noise in the place of rounding; the tables that files are written with are
made from the trained models once, and stored: `difflate.entropy.gaussian.gaussian_tables`, `FactorizedPrior.tables`.
"""

import copy
import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.diffusion.draws import Generators, uniform
from difflate.entropy.gaussian import SCALE_MIN
from difflate.entropy.tables import Tables
from difflate.errors import ModelError
from difflate.quantize.scalar import straight_through

_LIKELIHOOD_MIN = 1e-9
"""30 bits: no value costs more in training, where an escape would take over."""


class _LowerBound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x >= bound)
        return x.clamp_min(bound)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (above,) = ctx.saved_tensors
        gradient = gradients[0]
        return gradient * (above | (gradient < 0)), None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """max(``x``, ``bound``), same shape, whose gradient still raises values that are below the bound."""
    out = _LowerBound.apply(x, bound)
    assert isinstance(out, Tensor)
    return out


def add_noise(x: Tensor, generator: Generators = None) -> Tensor:
    """``x: (B, …)`` + U(-½, ½), same shape: rounding, as the rate is trained with."""
    return x + (uniform(x.shape, generator, x.device) - 0.5).to(x)


def round_through(x: Tensor) -> Tensor:
    """``x`` rounded, same shape; the gradient passes straight through."""
    return straight_through(x.round(), x)


def gaussian_bits(y: Tensor, scale: Tensor) -> Tensor:
    """Bits of each of ``y``, same shape: values minus their mean, rounded or `add_noise`, of N(0, ``scale``²) rounded.

    -log2 of Φ((y + ½)/σ) - Φ((y - ½)/σ) (Ballé et al. 2018, Eq. 8); ``scale`` is kept at 0.11 or more.
    """
    scale = lower_bound(scale.float(), SCALE_MIN)
    distance = y.float().abs()  # by symmetry both terms are lower tails
    upper, lower = ((edge - distance) / scale for edge in (0.5, -0.5))
    # the difference of two logarithms, so that values of any size have a gradient that moves the scale to them
    log_upper = torch.special.log_ndtr(upper)
    log_mass = log_upper + torch.log1p(-(torch.special.log_ndtr(lower) - log_upper).exp())
    return lower_bound(log_mass, math.log(_LIKELIHOOD_MIN)) / -math.log(2)


class FactorizedPrior(nn.Module):
    """A distribution of its own for each channel, without any other assumption (Ballé et al. 2018, 6.1).

    Its cumulative distribution is a small monotone network: positive matrices, and between them x + tanh(a)·tanh(x).
    It needs no separately trained quantiles: what would centre the values, a bias of the layer before can do.
    """

    def __init__(self, channels: int, widths: tuple[int, ...] = (3, 3, 3), reach: float = 10.0):
        """``reach``: the distribution starts about so wide."""
        super().__init__()
        sizes = (1, *widths, 1)
        scale = reach ** (1 / (len(widths) + 1))
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for i, (before, after) in enumerate(pairwise(sizes)):
            start = math.log(math.expm1(1 / scale / after))
            self.matrices.append(torch.full((channels, after, before), start, dtype=torch.float32))
            self.biases.append(torch.empty(channels, after, 1, dtype=torch.float32).uniform_(-0.5, 0.5))
            if i < len(widths):
                self.factors.append(torch.zeros(channels, after, 1, dtype=torch.float32))

    def bits(self, z: Tensor) -> Tensor:
        """Bits of each of ``z: (B, C, …)``, rounded or `add_noise`, same shape."""
        values = z.float().movedim(1, 0).flatten(1).unsqueeze(1)  # (C, 1, B·…)
        lower, upper = self._logits(values - 0.5), self._logits(values + 0.5)
        sign = -(lower + upper).sign().detach()  # both into the tail where a sigmoid keeps its digits
        mass = ((sign * upper).sigmoid() - (sign * lower).sigmoid()).abs()
        bits = -lower_bound(mass, _LIKELIHOOD_MIN).log2()
        shape = (z.shape[1], z.shape[0], *z.shape[2:])
        return bits.squeeze(1).reshape(shape).movedim(0, 1)

    def _logits(self, x: Tensor) -> Tensor:
        """(C, 1, N) of ``x: (C, 1, N)``: the cumulative distribution before its sigmoid, rising in x."""
        for i, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = F.softplus(matrix) @ x + bias
            if i < len(self.factors):
                x = x + self.factors[i].tanh() * x.tanh()
        return x

    @torch.no_grad()
    def tables(self, tail: float = 1e-7, limit: int = 4096) -> Tables:
        """A table for each channel, from its first integer with ``tail`` below it to the last with as much above.

        Raises ModelError if a channel reaches beyond ± ``limit``.
        """
        model = copy.deepcopy(self).cpu().double()
        edges = torch.arange(-limit, limit + 2, dtype=torch.float64) - 0.5
        cumulative = model._logits(edges.expand(len(self.matrices[0]), 1, -1)).sigmoid()[:, 0].numpy()
        masses, escapes, low = [], [], []
        for channel, below in enumerate(cumulative):
            inside = np.flatnonzero((below[1:] > tail) & (below[:-1] < 1 - tail))
            if not inside.size or inside[0] == 0 or inside[-1] == 2 * limit:
                raise ModelError(f"channel {channel} of the prior reaches beyond {limit}; train it further")
            first, last = inside[0], inside[-1]
            masses.append(np.diff(below[first : last + 2]))
            escapes.append(below[first] + 1 - below[last + 1])
            low.append(int(first) - limit)
        return Tables.from_counts(masses, low, escapes)
