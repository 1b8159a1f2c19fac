"""Context coding of planes of codebook indices: a small integer network predicts each index from its surroundings.

A network may also look back: at the same place of the grid before, where the grids are those of a clip.

Everything here is integer arithmetic held in float32 matrices: all sums stay below 2^24, so that every machine,
library and number of threads computes the same probabilities (docs/format.md gives them step by step).
BITSTREAM: a change here is a new major version of the format.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import ThreadpoolController

from difflate.entropy.coder import PRECISION, SymbolReader, SymbolWriter
from difflate.entropy.interlace import KINDS, NEIGHBOURS, PAST, SITES_PER_STEP, Step, same_place, steps
from difflate.errors import ModelError

ACTIVATION_MAX = 127
_STAGE_BITS = 4
_LOGIT_SHIFT = 8
"""Logits are in sixteenths of a nat: (64 * 64 = 4096 units per nat) / 2^8."""
EXP_TABLE_SIZE = 256
_PAST_WEIGHT = "past.weight"


@dataclass(frozen=True)
class _Dims:
    descriptor: int = 48
    current: int = 24
    trunk: int = 160
    hidden: int = 96


DIMS = _Dims()
"""Widths of the network: what stands for a neighbour, for a plane of the same site, and the two hidden layers."""


def stage_bits(bits: int) -> list[int]:
    """Bits of the parts in which an index of ``bits`` is coded, most significant first: at most 4 bits each."""
    count = -(-bits // _STAGE_BITS)
    return [bits // count + (j < bits % count) for j in range(count)]


class ContextModel:
    """Codes grids of indices, all planes of a site together, with the network's probabilities."""

    def __init__(self, plane_bits: Sequence[int], tensors: Mapping[str, np.ndarray]):
        """``plane_bits``: bits of each plane's indices. ``tensors``: int8 weights and int32 biases, see `shapes`; the
        model looks back if ``past.weight`` is among them.

        Raises ModelError if a tensor is missing or misshapen, or if a sum could reach 2^24.
        """
        self.plane_bits = list(plane_bits)
        wanted = shapes(plane_bits, looks_back=_PAST_WEIGHT in tensors)
        self.tensors = {name: np.ascontiguousarray(tensors[name]) for name in wanted if name in tensors}
        for name, shape in wanted.items():
            tensor = self.tensors.get(name)
            dtype = np.int32 if name == "exp" or name.endswith("bias") else np.int8
            if tensor is None or tensor.shape != shape or tensor.dtype != dtype:
                raise ModelError(f"context model: tensor {name} must be there with shape {shape}")
        self._wide = {name: t.astype(np.float32) for name, t in self.tensors.items()}
        for name in [n for n in self._wide if n.endswith(".prefix")]:
            self._wide[name] *= 64  # a table entry is a weight on an activation of 1.0
        self._check_sums()
        self._exp = self.tensors["exp"].astype(np.int64)
        if self._exp.min() < 0 or self._exp[0] != 65536 or (np.diff(self._exp) > 0).any():
            raise ModelError("context model: the table exp must fall from 65536 to 0 or above")

    @property
    def looks_back(self) -> bool:
        """Whether the grid before tells it something of the next one."""
        return _PAST_WEIGHT in self.tensors

    def _check_sums(self) -> None:
        def bound(weight: np.ndarray, *others: np.ndarray) -> float:
            sums = ACTIVATION_MAX * np.abs(weight).sum(axis=-2)
            for other in others:
                sums = sums + np.abs(other).max(axis=0)
            return float(sums.max())

        w = self._wide
        trunk, worst = w["trunk.weight"], 0.0
        if self.looks_back:
            worst = bound(w[_PAST_WEIGHT][0], w["trunk.bias"])
            trunk = np.concatenate([trunk, w[_PAST_WEIGHT][1:]], axis=1)
        worst = max(worst, bound(trunk, w["trunk.bias"]))
        for k in range(sum(len(stage_bits(b)) for b in self.plane_bits)):
            hidden = [w[f"stage.{k}.hidden.bias"][None]]
            if f"stage.{k}.prefix" in w:
                hidden.append(w[f"stage.{k}.prefix"])
            worst = max(worst, bound(w[f"stage.{k}.hidden.weight"], *hidden))
            worst = max(worst, bound(w[f"stage.{k}.out.weight"], w[f"stage.{k}.out.bias"][None]))
        if worst >= 2**24 - 256:  # what rounding adds before a shift
            raise ModelError("context model: weights are so large that a sum could reach 2^24 and lose exactness")

    def encode(
        self,
        grid: np.ndarray,
        writer: SymbolWriter,
        given: Mapping[int, int] | None = None,
        past: np.ndarray | None = None,
    ) -> None:
        """Writes ``grid: (P, rows, columns)``, integers in [0, 2**plane_bits[p]). Raises ValueError otherwise.

        ``given``: planes that hold one index all over and are not coded, since the reader knows it too. ``past``: the
        grid before, as large, which the reader has too; None: there is none. Only a model that looks back looks at it.
        """
        rows, columns = grid.shape[1:]
        self._run(self._flat(grid), rows, columns, given or {}, past, writer, None)

    def decode(
        self,
        rows: int,
        columns: int,
        reader: SymbolReader,
        given: Mapping[int, int] | None = None,
        past: np.ndarray | None = None,
    ) -> np.ndarray:
        """(P, rows, columns) int32 indices, the inverse of `encode`. Raises ValueError for another ``past``."""
        flat = np.zeros((len(self.plane_bits), rows * columns), np.int32)
        self._run(flat, rows, columns, given or {}, past, None, reader)
        return flat.reshape(-1, rows, columns)

    def encode_sequence(
        self,
        grids: np.ndarray,
        writer: SymbolWriter,
        given: Mapping[int, int] | None = None,
        past: np.ndarray | None = None,
    ) -> None:
        """Writes ``grids: (T, P, rows, columns)``, each with the one before as its past: see `encode`."""
        for grid in grids:
            self.encode(grid, writer, given, past)
            past = grid

    def decode_sequence(
        self,
        grids: np.ndarray,
        reader: SymbolReader,
        given: Mapping[int, int] | None = None,
        past: np.ndarray | None = None,
    ) -> None:
        """Fills ``grids: (T, P, rows, columns)``, the inverse of `encode_sequence`."""
        rows, columns = grids.shape[2:]
        for grid in grids:
            grid[...] = self.decode(rows, columns, reader, given, past)
            past = grid

    def _flat(self, grid: np.ndarray) -> np.ndarray:
        """(P, rows * columns) int32, checked."""
        planes = len(grid)
        if planes != len(self.plane_bits):
            raise ValueError(f"planes (={planes}) must be {len(self.plane_bits)}")
        flat = grid.reshape(planes, -1).astype(np.int32)
        for plane, bits in zip(flat, self.plane_bits, strict=True):
            if plane.size and (plane.min() < 0 or plane.max() >> bits):
                raise ValueError(f"an index is outside [0, {2**bits})")
        return flat

    def _run(
        self,
        flat: np.ndarray,
        rows: int,
        columns: int,
        given: Mapping[int, int],
        past: np.ndarray | None,
        writer: SymbolWriter | None,
        reader: SymbolReader | None,
    ) -> None:
        """Codes all steps of a grid: see `_code`."""
        around = self._empty_descriptors(rows * columns)
        behind = None
        if past is not None and self.looks_back:
            if past.shape[1:] != (rows, columns):
                raise ValueError(f"the grid before ({past.shape}) must be as large as this one, ({rows}, {columns})")
            behind = self._described(self._flat(past))
        with _one_thread():
            for step in steps(rows, columns):
                before = None if behind is None else behind[same_place(step.sites, rows, columns)]
                self._code(step, flat, around, before, given, writer, reader)

    def _empty_descriptors(self, sites: int) -> np.ndarray:
        # int8 keeps 64 megapixels (a million sites) at 48 MB; one more row of zeros stands for "outside"
        return np.zeros((sites + 1, DIMS.descriptor + 1), np.int8)

    def _described(self, flat: np.ndarray) -> np.ndarray:
        """(sites + 1, descriptor + 1) int8 of all sites of a grid, as coding it leaves them."""
        result = self._empty_descriptors(flat.shape[1])
        for start in range(0, flat.shape[1], SITES_PER_STEP):
            some = slice(start, min(start + SITES_PER_STEP, flat.shape[1]))
            described = np.zeros((some.stop - start, DIMS.descriptor), np.float32)
            for p, plane in enumerate(flat):
                described += self._wide[f"describe.{p}"][plane[some]]
            _keep(result, some, described)
        return result

    def _code(
        self,
        step: Step,
        flat: np.ndarray,
        around: np.ndarray,
        before: np.ndarray | None,
        given: Mapping[int, int],
        writer: SymbolWriter | None,
        reader: SymbolReader | None,
    ) -> None:
        """Codes the sites of one step: reads their indices from ``flat`` to write them, or fills them in."""
        count = len(step.sites)
        if count == 0:
            return
        w = self._wide
        widths = DIMS.trunk + DIMS.current * (len(self.plane_bits) - 1)
        inputs = np.empty((count, widths), np.float32)
        inputs[:, : DIMS.trunk] = self._trunk(step, around, before)
        described = np.zeros((count, DIMS.descriptor), np.float32)
        stage, used = 0, DIMS.trunk
        for p, bits in enumerate(self.plane_bits):
            known = flat[p, step.sites]
            index, left = np.zeros(count, np.int32), bits
            for part in stage_bits(bits):
                if p not in given:
                    frequencies = self._frequencies(stage, inputs[:, :used], index if left < bits else None)
                    left -= part
                    if writer is not None:
                        symbols = (known >> left) & (2**part - 1)
                        writer.write_each(symbols, frequencies)
                    else:
                        assert reader is not None
                        symbols = reader.read_each(frequencies)
                    index = (index << part) | symbols
                stage += 1
            if p in given:
                index[:] = given[p]
            flat[p, step.sites] = index
            described += w[f"describe.{p}"][index]
            if p + 1 < len(self.plane_bits):
                inputs[:, used : used + DIMS.current] = w[f"current.{p}"][index]
                used += DIMS.current
        _keep(around, step.sites, described)

    def _trunk(self, step: Step, around: np.ndarray, before: np.ndarray | None) -> np.ndarray:
        """(n, trunk) what the neighbours and the past say, shared by all planes of a site. ``before``: (n, 9, 49)."""
        sums = np.tile(self._wide["trunk.bias"][step.kind], (len(step.sites), 1))
        if step.kind > 0:
            sums += _features(around[step.neighbours]) @ self._wide["trunk.weight"][step.kind - 1]
        if before is not None:
            sums += _features(before) @ self._wide[_PAST_WEIGHT][step.kind]
        return _relu(sums)

    def _frequencies(self, stage: int, inputs: np.ndarray, prefix: np.ndarray | None) -> np.ndarray:
        """(n, A) int64 frequencies less one, each row summing to 2^24 - A."""
        w = self._wide
        sums = inputs @ w[f"stage.{stage}.hidden.weight"]
        sums += w[f"stage.{stage}.hidden.bias"]
        if prefix is not None:
            sums += w[f"stage.{stage}.prefix"][prefix]
        logits = _relu(sums) @ w[f"stage.{stage}.out.weight"]
        logits += w[f"stage.{stage}.out.bias"]
        logits = np.floor((logits + 2 ** (_LOGIT_SHIFT - 1)) * 2.0**-_LOGIT_SHIFT)
        below = (logits.max(axis=1, keepdims=True) - logits).astype(np.int32)
        weights = self._exp[np.minimum(below, len(self._exp) - 1)]
        size = weights.shape[1]
        total = weights.sum(axis=1, keepdims=True)
        frequencies = weights * (2**PRECISION - size) // total
        top = below.argmin(axis=1)  # what the division leaves goes to the first of the likeliest
        frequencies[np.arange(len(top)), top] += 2**PRECISION - size - frequencies.sum(axis=1)
        return frequencies


def _keep(descriptors: np.ndarray, where: np.ndarray | slice, described: np.ndarray) -> None:
    """Writes ``described: (n, descriptor)`` into rows ``where`` of ``descriptors``, whose last number says "inside"."""
    descriptors[where, :-1] = np.clip(described, -ACTIVATION_MAX, ACTIVATION_MAX)
    descriptors[where, -1] = ACTIVATION_MAX


def _features(near: np.ndarray) -> np.ndarray:
    """(n, k * (descriptor + 1)) float32 of ``near: (n, k, descriptor + 1)``; the last number of each comes last."""
    count, split = near.shape[1], near.shape[1] * DIMS.descriptor
    features = np.empty((len(near), split + count), np.float32)
    features[:, :split].reshape(len(near), count, -1)[...] = near[:, :, :-1]
    features[:, split:] = near[:, :, -1]
    return features


def _one_thread():
    """A context in which numpy multiplies matrices on one thread.

    A second one gains a fifth on an idle machine, but waits in a busy loop for its turn on one that is not: the many
    small products then take up to 30 times as long (measured on two cores).
    """
    return _controller().limit(limits=1, user_api="blas")


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def exp_table() -> np.ndarray:
    """(256,) int32 65536 exp(-i / 16): made once, when a model is trained, and kept with its weights."""
    return (65536 * np.exp(-np.arange(EXP_TABLE_SIZE) / 16)).round().astype(np.int32)


def _relu(sums: np.ndarray) -> np.ndarray:
    """Sums in 1/4096 to activations in 1/64: divided by 64, rounded half up, clipped to [0, 127]."""
    scaled = np.floor((sums + np.float32(32)) * np.float32(1 / 64))
    return np.clip(scaled, 0, ACTIVATION_MAX, out=scaled)


def shapes(plane_bits: Sequence[int], looks_back: bool = False) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of a model for planes of ``plane_bits``: int8, but biases and exp int32."""
    result: dict[str, tuple[int, ...]] = {
        "exp": (EXP_TABLE_SIZE,),
        "trunk.weight": (KINDS - 1, NEIGHBOURS * (DIMS.descriptor + 1), DIMS.trunk),
        "trunk.bias": (KINDS, DIMS.trunk),
    }
    if looks_back:
        result[_PAST_WEIGHT] = (KINDS, len(PAST) * (DIMS.descriptor + 1), DIMS.trunk)
    stage = 0
    for p, bits in enumerate(plane_bits):
        result[f"describe.{p}"] = (2**bits, DIMS.descriptor)
        if p + 1 < len(plane_bits):
            result[f"current.{p}"] = (2**bits, DIMS.current)
        done = 0
        for part in stage_bits(bits):
            result[f"stage.{stage}.hidden.weight"] = (DIMS.trunk + DIMS.current * p, DIMS.hidden)
            result[f"stage.{stage}.hidden.bias"] = (DIMS.hidden,)
            if done:
                result[f"stage.{stage}.prefix"] = (2**done, DIMS.hidden)
            result[f"stage.{stage}.out.weight"] = (DIMS.hidden, 2**part)
            result[f"stage.{stage}.out.bias"] = (2**part,)
            done += part
            stage += 1
    return result
