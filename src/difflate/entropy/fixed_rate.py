"""Integers in a fixed number of bits each, as files of the paper's rates have them. BITSTREAM: all of it."""

import numpy as np

from difflate.errors import FormatError

_MAX_BITS = 16


def pack(values: np.ndarray, bits: int) -> bytes:
    """``values``, any shape, integers below 2**``bits`` (1 to 16): most significant bit first, zeros to fill a byte.

    Raises ValueError for others.
    """
    flat = values.ravel()
    if flat.size and (flat.min() < 0 or int(flat.max()) >> bits):
        raise ValueError(f"a value is outside [0, {2**bits})")
    wide = flat.astype(">u2").view(np.uint8).reshape(-1, 2)
    return np.packbits(np.unpackbits(wide, axis=1)[:, _MAX_BITS - bits :]).tobytes()


def unpack(data: bytes, bits: int, count: int) -> np.ndarray:
    """(count,) uint16, the inverse of `pack`. Raises FormatError for data of another length."""
    if len(data) != packed_bytes(count, bits):
        raise FormatError(
            f"the indices take {len(data)} bytes, not {packed_bytes(count, bits)}; get an intact copy of the file"
        )
    narrow = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits).reshape(count, bits)
    wide = np.zeros((count, _MAX_BITS), np.uint8)
    wide[:, _MAX_BITS - bits :] = narrow
    return np.packbits(wide, axis=1).view(">u2").ravel().astype(np.uint16)


def packed_bytes(count: int, bits: int) -> int:
    """Length of ``count`` packed values."""
    return -(-count * bits // 8)
