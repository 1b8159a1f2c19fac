"""The entropy model of a latent: a scale hyperprior with means, in passes (Ballé et al. 2018, Minnen et al. 2018).

Side information z tells for each number of the latent y the mean and the scale of a Gaussian. The channels of y are
coded in groups, of unequal sizes (Minnen & Singh 2020, He et al. 2022), the sites of a group in two passes, like the
two colours of a chessboard (He et al. 2021): the second is also told by its neighbours, which are known by then, and
all of a group by the groups before it. What is here is for training, in floating point. Files are written with
`difflate.entropy.hyperprior`, the same network in integers, made from this one by `HyperpriorNetwork.fixed_point`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.diffusion.draws import Generators
from difflate.entropy.fixed_point import ONE, from_biases, from_weights, to_biases, to_weights
from difflate.entropy.gaussian import RUNGS, SCALE_MAX, SCALE_MIN, rounding_offsets
from difflate.entropy.hyperprior import RUNGS_PER_UNIT, Z_STRIDE, layers_of
from difflate.errors import ConfigError, ModelError
from difflate.nn.entropy_models import FactorizedPrior, add_noise, gaussian_bits, lower_bound, round_through
from difflate.nn.layers import conv, rescale, settle, zero_weights
from difflate.nn.padding import pad_to_multiple
from difflate.nn.soft_rounding import SoftRounding
from difflate.quantize.scalar import straight_through

RUNG = math.log(SCALE_MAX / SCALE_MIN) / (RUNGS - 1)
"""The logarithm of the ratio of two neighbours in the ladder of scales."""
_MAX_CHANNELS = 4096
_MAX_GROUPS = 16


@dataclass(frozen=True)
class HyperpriorConfig:
    """Shape of a `HyperpriorNetwork`."""

    channels: int = 64
    """Channels of the side information z."""
    width: int = 128
    """Channels of its analysis, and of the first layer of its synthesis."""
    features: int = 192
    """Channels of what the synthesis tells of each site, and of the layer behind it."""
    groups: list[int] | tuple[int, ...] = (1,)
    """Groups of channels, in the order of coding, and what share of the latent's channels each has: [1, 2, 4, 9] of 256
    are 16, 32, 64 and 144. The first have the channels that vary most. One group: only neighbours tell of others."""

    def __post_init__(self) -> None:
        for name in ("channels", "width", "features"):
            if not 1 <= getattr(self, name) <= _MAX_CHANNELS:
                raise ConfigError(f"`{name}` (={getattr(self, name)}) must be from 1 to {_MAX_CHANNELS}")
        if not 1 <= len(self.groups) <= _MAX_GROUPS or not all(1 <= share <= _MAX_CHANNELS for share in self.groups):
            raise ConfigError(
                f"`groups` (={list(self.groups)}) must be 1 to {_MAX_GROUPS} shares from 1 to {_MAX_CHANNELS}"
            )

    def group_sizes(self, latent_channels: int) -> list[int]:
        """Channels of each group. Raises ConfigError if one would have none."""
        shares = np.array(self.groups)
        sizes = np.diff(np.rint(latent_channels * shares.cumsum() / shares.sum()), prepend=0).astype(int)
        if sizes.min() < 1:
            raise ConfigError(
                f"`groups` (={list(self.groups)}) leave one without any of {latent_channels} latent channels; "
                "ask for fewer groups, or for shares that differ less"
            )
        return sizes.tolist()


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
        self.sizes = config.group_sizes(m)
        first = self.sizes[0]
        self.hidden = conv(f, f, 1)
        self.out = conv(f, 2 * first, 1)
        # from the other colour's sites around: their values for the mean, their sizes for the scale
        self.near_values = zero_weights(nn.Conv2d(m, m, 5, padding=2, groups=m))
        self.near_sizes = nn.Conv2d(m, m, 5, padding=2, groups=m, bias=False)
        self.near_mix = nn.Conv2d(first, f, 1, bias=False)
        # wherever the model is built: on the CPU. Of equal deviations the lower channel comes first
        by_deviation = np.arange(m) if spread is None else (-spread.numpy()).argsort(kind="stable")
        self.group_of = np.empty(m, np.int16)
        """(M,) the group of each channel."""
        self.group_of[by_deviation] = np.repeat(np.arange(len(self.sizes)), self.sizes)
        if len(self.sizes) > 1:
            starts = np.cumsum(self.sizes)[:-1].tolist()
            self.later = nn.ModuleList(
                _Later(f, first, start, size) for start, size in zip(starts, self.sizes[1:], strict=True)
            )
        device = self.out.weight.device
        with torch.no_grad():
            self.near_sizes.weight.copy_(neighbours() / neighbours().sum())
            _start(self.near_mix, self.out)
            # the scale of each channel, and how it rises with the quality's gain; on the CPU, as `spread` is
            gains = torch.linspace(-gain_range, gain_range, QUALITY_KNOTS, dtype=torch.float32, device="cpu")
            spread = torch.ones(m, dtype=torch.float32, device="cpu") if spread is None else 0.6 * spread
            theory = gains[:, None] + (spread / SCALE_MIN).log()
            # the name of a stored tensor, which fingerprints depend on: the rungs of each quality
            self.level_rungs = nn.Parameter((theory / RUNG / RUNGS_PER_UNIT).to(device))
        self.mask: Tensor
        self.offsets: Tensor
        self.order: Tensor
        self.place: Tensor
        self.register_buffer("mask", neighbours().to(device), persistent=False)
        self.register_buffer("offsets", torch.from_numpy(rounding_offsets()).float().to(device), persistent=False)
        order = torch.from_numpy(self.group_of.argsort(kind="stable"))
        self.register_buffer("order", order.to(device), persistent=False)  # channels in the order of coding
        self.register_buffer("place", torch.from_numpy(order.numpy().argsort()).to(device), persistent=False)
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
        y_hat, y_bits = [], []
        known = _Known(features)
        softly = [replace(rounding, noise=part) for part in self._by_group(rounding.noise)] if rounding else []
        for y_group, group in zip(self._by_group(y), self._groups(quality), strict=True):
            soft = softly[len(y_hat)] if softly else None
            told = group.told(known)
            mean, scale = group.parameters(told, None)
            residual = self._round(y_group - mean, scale, soft) * first
            mean_2, scale_2 = group.parameters(told, ((residual + mean) * first, residual))
            mean, scale = torch.where(first > 0, mean, mean_2), torch.where(first > 0, scale, scale_2)
            residual = y_group - mean
            integers = self._round(residual, scale, soft)
            y_hat.append(integers + mean)
            if soft is not None:
                bits = soft.bits(integers, scale)
            else:
                bits = gaussian_bits(add_noise(residual, generator) if self.training else integers, scale)
            y_bits.append(bits.flatten(1).sum(1))
            if len(y_hat) < len(self.sizes):
                known.add(group, y_hat[-1], integers)
        return Coded(self._joined(y_hat), torch.stack(y_bits).sum(0), z_bits.flatten(1).sum(1))

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

    def side_information(self, y: Tensor) -> Tensor:
        """(B, Z, ⌈h/4⌉, ⌈w/4⌉) integers of ``y: (B, M, h, w)``."""
        return self.hyper_analysis(y).round()

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
        self, y_hat: Tensor, integers: Tensor, features: Tensor, quality: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(mean, scale): each (B, M, h, w), as they are for coding ``y_hat`` and ``integers``, (B, M, h, w) as well.

        ``features: (B, F, h, w)`` are `hyper_synthesis`'s, ``quality: (B,)``.
        """
        first, means, scales, known = chessboard(y_hat), [], [], _Known(features)
        parts = zip(self._by_group(y_hat), self._by_group(integers), self._groups(quality), strict=True)
        for values, whole, group in parts:
            told = group.told(known)
            (mean, scale), (mean_2, scale_2) = (
                group.parameters(told, near) for near in (None, (values * first, whole * first))
            )
            means.append(torch.where(first > 0, mean, mean_2))
            scales.append(torch.where(first > 0, scale, scale_2))
            known.add(group, values, whole)
        return self._joined(means), self._joined(scales)

    def _by_group(self, x: Tensor, dim: int = 1) -> tuple[Tensor, ...]:
        """The channels of each group of ``x``, which has M along ``dim``."""
        return x.index_select(dim, self.order).split(self.sizes, dim) if len(self.sizes) > 1 else (x,)

    def _joined(self, groups: list[Tensor]) -> Tensor:
        """(B, M, h, w) of (B, C, h, w) for each group."""
        return torch.cat(groups, dim=1).index_select(1, self.place) if len(groups) > 1 else groups[0]

    def _groups(self, quality: Tensor) -> list["_Group"]:
        """The groups at ``quality: (B,)``."""
        assert self.near_values.bias is not None
        parts = (
            self._by_group(between(self.level_rungs, quality)[:, :, None, None]),
            self._by_group(self.near_values.weight * self.mask, 0),
            self._by_group(self.near_values.bias, 0),
            self._by_group(self.near_sizes.weight * self.mask, 0),
        )
        layers = [self, *self.later] if len(self.sizes) > 1 else [self]
        return [_Group(*part) for part in zip(layers, *parts, strict=True)]

    @torch.no_grad()
    def fixed_point(self) -> dict[str, np.ndarray]:
        """The tensors of `difflate.entropy.hyperprior.HyperpriorCoder`. Raises ModelError for weights out of range."""
        values = {name: value.cpu().double().numpy() for name, value in self.state_dict().items()}
        known = self.mask[0, 0].cpu().numpy() > 0
        tensors = {}
        biased, plain, direct = layers_of(len(self.sizes))
        for layer in (*biased, *plain, *direct):
            weight = values[f"{layer}.weight"].transpose(2, 3, 1, 0)  # the window's rows, its columns, inputs; outputs
            tensors[f"{layer}.weight"] = to_weights(weight.reshape(-1, weight.shape[3]))
        for layer in ("near_values", "near_sizes"):
            tensors[f"{layer}.weight"] = to_weights(values[f"{layer}.weight"][:, 0, known].T)
        for layer in (*biased, "near_values"):
            tensors[f"{layer}.bias"] = to_biases(values[f"{layer}.bias"])
        tensors["level_rungs"] = to_biases(values["level_rungs"] * RUNGS_PER_UNIT)
        tensors["log_sizes"] = np.rint(np.log1p(np.arange(_LOG_SIZES)) * ONE).astype(np.int32)
        if len(self.sizes) > 1:
            tensors["channel_groups"] = self.group_of
        return tensors

    @property
    def fixed_names(self) -> list[str]:
        """The names of `state_dict` that `fixed_point` has integers of, and `fill` fills."""
        biased, plain, direct = layers_of(len(self.sizes))
        weights = [f"{layer}.weight" for layer in (*biased, *plain, *direct, "near_values", "near_sizes")]
        return [*weights, *(f"{layer}.bias" for layer in (*biased, "near_values")), "level_rungs"]

    @torch.no_grad()
    def fill(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Sets the weights that ``tensors`` are of, the inverse of `fixed_point`, which then gives them again.

        Raises ModelError for integers of another shape or network.
        """
        groups = tensors.get("channel_groups", np.zeros(len(self.group_of), np.int16))
        if not np.array_equal(groups, self.group_of):
            raise ModelError("the groups of the entropy model are not those of its config.json; get the folder again")
        known, state = self.mask[0, 0].cpu().numpy() > 0, self.state_dict()
        filled = {}
        for name in self.fixed_names:
            shape, fixed = tuple(state[name].shape), tensors[name]
            near = name in ("near_values.weight", "near_sizes.weight")
            window = (int(known.sum()), 1, 1) if near else (*shape[2:], *shape[1:2])
            wanted = (math.prod(window), shape[0]) if name.endswith(".weight") else shape
            if fixed.shape != wanted:
                raise ModelError(f"tensor {name} (={fixed.shape}) must be {wanted}; get the model folder again")
            if near:  # the sites that are not known count for nothing
                values = np.zeros(shape)
                values[:, 0, known] = from_weights(fixed).T
            elif name.endswith(".weight"):
                values = from_weights(fixed).reshape(*window, shape[0]).transpose(3, 2, 0, 1)
            else:
                values = from_biases(fixed) / (RUNGS_PER_UNIT if name == "level_rungs" else 1)
            filled[name] = torch.from_numpy(np.ascontiguousarray(values)).float()
        self.load_state_dict(filled, strict=False)


def _start(near_mix: nn.Conv2d, out: nn.Conv2d) -> None:
    """What is told by neighbours starts small, and means and rungs about as if nothing was told."""
    rescale(near_mix.weight, 0.3)
    rescale(out.weight, 0.1)
    assert out.bias is not None
    nn.init.zeros_(out.bias)


class _Later(nn.Module):
    """The layers of a group that is told by others before it. Their width is half: sizes say what features need not."""

    def __init__(self, features: int, first: int, earlier: int, channels: int):
        """A group of ``channels`` behind ``earlier`` ones, ``first`` of them those of the first group."""
        super().__init__()
        width = -(-features // 2)
        self.hidden = conv(features + 2 * earlier, width, 1)
        self.near_mix = nn.Conv2d(channels, width, 1, bias=False)
        self.out = conv(width, 2 * channels, 1)
        # the lowest frequencies of the blocks around say most about others here; of the rest, the same place
        self.lead = nn.Conv2d(first, channels, 3, padding=1, bias=False)
        self.values = nn.Conv2d(earlier - first, channels, 1, bias=False) if earlier > first else None
        nn.init.zeros_(self.lead.weight)
        if self.values is not None:
            nn.init.zeros_(self.values.weight)
        with torch.no_grad():
            _start(self.near_mix, self.out)


class _Known:
    """What is known of a site when a group is coded."""

    def __init__(self, features: Tensor):
        """``features: (B, F, h, w)`` of the side information."""
        self.features = features
        self.values: list[Tensor] = []
        """(B, C, h, w) y_hat of each group that was coded."""
        self.sizes: list[Tensor] = []
        """(B, C, h, w) log(1 + |q|) of each of them."""
        self.near: list[Tensor] = []
        """(B, C, h, w) how large the numbers of each of them around the site are."""

    def add(self, group: "_Group", values: Tensor, integers: Tensor) -> None:
        """A group that was coded."""
        self.values.append(values)
        self.sizes.append(integers.abs().log1p())
        self.near.append(group.sizes_near(integers))


@dataclass(frozen=True)
class _Group:
    """A group of C channels, at the qualities of a batch."""

    layers: HyperpriorNetwork | _Later
    rungs: Tensor
    """(B, C, 1, 1) what the quality adds."""
    near_values: Tensor
    """(C, 1, 5, 5)"""
    near_bias: Tensor
    """(C,)"""
    near_sizes: Tensor
    """(C, 1, 5, 5)"""

    def told(self, known: _Known) -> tuple[Tensor, Tensor | None]:
        """What a site is told beside its neighbours in the group: (B, ·, h, w) in front of the hidden layer's ReLU, and
        (B, C, h, w) for the mean."""
        layers = self.layers
        if not isinstance(layers, _Later):
            return layers.hidden(known.features), None
        mean = layers.lead(known.values[0])
        if layers.values is not None:
            mean = mean + layers.values(torch.cat(known.values[1:], dim=1))
        return layers.hidden(torch.cat([known.features, *known.sizes, *known.near], dim=1)), mean

    def sizes_near(self, integers: Tensor) -> Tensor:
        """(B, C, h, w) how large the 12 neighbours of each site of ``integers``, same shape, are."""
        return F.conv2d(integers.abs().log1p(), self.near_sizes, padding=2, groups=integers.shape[1])

    def parameters(
        self, told: tuple[Tensor, Tensor | None], near: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """(mean, scale): each (B, C, h, w). ``near``: y_hat and integers of the sites known, (B, C, h, w), 0 elsewhere.

        Without it: for the sites of the first pass.
        """
        hidden, offset = told
        if near is not None:
            hidden = hidden + self.layers.near_mix(self.sizes_near(near[1]))
        mean, rung = self.layers.out(F.relu(hidden)).chunk(2, dim=1)
        rung = rung + self.rungs
        if near is not None:
            mean = mean + F.conv2d(near[0], self.near_values, self.near_bias, padding=2, groups=mean.shape[1])
        if offset is not None:
            mean = mean + offset
        return mean, SCALE_MIN * (RUNG * lower_bound(RUNGS_PER_UNIT * rung, 0.0).clamp_max(2 * RUNGS)).exp()


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
