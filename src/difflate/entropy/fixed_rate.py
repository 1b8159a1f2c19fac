"""Indices as plain bits, as many for each as its codebook needs: the rate that the papers count."""

import numpy as np


def pack(values: np.ndarray, bits: int) -> bytes:
    """``values``, integers below 2**bits, most significant bit first, the last byte filled with zeros."""
    wide = values.ravel().astype(">u2").view(np.uint8).reshape(-1, 2)
    return np.packbits(np.unpackbits(wide, axis=1)[:, 16 - bits :]).tobytes()


def unpack(data: bytes, bits: int, count: int) -> np.ndarray:
    """(count,) uint16, the inverse of `pack`."""
    narrow = np.unpackbits(np.frombuffer(data, np.uint8), count=count * bits).reshape(count, bits)
    wide = np.zeros((count, 16), np.uint8)
    wide[:, 16 - bits :] = narrow
    return np.packbits(wide, axis=1).view(">u2").ravel().astype(np.uint16)
