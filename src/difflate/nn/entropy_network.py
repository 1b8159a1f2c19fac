"""The entropy model of a latent: a scale hyperprior with means, in two passes (Ballé et al. 2018, Minnen et al. 2018).

Side information z tells for each number of the latent y the mean and the scale of a Gaussian. The sites of y are coded
in two passes, like the two colours of a chessboard (He et al. 2021): the second is also told by its neighbours, which
are known by then. What is here is for training, in floating point. Files are written with
`difflate.entropy.hyperprior`, the same network in integers, made from this one by `HyperpriorNetwork.fixed_point`.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.diffusion.draws import Generators
from difflate.diffusion.process import expand
from difflate.entropy.fixed_point import ONE, to_biases, to_weights
from difflate.entropy.gaussian import RUNGS, SCALE_MAX, SCALE_MIN, rounding_offsets
from difflate.entropy.hyperprior import RUNGS_PER_UNIT, Z_STRIDE
from difflate.errors import ConfigError
from difflate.nn.entropy_models import FactorizedPrior, add_noise, gaussian_bits, lower_bound, round_through
from difflate.nn.layers import conv, rescale, settle, zero_weights
from difflate.nn.padding import pad_to_multiple
from difflate.nn.soft_rounding import SoftRounding
from difflate.quantize.scalar import straight_through

RUNG = math.log(SCALE_MAX / SCALE_MIN) / (RUNGS - 1)
"""The logarithm of the ratio of two neighbours in the ladder of scales."""
_MAX_CHANNELS = 4096


@dataclass(frozen=True)
class HyperpriorConfig:
    """Shape of a `HyperpriorNetwork`."""

    channels: int = 64
    """Channels of the side information z."""
    width: int = 128
    """Channels of its analysis, and of the first layer of its synthesis."""
    features: int = 192
    """Channels of what the synthesis tells of each site, and of the layer behind it."""

    def __post_init__(self) -> None:
        for name in ("channels", "width", "features"):
            if not 1 <= getattr(self, name) <= _MAX_CHANNELS:
                raise ConfigError(f"`{name}` (={getattr(self, name)}) must be from 1 to {_MAX_CHANNELS}")


@dataclass(frozen=True)
class Coded:
    """A latent as training sees it."""

    y_hat: Tensor
    """(B, M, h, w) what a decoder gets."""
    y_bits: Tensor
    """(B,) estimated bits, with uniform noise for rounding; when not training, those of the integers."""
    z_bits: Tensor
    """(B,) estimated bits of the side information."""


class HyperpriorNetwork(nn.Module):
    """Bits and rounded values of a latent of ``latent_channels`` channels."""

    def __init__(
        self, config: HyperpriorConfig, latent_channels: int, gain_range: float = 0.0, spread: Tensor | None = None
    ):
        """``spread``: (M,) deviations of y at the middle quality, and ``gain_range``, the logarithm of the gain between
        there and the highest quality: what the network starts with, to save it some time."""
        super().__init__()
        m, n, f = latent_channels, config.width, config.features
        self.analysis = nn.Sequential(
            _conv(m, n), nn.ReLU(), _conv(n, n, 5, stride=2), nn.ReLU(), _conv(n, config.channels, 5, stride=2)
        )
        self.prior = FactorizedPrior(config.channels)
        # transposed convolutions as convolutions and PixelShuffle: the integer network has one kind of layer less
        self.synthesis = nn.Sequential(_conv(config.channels, 4 * n), _conv(n, 4 * f))
        self.hidden = conv(f, f, 1)
        self.out = conv(f, 2 * m, 1)
        # from the other colour's sites around: their values for the mean, their sizes for the scale
        self.near_values = zero_weights(nn.Conv2d(m, m, 5, padding=2, groups=m))
        self.near_sizes = nn.Conv2d(m, m, 5, padding=2, groups=m, bias=False)
        self.near_mix = nn.Conv2d(m, f, 1, bias=False)
        device = self.out.weight.device
        with torch.no_grad():
            self.near_sizes.weight.copy_(neighbours() / neighbours().sum())
            rescale(self.near_mix.weight, 0.3)
            rescale(self.out.weight, 0.1)
            assert self.out.bias is not None
            self.out.bias[:m] = 0
            self.out.bias[m:] = 0
            # the scale of each channel, and how it rises with the quality's gain; on the CPU, as `spread` is
            gains = torch.linspace(-gain_range, gain_range, QUALITY_KNOTS, dtype=torch.float32, device="cpu")
            spread = torch.ones(m, dtype=torch.float32, device="cpu") if spread is None else 0.6 * spread
            theory = gains[:, None] + (spread / SCALE_MIN).log()
            # the name of a stored tensor, which fingerprints depend on: the rungs of each quality
            self.level_rungs = nn.Parameter((theory / RUNG / RUNGS_PER_UNIT).to(device))
        self.mask: Tensor
        self.offsets: Tensor
        self.register_buffer("mask", neighbours().to(device), persistent=False)
        self.register_buffer("offsets", torch.from_numpy(rounding_offsets()).float().to(device), persistent=False)
        settle(self)

    def forward(
        self, y: Tensor, quality: Tensor, generator: Generators = None, rounding: SoftRounding | None = None
    ) -> Coded:
        """``y: (B, M, h, w)`` coded, in units of the quantizer's step at ``quality: (B,)``.

        Noise in the place of rounding, when training, is from ``generator``. ``rounding``: what y is fitted
        with, in the place of files' own.
        """
        z = self.hyper_analysis(y)
        z_hat = round_through(z)
        z_bits = self.prior.bits(add_noise(z, generator) if self.training else z_hat)
        features = self.hyper_synthesis(z_hat, y.shape[2:])
        first = chessboard(y)
        mean, scale = self.parameters_of(features, quality, None)
        residual = self._round(y - mean, scale, rounding) * first
        y_first = (residual + mean) * first
        mean_2, scale_2 = self.parameters_of(features, quality, (y_first, residual))
        mean, scale = torch.where(first > 0, mean, mean_2), torch.where(first > 0, scale, scale_2)
        residual = y - mean
        integers = self._round(residual, scale, rounding)
        if rounding is not None:
            bits = rounding.bits(integers, scale)
        else:
            bits = gaussian_bits(add_noise(residual, generator) if self.training else integers, scale)
        return Coded(integers + mean, bits.flatten(1).sum(1), z_bits.flatten(1).sum(1))

    def _round(self, residual: Tensor, scale: Tensor, rounding: SoftRounding | None) -> Tensor:
        """``residual`` in integers as files have them: down by one where that saves more bits than it costs; the
        gradient passes through."""
        if rounding is not None:
            return rounding(residual)
        with torch.no_grad():
            size = residual.abs()
            n = size.round()
            rung = ((scale / SCALE_MIN).log() / RUNG).round().clamp(0, RUNGS - 1).long()
            offset = self.offsets[rung, n.clamp_max(self.offsets.shape[1] - 1).long()]
            chosen = torch.copysign(n - (size < n - 0.5 + offset).to(n), residual)
        return straight_through(chosen, residual)

    def hyper_analysis(self, y: Tensor) -> Tensor:
        """(B, Z, ⌈h/4⌉, ⌈w/4⌉), not rounded, of ``y: (B, M, h, w)``."""
        y = pad_to_multiple(y, Z_STRIDE)
        return self.analysis(y.abs().log1p().copysign(y))  # y spans decades

    def hyper_synthesis(self, z_hat: Tensor, size: torch.Size) -> Tensor:
        """(B, F, *size) features of ``z_hat: (B, Z, ⌈h/4⌉, ⌈w/4⌉)``."""
        x = z_hat
        for layer in self.synthesis:
            x = F.pixel_shuffle(F.relu(layer(x)), 2)
        return x[:, :, : size[0], : size[1]]

    def parameters_of(
        self, features: Tensor, quality: Tensor, near: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """(mean, scale): each (B, M, h, w). ``near``: y_hat and integers of the sites known, (B, M, h, w), 0 elsewhere.

        Without it: for the sites of the first pass.
        """
        hidden = self.hidden(features)
        if near is not None:
            values, integers = near
            sizes = F.conv2d(
                integers.abs().log1p(), self.near_sizes.weight * self.mask, padding=2, groups=values.shape[1]
            )
            hidden = hidden + self.near_mix(sizes)
        mean, rung = self.out(F.relu(hidden)).chunk(2, dim=1)
        rung = rung + expand(between(self.level_rungs, quality), rung)
        if near is not None:
            layer = self.near_values
            mean = mean + F.conv2d(near[0], layer.weight * self.mask, layer.bias, padding=2, groups=layer.groups)
        return mean, SCALE_MIN * (RUNG * lower_bound(RUNGS_PER_UNIT * rung, 0.0).clamp_max(2 * RUNGS)).exp()

    @torch.no_grad()
    def fixed_point(self) -> dict[str, np.ndarray]:
        """The tensors of `difflate.entropy.hyperprior.HyperpriorCoder`. Raises ModelError for weights out of range."""
        values = {name: value.cpu().double().numpy() for name, value in self.state_dict().items()}
        known = self.mask[0, 0].cpu().numpy() > 0
        tensors = {}
        for layer in ("synthesis.0", "synthesis.1", "hidden", "out", "near_mix"):
            weight = values[f"{layer}.weight"].transpose(2, 3, 1, 0)  # the window's rows, its columns, inputs; outputs
            tensors[f"{layer}.weight"] = to_weights(weight.reshape(-1, weight.shape[3]))
        for layer in ("near_values", "near_sizes"):
            tensors[f"{layer}.weight"] = to_weights(values[f"{layer}.weight"][:, 0, known].T)
        for layer in ("synthesis.0", "synthesis.1", "hidden", "out", "near_values"):
            tensors[f"{layer}.bias"] = to_biases(values[f"{layer}.bias"])
        tensors["level_rungs"] = to_biases(values["level_rungs"] * RUNGS_PER_UNIT)
        tensors["log_sizes"] = np.rint(np.log1p(np.arange(_LOG_SIZES)) * ONE).astype(np.int32)
        return tensors


_LOG_SIZES = 256
"""Entries of the table of log(1 + |q|); larger integers are taken for the last."""


def _conv(width_in: int, width: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution with the edge repeated: crops of a few sites of z, as in training, are like the inside of one."""
    return conv(width_in, width, kernel, stride=stride, padding_mode="replicate")


QUALITY_KNOTS = 8
"""Qualities that have gains and scales of their own; those between are interpolated."""


def between(knots: Tensor, quality: Tensor) -> Tensor:
    """(B, M) ``knots: (8, M)`` interpolated at ``quality: (B,)`` in [0, 1]."""
    place = quality.clamp(0, 1) * (QUALITY_KNOTS - 1)
    left = place.floor().clamp_max(QUALITY_KNOTS - 2)
    return knots[left.long()].lerp(knots[left.long() + 1], (place - left)[:, None])


def neighbours() -> Tensor:
    """(1, 1, 5, 5) float32 on the CPU: 1 at the sites of the other colour, the 12 neighbours of the centre that the
    second pass knows."""
    return torch.from_numpy(np.indices((5, 5)).sum(0) % 2).float()[None, None]


def chessboard(y: Tensor) -> Tensor:
    """(1, 1, h, w) float: 1 at the sites of ``y: (B, M, h, w)`` that the first pass codes, row + column even."""
    rows, columns = (torch.arange(size, device=y.device) for size in y.shape[2:])
    return ((rows[:, None] + columns + 1) % 2).to(y.dtype)[None, None]
