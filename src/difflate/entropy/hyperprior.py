"""Latents as bits: the exact stage of the codecs with a hyperprior.

`HyperpriorCoder` is `difflate.nn.entropy_network.HyperpriorNetwork` in integers (`difflate.entropy.fixed_point`). Side
information z is coded first, each channel with a table of its own; it gives each number of the latent y a mean and one
of 64 scales. Then y is coded in two passes over the sites, as integers round(y - mean), in bands of rows.

BITSTREAM: all of it. docs/format.md says the same in words.
"""

from __future__ import annotations

from collections.abc import Iterator

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
"""(row, column) of the neighbours that the second pass knows, 12 of them."""
_KEYS = (
    "synthesis.0.weight", "synthesis.0.bias", "synthesis.1.weight", "synthesis.1.bias", "hidden.weight", "hidden.bias",
    "out.weight", "out.bias", "near_values.weight", "near_values.bias", "near_sizes.weight", "near_mix.weight",
    "level_rungs", "log_sizes",
)  # fmt: skip
"""Names of stored tensors; fingerprints, and so the numbers of models in files, depend on them. `level_rungs` is what
each quality adds to the rung."""


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
        self._check_shapes(w)
        for layer in ("synthesis.0", "synthesis.1", "hidden", "out"):
            check(w[f"{layer}.weight"], w[f"{layer}.bias"])
        for layer in ("near_mix", "near_values", "near_sizes"):
            check(w[f"{layer}.weight"])
        self._w = w

    def _check_shapes(self, w: dict[str, np.ndarray]) -> None:
        m, f = self.latent_channels, w["hidden.bias"].size
        n = w["synthesis.0.bias"].size // 4
        wanted = {
            "synthesis.0.weight": (9 * self.channels, 4 * n), "synthesis.0.bias": (4 * n,),
            "synthesis.1.weight": (9 * n, 4 * f), "synthesis.1.bias": (4 * f,),
            "hidden.weight": (f, f), "hidden.bias": (f,), "out.weight": (f, 2 * m), "out.bias": (2 * m,),
            "near_values.weight": (12, m), "near_values.bias": (m,), "near_sizes.weight": (12, m),
            "near_mix.weight": (m, f),
        }  # fmt: skip
        for key, shape in wanted.items():
            if w[key].shape != shape:
                raise ModelError(f"tensor {key} (={w[key].shape}) must be {shape}; get the model folder again")
        if w["level_rungs"].ndim != 2 or w["level_rungs"].shape[1] != m or len(w["level_rungs"]) < 2:
            raise ModelError(f"tensor level_rungs (={w['level_rungs'].shape}) must be (2 or more, {m})")
        if w["log_sizes"].ndim != 1 or not w["log_sizes"].size or np.abs(w["log_sizes"]).max() > ACTIVATION_MAX:
            raise ModelError("tensor log_sizes must be a list of activations; get the model folder again")
        if len(self.y_tables) != RUNGS:
            raise ModelError(f"the latent has {len(self.y_tables)} tables, {RUNGS} are needed")

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
        state = _State(*y.shape)
        for sites, mean, index in self._steps(z, quality, state):
            q = to_symbols(_round_thriftily(y[sites] - mean.astype(np.float32) / ONE, index))
            writer.write(q, self.y_tables, index)
            state.put(sites, q, mean)
        return state.latent(z)

    def decode(self, height: int, width: int, quality: int, reader: SymbolReader) -> Latent:
        """The latent of h x w = ``height`` x ``width`` sites. Raises DesyncError for symbols that cannot be."""
        shape = (self.channels, -(-height // Z_STRIDE), -(-width // Z_STRIDE))
        z = from_decoder(reader.read(int(np.prod(shape)), self.z_tables, channel_index(shape))).reshape(shape)
        state = _State(height, width, self.latent_channels)
        for sites, mean, index in self._steps(z, quality, state):
            q = from_decoder(reader.read(index.size, self.y_tables, index)).reshape(mean.shape)
            state.put(sites, q, mean)
        return state.latent(z)

    def _steps(self, z: np.ndarray, quality: int, state: _State) -> Iterator[tuple[tuple, np.ndarray, np.ndarray]]:
        """The steps, of each the sites (row numbers, column numbers), and (sites, M) means and table numbers.

        The caller puts the step's symbols into ``state`` before it goes on.
        """
        rungs = self._quality_rungs(quality)
        rows = max(Z_STRIDE, _BAND_SITES // state.width // Z_STRIDE * Z_STRIDE)
        z_columns = z.transpose(1, 2, 0).astype(np.float64) * ONE
        features = np.empty(0)
        for colour in (0, 1):
            for top in range(0, state.height, rows):
                bottom = min(top + rows, state.height)
                i, j = np.meshgrid(np.arange(top, bottom), np.arange(state.width), indexing="ij")
                chosen = (i + j) % 2 == colour
                if not chosen.any():
                    continue
                sites = i[chosen], j[chosen]
                if not (colour and rows >= state.height):  # one band: those of the first pass are there still
                    features = self._features(z_columns, top // Z_STRIDE, -(-bottom // Z_STRIDE))
                known = features[sites[0] - top, sites[1]]
                yield sites, *self._parameters(known, rungs, self._near(state, sites) if colour else None)

    # -- the network -------------------------------------------------------------------------------------------------

    def _features(self, z: np.ndarray, top: int, bottom: int) -> np.ndarray:
        """(4·(bottom - top), 4·w, F) features of the rows ``top`` to ``bottom`` of ``z: (h, w, Z)``.

        Beyond the edges the last row and column are repeated, in front of either layer.
        """
        w, (height, width, _) = self._w, z.shape
        first, last = max(top - 1, 0), min(bottom + 1, height)
        rows = np.arange(first - 1, last + 1).clip(0, height - 1)
        columns = np.arange(-1, width + 1).clip(0, width - 1)
        x = z[rows[:, None], columns]
        x = pixel_shuffle(relu(conv3x3(x, w["synthesis.0.weight"], w["synthesis.0.bias"])))
        rows = np.arange(2 * top - 1, 2 * bottom + 1).clip(0, 2 * height - 1) - 2 * first
        columns = np.arange(-1, 2 * width + 1).clip(0, 2 * width - 1)
        x = x[rows[:, None], columns]
        return pixel_shuffle(relu(conv3x3(x, w["synthesis.1.weight"], w["synthesis.1.bias"])))

    def _parameters(
        self, features: np.ndarray, rungs: np.ndarray, near: tuple[np.ndarray, np.ndarray] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(S, M) int64 means in units of 2^-8, and int64 table numbers, of ``features: (S, F)``."""
        w, m = self._w, self.latent_channels
        sums = features @ w["hidden.weight"] + w["hidden.bias"]
        if near is not None:
            sums += near[1] @ w["near_mix.weight"]
        out = relu(sums) @ w["out.weight"] + w["out.bias"]
        mean, rung = out[:, :m], out[:, m:]
        if near is not None:
            mean += near[0]
        mean = np.clip(shift(mean), -_MEAN_MAX, _MEAN_MAX).astype(np.int64)
        index = np.clip(shift(RUNGS_PER_UNIT * rung + rungs), 0, ONE * (RUNGS - 1)).astype(np.int64)
        return mean, (index + ONE // 2) // ONE

    def _near(self, state: _State, sites: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """What the neighbours of ``sites`` tell: (S, M) sums for the mean, and (S, M) activations for the scale."""
        w = self._w
        values = np.tile(w["near_values.bias"], (len(sites[0]), 1))
        sizes = np.zeros_like(values)
        for n, (i, j) in enumerate(_NEAR):
            place = sites[0] + 2 + i, sites[1] + 2 + j
            values += state.y_hat[place] * w["near_values.weight"][n]
            known = np.minimum(np.abs(state.q[place]), w["log_sizes"].size - 1)
            sizes += w["log_sizes"][known] * w["near_sizes.weight"][n]
        return values, np.clip(shift(sizes), -ACTIVATION_MAX, ACTIVATION_MAX, out=sizes)

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


class _State:
    """What is known of a latent: q, and y_hat in units of 2^-8, both with a margin of 2 for neighbours outside."""

    def __init__(self, height: int, width: int, channels: int):
        self.height, self.width = height, width
        self.q = np.zeros((height + 4, width + 4, channels), np.int16)
        self.y_hat = np.zeros((height + 4, width + 4, channels), np.int32)

    def put(self, sites: tuple[np.ndarray, np.ndarray], q: np.ndarray, mean: np.ndarray) -> None:
        """Stores what was coded at ``sites``: (S, M) each."""
        i, j = sites[0] + 2, sites[1] + 2
        self.q[i, j] = q
        self.y_hat[i, j] = q.astype(np.int64) * ONE + mean

    def latent(self, z: np.ndarray) -> Latent:
        inside = slice(2, -2)
        return Latent(z, self.q[inside, inside].transpose(2, 0, 1), self.y_hat[inside, inside])


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
