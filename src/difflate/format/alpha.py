"""The alpha plane, kept without loss in a section of its own (docs/format.md, section 3)."""

import zlib

import numpy as np

from difflate.errors import FormatError


def encode_alpha(alpha: np.ndarray) -> bytes:
    """The section data of ``alpha: (H, W)`` uint8: a filter byte, then the filtered plane, deflated.

    Filters, modulo 256: 0 none, 1 difference to the left, 2 difference to above. The smallest result is taken.
    """
    left, above = alpha.copy(), alpha.copy()
    left[:, 1:] -= alpha[:, :-1]
    above[1:] -= alpha[:-1]
    return min((bytes([i]) + zlib.compress(p.tobytes(), 9) for i, p in enumerate((alpha, left, above))), key=len)


def decode_alpha(data: bytes, height: int, width: int) -> np.ndarray:
    """(H, W) uint8, the inverse of `encode_alpha`. Raises FormatError unless it is exactly that large."""
    if not data or data[0] > 2:
        raise FormatError("the alpha section has an unknown filter")
    inflater = zlib.decompressobj()
    try:
        # never more than one byte above what the header allows
        raw = inflater.decompress(data[1:], height * width + 1)
    except zlib.error as error:
        raise FormatError(f"the alpha section is damaged: {error}") from error
    if len(raw) != height * width or not inflater.eof:
        raise FormatError(f"the alpha section does not hold the {height * width} bytes that the header asks for")
    plane = np.frombuffer(raw, np.uint8).reshape(height, width)
    if data[0] == 0:
        return plane.copy()
    return np.add.accumulate(plane, axis=2 - data[0], dtype=np.uint8)
