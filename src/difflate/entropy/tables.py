"""Integer frequency tables, stored with a model's weights and never recomputed when decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from constriction import stream  # pyright: ignore[reportAttributeAccessIssue]

from difflate.errors import ModelError

PRECISION = 24
"""Frequencies of a table sum to 2^24."""


class Tables:
    """T tables of frequencies; table t gives the symbols low[t], low[t] + 1, … and, last, the escape."""

    def __init__(self, frequencies: Sequence[np.ndarray], low: Sequence[int] | None = None):
        """``frequencies[t]``: (A_t + 1,) integers >= 1 that sum to 2^24, the last for the escape; A_t >= 0.

        ``low[t]``: the symbol of the first entry, default 0. Raises ModelError if a table breaks these rules.
        """
        self.frequencies = [np.ascontiguousarray(f, dtype=np.int64) for f in frequencies]
        self.low = [0] * len(self.frequencies) if low is None else [int(v) for v in low]
        for t, f in enumerate(self.frequencies):
            if f.ndim != 1 or not f.size or f.min() < 1 or f.sum() != 2**PRECISION:
                raise ModelError(f"table {t}: frequencies must be positive integers that sum to 2^{PRECISION}")
        if len(self.low) != len(self.frequencies):
            raise ModelError(f"low (={len(self.low)} entries) must have one entry per table ({len(self.frequencies)})")
        self._models: dict[int, object] = {}

    @classmethod
    def from_counts(
        cls, counts: Sequence[np.ndarray], low: Sequence[int] | None = None, escapes: Sequence[float] | None = None
    ) -> Tables:
        """Tables proportional to ``counts[t]``: (A_t,) and ``escapes[t]``, non-negative weights.

        Without ``escapes`` the escape is as rare as can be.
        """
        weights = [0.0] * len(counts) if escapes is None else escapes
        pairs = zip(counts, weights, strict=True)
        return cls([_normalise(np.append(np.asarray(c, np.float64), e)) for c, e in pairs], low)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], prefix: str) -> Tables:
        """The tables that `to_tensors` has written. Raises ModelError if one is missing or they do not fit together."""
        try:
            frequencies, sizes, low = (tensors[f"{prefix}.{key}"] for key in ("frequencies", "sizes", "low"))
        except KeyError as error:
            raise ModelError(f"tensor {error.args[0]} is missing; get the model folder again") from error
        fits = frequencies.ndim == sizes.ndim == low.ndim == 1 and len(sizes) == len(low)
        if not fits or (sizes < 1).any() or sizes.sum(dtype=np.int64) != len(frequencies):
            raise ModelError(f"tensors {prefix}.frequencies, sizes and low do not fit; get the model folder again")
        return cls(np.split(frequencies, np.cumsum(sizes)[:-1]), low.tolist())

    def to_tensors(self, prefix: str) -> dict[str, np.ndarray]:
        """int32 ``prefix.frequencies``, one table after the other, ``prefix.sizes`` and ``prefix.low``."""
        return {
            f"{prefix}.frequencies": np.concatenate(self.frequencies).astype(np.int32),
            f"{prefix}.sizes": np.array([len(f) for f in self.frequencies], np.int32),
            f"{prefix}.low": np.array(self.low, np.int32),
        }

    def __len__(self) -> int:
        return len(self.frequencies)

    def bits(self, symbols: np.ndarray, index: np.ndarray | None = None) -> float:
        """The ideal length in bits of ``symbols``, the tables' cross-entropy; escaped ones without their excess."""
        flat = np.asarray(symbols, np.int64).ravel()
        order, groups = self.groups(index, flat.size)
        if order is not None:
            flat = flat[order]
        total = 0.0
        for table, start, end in groups:
            slots, _ = self.to_slots(flat[start:end], table)
            total += float((PRECISION - np.log2(self.frequencies[table]))[slots].sum())
        return total

    def groups(self, index: np.ndarray | None, count: int) -> tuple[np.ndarray | None, list[tuple[int, int, int]]]:
        """The order that brings symbols of one table together (None: as they are), and (table, start, end) in it.

        Few large coder calls instead of many: symbols are coded in this order.
        """
        if index is None:
            return None, [(0, 0, count)] if count else []
        flat = np.asarray(index).ravel()
        if flat.size != count or (count and (flat.min() < 0 or flat.max() >= len(self))):
            raise ValueError(f"index must hold {count} table numbers in [0, {len(self)})")
        # numpy sorts 8- and 16-bit integers by radix, 5 to 10 times faster than wider ones
        narrow = flat.astype(np.uint8 if len(self) <= 256 else np.uint16 if len(self) <= 65536 else np.int64)
        order = np.argsort(narrow, kind="stable")
        ends = np.cumsum(np.bincount(flat.astype(np.int64), minlength=len(self))).tolist()
        starts = [0, *ends[:-1]]
        return order, [(t, a, b) for t, (a, b) in enumerate(zip(starts, ends, strict=True)) if a < b]

    def to_slots(self, symbols: np.ndarray, table: int) -> tuple[np.ndarray, np.ndarray]:
        """(N,) int32 table entries of ``symbols``, and what the escaped ones exceed the table by (int64, >= 0)."""
        escape = len(self.frequencies[table]) - 1
        slots = symbols - self.low[table]
        outside = (slots < 0) | (slots >= escape)
        if not outside.any():
            return slots.astype(np.int32), np.empty(0, np.int64)
        value = slots[outside]
        # above the table: even numbers, below it: odd ones
        excess = np.where(value < 0, -2 * value - 1, 2 * (value - escape))
        return np.where(outside, escape, slots).astype(np.int32), excess

    def are_escapes(self, slots: np.ndarray, table: int) -> np.ndarray:
        """(N,) bool: which of the table entries ``slots`` are the escape."""
        return slots == len(self.frequencies[table]) - 1

    def from_slots(self, slots: np.ndarray, escaped: np.ndarray, excess: np.ndarray, table: int) -> np.ndarray:
        """(N,) int64 symbols, the inverse of `to_slots`."""
        values = slots.astype(np.int64)
        if excess.size:
            escape = len(self.frequencies[table]) - 1
            values[escaped] = np.where(excess & 1, -(excess + 1) // 2, excess // 2 + escape)
        return values + self.low[table]

    def model(self, table: int):
        """The coder's model of a table, built when first used."""
        if table not in self._models:
            # BITSTREAM: see difflate.entropy.coder on why one is taken off each frequency
            counts = (self.frequencies[table] - 1).astype(np.float64)
            if counts.size == 1:
                counts = np.append(counts - 1, 0.0)  # the coder wants two symbols; the second never occurs
            self._models[table] = stream.model.Categorical(counts, perfect=False)
        return self._models[table]


def _normalise(weights: np.ndarray) -> np.ndarray:
    """(A,) int64 >= 1, summing to 2^24, as near to proportional to ``weights`` as whole numbers get."""
    if weights.min() < 0 or not np.isfinite(weights).all():
        raise ModelError("counts must be finite and not negative")
    total = weights.sum() or 1.0
    free = 2**PRECISION - weights.size
    frequencies = 1 + np.floor(weights / total * free).astype(np.int64)
    frequencies[int(weights.argmax())] += 2**PRECISION - frequencies.sum()
    return frequencies
