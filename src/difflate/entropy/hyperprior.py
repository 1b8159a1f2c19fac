"""Latents as bits: the exact stage of the codecs with a hyperprior.

`HyperpriorCoder` is `difflate.nn.entropy_network.HyperpriorNetwork` in integers (`difflate.entropy.fixed_point`). Side
information z is coded first, each channel with a table of its own; it gives each number of the latent y a mean and one
of 64 scales. Then y is coded group of channels by group, each in two passes over the sites, as integers
round(y - mean), in bands of rows.

BITSTREAM: all of it. docs/format.md says the same in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from difflate.entropy.coder import SymbolReader, SymbolWriter
from difflate.entropy.factorized import FactorizedCoder
from difflate.entropy.fixed_point import (
    ACTIVATION_MAX,
    ONE,
    check,
    conv3x3,
    pixel_shuffle,
    relu,
    shift,
)
from difflate.entropy.gaussian import RUNGS, rounding_offsets
from difflate.entropy.latent import Latent, channel_index, from_decoder, to_symbols
from difflate.entropy.tables import Tables
from difflate.errors import ModelError

QUALITY_MAX = 65535
"""A quality in files is a whole number from 0 to this, which is quality 100."""
Z_STRIDE = 4
"""Sites of y, in height and width, for one of z."""
_BAND_SITES = 8192
"""Sites of a band, which bounds the memory of large images."""
_MEAN_MAX = 1 << 22
RUNGS_PER_UNIT = 8
"""The network counts scales in so many rungs of the ladder: it learns them faster than in single ones."""
_NEAR = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if (i + j) % 2]
"""(row, column) of the neighbours that the second pass of a group knows, 12 of them."""
_AROUND = [(i, j) for i in range(-1, 2) for j in range(-1, 2)]
"""(row, column) of the sites whose numbers of the first group later groups know."""
_KEYS = (
    "synthesis.0.weight", "synthesis.0.bias", "synthesis.1.weight", "synthesis.1.bias", "hidden.weight", "hidden.bias",
    "out.weight", "out.bias", "near_values.weight", "near_values.bias", "near_sizes.weight", "near_mix.weight",
    "level_rungs", "log_sizes",
)  # fmt: skip
"""Names of stored tensors; fingerprints, and so the numbers of models in files, depend on them. `level_rungs` is what
each quality adds to the rung."""
_Y_HAT = 16
"""y_hat may be so many times as large as an activation."""


class HyperpriorCoder:
    """Writes and reads latents; made from tensors of integers, those of a model's ``exact.safetensors``."""

    def __init__(self, tensors: dict[str, np.ndarray], z_tables: Tables, y_tables: Tables):
        """``tensors``: as `HyperpriorNetwork.fixed_point` gives them. Raises ModelError if they do not fit."""
        self.tensors, self.z_tables, self.y_tables = tensors, z_tables, y_tables
        missing = [key for key in _KEYS if key not in tensors]
        if missing:
            raise ModelError(f"tensor {missing[0]} of the entropy model is missing; get the model folder again")
        w = {key: np.asarray(value, np.float64) for key, value in tensors.items()}
        self.channels = len(z_tables)
        self.latent_channels = w["near_values.bias"].size
        self.groups = _groups(tensors, self.latent_channels)
        """Numbers of the channels of each group, rising; groups are in the order of coding."""
        self._check_shapes(w)
        biased, plain, direct = layers_of(len(self.groups))
        for layer in biased:
            check(w[f"{layer}.weight"], w[f"{layer}.bias"])
        for layer in ("near_sizes", *plain):
            check(w[f"{layer}.weight"])
        for layer in ("near_values", *direct):
            check(_Y_HAT * w[f"{layer}.weight"])
        self._w = w
        self._layers = [self._layers_of(group) for group in range(len(self.groups))]

    def _check_shapes(self, w: dict[str, np.ndarray]) -> None:
        m, f = self.latent_channels, w["hidden.bias"].size
        n, first = w["synthesis.0.bias"].size // 4, self.groups[0].size
        wanted = {
            "synthesis.0.weight": (9 * self.channels, 4 * n), "synthesis.0.bias": (4 * n,),
            "synthesis.1.weight": (9 * n, 4 * f), "synthesis.1.bias": (4 * f,),
            "hidden.weight": (f, f), "hidden.bias": (f,), "out.weight": (f, 2 * first), "out.bias": (2 * first,),
            "near_values.weight": (12, m), "near_values.bias": (m,), "near_sizes.weight": (12, m),
            "near_mix.weight": (first, f),
        }  # fmt: skip
        earlier, width = first, -(-f // 2)
        for number, group in enumerate(self.groups[1:]):
            later = {
                "hidden.weight": (f + 2 * earlier, width), "hidden.bias": (width,), "out.bias": (2 * group.size,),
                "out.weight": (width, 2 * group.size), "near_mix.weight": (group.size, width),
                "lead.weight": (9 * first, group.size),
            }  # fmt: skip
            later |= {"values.weight": (earlier - first, group.size)} if number else {}
            wanted |= {f"later.{number}.{name}": shape for name, shape in later.items()}
            earlier += group.size
        for key, shape in wanted.items():
            if key not in w:
                raise ModelError(f"tensor {key} of the entropy model is missing; get the model folder again")
            if w[key].shape != shape:
                raise ModelError(f"tensor {key} (={w[key].shape}) must be {shape}; get the model folder again")
        if w["level_rungs"].ndim != 2 or w["level_rungs"].shape[1] != m or len(w["level_rungs"]) < 2:
            raise ModelError(f"tensor level_rungs (={w['level_rungs'].shape}) must be (2 or more, {m})")
        if w["log_sizes"].ndim != 1 or not w["log_sizes"].size or np.abs(w["log_sizes"]).max() > ACTIVATION_MAX:
            raise ModelError("tensor log_sizes must be a list of activations; get the model folder again")
        if len(self.y_tables) != RUNGS:
            raise ModelError(f"the latent has {len(self.y_tables)} tables, {RUNGS} are needed")

    def _layers_of(self, group: int) -> dict[str, np.ndarray]:
        """The weights and biases of a group: layers of its own, and its columns of what all channels have."""
        own, columns = f"later.{group - 1}." if group else "", self.groups[group]
        names = ("hidden.weight", "hidden.bias", "out.weight", "out.bias", "near_mix.weight")
        layers = {name: self._w[own + name] for name in (*names, *("lead.weight", "values.weight")[:group])}
        for name in ("near_values.weight", "near_values.bias", "near_sizes.weight"):
            layers[name] = np.ascontiguousarray(self._w[name][..., columns])
        return layers

    def exact_tensors(self) -> dict[str, np.ndarray]:
        """All that the meaning of a file's bits depends on: networks and tables, integers."""
        return self.tensors | self.z_tables.to_tensors("z_tables") | self.y_tables.to_tensors("y_tables")

    # -- writing and reading, in the same order ----------------------------------------------------------------------

    def encode(self, y: np.ndarray, z: np.ndarray, quality: int, writer: SymbolWriter) -> Latent:
        """Writes ``y: (M, h, w)`` float32 in quantizer steps with side information ``z: (Z, ⌈h/4⌉, ⌈w/4⌉)`` integers.

        ``quality``: 0 to `QUALITY_MAX`. What is beyond ± 32767 is clipped.
        """
        z = to_symbols(z)
        writer.write(z, self.z_tables, channel_index(z.shape))
        y = y.transpose(1, 2, 0)
        state = _State(y.shape[0], y.shape[1], self.groups)
        for group, sites, mean, index in self._steps(z, quality, state):
            values = y[sites][:, self.groups[group]]
            q = to_symbols(_round_thriftily(values - mean.astype(np.float32) / ONE, index))
            writer.write(q, self.y_tables, index)
            state.put(group, sites, q, mean)
        return state.latent(z)

    def decode(self, height: int, width: int, quality: int, reader: SymbolReader) -> Latent:
        """The latent of h x w = ``height`` x ``width`` sites. Raises DesyncError for symbols that cannot be."""
        shape = (self.channels, -(-height // Z_STRIDE), -(-width // Z_STRIDE))
        z = from_decoder(reader.read(int(np.prod(shape)), self.z_tables, channel_index(shape))).reshape(shape)
        state = _State(height, width, self.groups)
        for group, sites, mean, index in self._steps(z, quality, state):
            q = from_decoder(reader.read(index.size, self.y_tables, index)).reshape(mean.shape)
            state.put(group, sites, q, mean)
        return state.latent(z)

    def _steps(self, z: np.ndarray, quality: int, state: _State) -> Iterator[tuple[int, tuple, np.ndarray, np.ndarray]]:
        """The steps, of each its group of C channels, its S sites (row numbers, column numbers), and (S, C) means and
        table numbers.

        The caller puts the step's symbols into ``state`` before it goes on.
        """
        rungs = self._quality_rungs(quality)
        rows = max(Z_STRIDE, _BAND_SITES // state.width // Z_STRIDE * Z_STRIDE)
        features = self._features(z, rows // Z_STRIDE)
        for group, channels in enumerate(self.groups):
            for colour in (0, 1):
                for top in range(0, state.height, rows):
                    bottom = min(top + rows, state.height)
                    i, j = np.meshgrid(np.arange(top, bottom), np.arange(state.width), indexing="ij")
                    chosen = (i + j) % 2 == colour
                    if not chosen.any():
                        continue
                    sites = i[chosen], j[chosen]
                    if group or colour:
                        self._describe(state, group if colour else group - 1, sites)
                    mean, index = self._parameters(features[sites], rungs[channels], state, group, colour, sites)
                    yield group, sites, mean, index

    # -- the network -------------------------------------------------------------------------------------------------

    def _features(self, z: np.ndarray, rows: int) -> np.ndarray:
        """(4·h, 4·w, F) float32 features of ``z: (Z, h, w)``, made of ``rows`` of it at a time.

        Beyond the edges the last row and column are repeated, in front of either layer. Activations fit into float32.
        """
        w, (_, height, width) = self._w, z.shape
        z = z.transpose(1, 2, 0).astype(np.float64) * ONE
        features = np.empty((Z_STRIDE * height, Z_STRIDE * width, w["hidden.bias"].size), np.float32)
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            first, last = max(top - 1, 0), min(bottom + 1, height)
            places = np.arange(first - 1, last + 1).clip(0, height - 1)
            columns = np.arange(-1, width + 1).clip(0, width - 1)
            x = z[places[:, None], columns]
            x = pixel_shuffle(relu(conv3x3(x, w["synthesis.0.weight"], w["synthesis.0.bias"])))
            places = np.arange(2 * top - 1, 2 * bottom + 1).clip(0, 2 * height - 1) - 2 * first
            columns = np.arange(-1, 2 * width + 1).clip(0, 2 * width - 1)
            x = x[places[:, None], columns]
            x = pixel_shuffle(relu(conv3x3(x, w["synthesis.1.weight"], w["synthesis.1.bias"])))
            features[Z_STRIDE * top : Z_STRIDE * bottom] = x
        return features

    def _parameters(
        self, features: np.ndarray, rungs: np.ndarray, state: _State, group: int, colour: int, sites: Sites
    ) -> tuple[np.ndarray, np.ndarray]:
        """(S, C) int64 means in units of 2^-8, and int64 table numbers, of a group's C channels at the S ``sites``.

        ``features: (S, F)`` of the sites, ``rungs: (C,)`` of the channels.
        """
        w, c = self._layers[group], self.groups[group].size
        inside = sites[0] + 2, sites[1] + 2
        inputs = [features.astype(np.float64)]
        inputs += [self._sizes(state.q[earlier][inside]) for earlier in range(group)]
        inputs += [state.near[earlier][sites] for earlier in range(group)]
        sums = np.concatenate(inputs, axis=1) @ w["hidden.weight"]
        sums += w["hidden.bias"]
        if colour:
            sums += state.described @ w["near_mix.weight"]
        out = relu(sums) @ w["out.weight"]
        out += w["out.bias"]
        mean, rung = out[:, :c], out[:, c:]
        if colour:
            mean += _weighted(state.y_hat[group], sites, w["near_values.weight"]) + w["near_values.bias"]
        if group:
            around = [state.y_hat[0][inside[0] + i, inside[1] + j] for i, j in _AROUND]
            mean += np.concatenate(around, axis=1).astype(np.float64) @ w["lead.weight"]
        if group > 1:
            values = [state.y_hat[earlier][inside] for earlier in range(1, group)]
            mean += np.concatenate(values, axis=1).astype(np.float64) @ w["values.weight"]
        mean = np.clip(shift(mean), -_MEAN_MAX, _MEAN_MAX).astype(np.int64)
        index = np.clip(shift(RUNGS_PER_UNIT * rung + rungs), 0, ONE * (RUNGS - 1)).astype(np.int64)
        return mean, (index + ONE // 2) // ONE

    def _describe(self, state: _State, group: int, sites: Sites) -> None:
        """Notes in ``state`` how large the group's numbers around ``sites`` are: (S, C) activations."""
        sums = _weighted(state.q[group], sites, self._layers[group]["near_sizes.weight"], self._sizes)
        state.described = np.clip(shift(sums), -ACTIVATION_MAX, ACTIVATION_MAX, out=sums)
        if group < len(state.near):
            state.near[group][sites] = state.described

    def _sizes(self, q: np.ndarray) -> np.ndarray:
        """log(1 + |q|) of integers, same shape, as float64 activations."""
        table = self._w["log_sizes"]
        return table[np.minimum(np.abs(q), table.size - 1)]

    def _quality_rungs(self, quality: int) -> np.ndarray:
        """(M,) float64 whole numbers, in units of 2^-20 rungs: what the quality adds to the table number."""
        knots = self.tensors["level_rungs"].astype(np.int64)
        place = quality * (len(knots) - 1)
        left = min(place // QUALITY_MAX, len(knots) - 2)
        share = place - left * QUALITY_MAX
        return ((knots[left] * (QUALITY_MAX - share) + knots[left + 1] * share) // QUALITY_MAX).astype(np.float64)


def _round_thriftily(residual: np.ndarray, index: np.ndarray) -> np.ndarray:
    """``residual`` rounded, down by one where that saves more bits than it costs: see `rounding_offsets`."""
    size = np.abs(residual)
    n = np.rint(size)
    offset = _OFFSETS[index, np.minimum(n, _OFFSETS.shape[1] - 1).astype(np.int64)]
    return np.copysign(n - (size < n - 0.5 + offset), residual)


_OFFSETS = rounding_offsets().astype(np.float32)


Sites = tuple[np.ndarray, np.ndarray]
"""(S,) row numbers and (S,) column numbers, both rising with the rows."""


def _weighted(
    plane: np.ndarray, sites: Sites, weights: np.ndarray, of: Callable[[np.ndarray], np.ndarray] | None = None
) -> np.ndarray:
    """(S, C) float64 sums over the 12 neighbours of each site of ``plane: (h + 4, w + 4, C)``, or of what ``of`` makes
    of it, times ``weights: (12, C)``."""
    top, width = sites[0][0], plane.shape[1]
    part = plane[top : sites[0][-1] + 5]
    flat = (of(part) if of else part.astype(np.float64)).reshape(-1, plane.shape[2])
    centre = (sites[0] - top + 2) * width + sites[1] + 2
    sums, term = np.zeros((len(centre), plane.shape[2])), np.empty((len(centre), plane.shape[2]))
    for (i, j), weight in zip(_NEAR, weights, strict=True):
        np.take(flat, centre + i * width + j, axis=0, out=term, mode="clip")  # "raise" would copy once more
        term *= weight
        sums += term
    return sums


class _State:
    """What is known of a latent, by group: q, and y_hat in units of 2^-8, both with a margin of 2 for neighbours
    outside, and how large the numbers around each site are."""

    def __init__(self, height: int, width: int, groups: list[np.ndarray]):
        self.height, self.width, self.groups = height, width, groups
        self.q = [np.zeros((height + 4, width + 4, group.size), np.int16) for group in groups]
        self.y_hat = [np.zeros((height + 4, width + 4, group.size), np.int32) for group in groups]
        self.near = [np.zeros((height, width, group.size), np.int32) for group in groups[:-1]]
        """Activations; later groups ask for those of earlier ones."""
        self.described = np.empty(0)
        """(S, C) those of the last group and sites that were asked for."""

    def put(self, group: int, sites: Sites, q: np.ndarray, mean: np.ndarray) -> None:
        """Stores what was coded of a group at ``sites``: (S, C) each."""
        i, j = sites[0] + 2, sites[1] + 2
        self.q[group][i, j] = q
        self.y_hat[group][i, j] = q.astype(np.int64) * ONE + mean

    def latent(self, z: np.ndarray) -> Latent:
        """What was coded; the state gives up its own, group by group, for two copies of large images are too many."""
        channels = sum(group.size for group in self.groups)
        self.near, self.described = [], np.empty(0)
        q = np.empty((channels, self.height, self.width), np.int16)
        wide = np.empty((self.height, self.width, channels), np.int32)
        for group in self.groups:
            q[group] = self.q.pop(0)[2:-2, 2:-2].transpose(2, 0, 1)
            wide[:, :, group] = self.y_hat.pop(0)[2:-2, 2:-2]
        return Latent(z, q, wide)


def layers_of(groups: int) -> tuple[list[str], list[str], list[str]]:
    """Names of the layers: those with biases, those without, and those without that y_hat goes through."""
    owners = ["", *(f"later.{n}." for n in range(groups - 1))]
    biased = ["synthesis.0", "synthesis.1", *(own + name for own in owners for name in ("hidden", "out"))]
    direct = [own + name for n, own in enumerate(owners) for name in ("lead", "values")[:n]]
    return biased, [own + "near_mix" for own in owners], direct


def _groups(tensors: dict[str, np.ndarray], channels: int) -> list[np.ndarray]:
    """The channels of each group. Without `channel_groups` all channels are one. Raises ModelError."""
    if "channel_groups" not in tensors:
        return [np.arange(channels)]
    group_of = tensors["channel_groups"]
    if group_of.shape != (channels,):
        raise ModelError(f"tensor channel_groups (={group_of.shape}) must be ({channels},); get the model folder again")
    found = np.unique(group_of)
    if not np.array_equal(found, np.arange(found.size)):
        raise ModelError("tensor channel_groups must number the groups 0, 1, 2 …; get the model folder again")
    return [np.flatnonzero(group_of == group) for group in found]


def coder_from(tensors: dict[str, np.ndarray]) -> HyperpriorCoder | FactorizedCoder:
    """The coder of a model's `exact_tensors`. Raises ModelError if they do not fit together."""
    for name, tensor in tensors.items():
        if tensor.dtype not in (np.int16, np.int32):
            raise ModelError(f"tensor {name} (={tensor.dtype}) must be of integers; get the model folder again")
    y_tables = Tables.from_tensors(tensors, "y_tables")
    if "z_tables.low" not in tensors:
        return FactorizedCoder(y_tables)
    network = {name: tensor for name, tensor in tensors.items() if "_tables." not in name}
    return HyperpriorCoder(network, Tables.from_tensors(tensors, "z_tables"), y_tables)
