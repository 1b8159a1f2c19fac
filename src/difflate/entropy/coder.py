"""The range coder: whole arrays of symbols in, bytes out, and back.

One `SymbolWriter` makes one stream; calls on a `SymbolReader` must follow in the order and with the tables in which
they were written. Probabilities are integer frequencies out of 2^24; nothing is rounded in floating point, so a
stream decodes alike on every machine. The coder cannot tell damage from data: checksums are the container's business.
"""

from __future__ import annotations

import numpy as np
from constriction import stream  # pyright: ignore[reportAttributeAccessIssue]

from difflate.entropy.tables import PRECISION, Tables
from difflate.errors import DesyncError

__all__ = ["PRECISION", "SymbolReader", "SymbolWriter"]

# BITSTREAM: `perfect=False` gives symbol i of n the cumulative floor(cumsum_i * (2^24 - n) / total) + i. Counts that
# sum to exactly 2^24 - n make that cumsum_i + i, without rounding: the frequency of a symbol is its count + 1.
_FAMILY = stream.model.Categorical(perfect=False)
_BYPASS_BITS = 16


_UNIFORM = {bits: stream.model.Uniform(2**bits) for bits in range(1, _BYPASS_BITS + 1)}


class SymbolWriter:
    """Collects symbols into one compressed stream."""

    def __init__(self) -> None:
        self._coder = stream.queue.RangeEncoder()

    def write(self, symbols: np.ndarray, tables: Tables, index: np.ndarray | None = None) -> None:
        """Writes integers ``symbols``, any shape, symbol i with table ``index[i]`` (default: table 0).

        Values outside a table's range are escaped: any int32 can be written. Symbols are grouped by table.
        """
        flat = np.ascontiguousarray(symbols, dtype=np.int64).ravel()
        order, groups = tables.groups(index, flat.size)
        if order is not None:
            flat = flat[order]
        for table, start, end in groups:
            values, excess = tables.to_slots(flat[start:end], table)
            self._coder.encode(values, tables.model(table))
            if excess.size:
                self._write_excess(excess)

    def write_each(self, symbols: np.ndarray, counts: np.ndarray) -> None:
        """Writes ``symbols: (N,)``, each with its own ``counts: (N, A)`` integers, rows summing to 2^24 - A."""
        if symbols.size:
            self._coder.encode(np.ascontiguousarray(symbols, dtype=np.int32), _FAMILY, counts.astype(np.float64))

    def write_bits(self, values: np.ndarray, bits: int) -> None:
        """Writes ``values``, integers in [0, 2**bits), as ``bits`` (1 to 16) plain bits each."""
        flat = np.ascontiguousarray(values, dtype=np.int32).ravel()
        if flat.size:
            self._coder.encode(flat, _UNIFORM[bits])

    def _write_excess(self, excess: np.ndarray) -> None:
        """Exponential-Golomb code: the bit length of each value + 1 (in 6 bits), then its bits below the first.

        Those of equal length are together, the shortest first.
        """
        length = np.floor(np.log2(excess + 1.0)).astype(np.int64)  # exact: excess + 1 < 2^33
        self.write_bits(length, 6)
        low = excess + 1 - (np.int64(1) << length)
        for bits in np.unique(length).tolist():
            values = low[length == bits]
            for part in range(0, bits, _BYPASS_BITS):
                some = min(bits - part, _BYPASS_BITS)
                self.write_bits((values >> part) & (2**some - 1), some)

    def finish(self) -> bytes:
        """The stream: little-endian 32-bit words, without the zero bytes at the end."""
        return self._coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")


class SymbolReader:
    """Reads what a `SymbolWriter` wrote, with the same calls in the same order."""

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % 4)
        self._coder = stream.queue.RangeDecoder(np.frombuffer(padded, "<u4").astype(np.uint32))

    def read(self, count: int, tables: Tables, index: np.ndarray | None = None) -> np.ndarray:
        """(count,) int32 symbols. Raises DesyncError where the stream cannot have been written with these tables."""
        grouped = np.empty(count, np.int32)
        order, groups = tables.groups(index, count)
        for table, start, end in groups:
            slots = self._decode(tables.model(table), end - start)
            escaped = tables.are_escapes(slots, table)
            excess = self._read_excess(int(escaped.sum())) if escaped.any() else np.empty(0, np.int64)
            grouped[start:end] = tables.from_slots(slots, escaped, excess, table)
        if order is None:
            return grouped
        symbols = np.empty(count, np.int32)
        symbols[order] = grouped
        return symbols

    def read_each(self, counts: np.ndarray) -> np.ndarray:
        """(N,) int32 symbols, each with its own ``counts: (N, A)``."""
        if not len(counts):
            return np.empty(0, np.int32)
        return self._decode(_FAMILY, counts.astype(np.float64))

    def read_bits(self, count: int, bits: int) -> np.ndarray:
        """(count,) int32 values of ``bits`` plain bits each."""
        return self._decode(_UNIFORM[bits], count) if count else np.empty(0, np.int32)

    def _decode(self, *arguments) -> np.ndarray:
        try:
            return self._coder.decode(*arguments)
        except (AssertionError, ValueError) as error:  # constriction: "invalid compressed data"
            raise DesyncError("compressed data and model do not fit together") from error

    def _read_excess(self, count: int) -> np.ndarray:
        length = self.read_bits(count, 6).astype(np.int64)
        if length.max() > 33:
            raise DesyncError("an escaped symbol is longer than 33 bits")
        low = np.zeros(count, np.int64)
        for bits in np.unique(length).tolist():
            chosen = length == bits
            for part in range(0, bits, _BYPASS_BITS):
                some = self.read_bits(int(chosen.sum()), min(bits - part, _BYPASS_BITS))
                low[chosen] |= some.astype(np.int64) << part
        return low + (np.int64(1) << length) - 1
