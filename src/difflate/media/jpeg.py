"""What a JPEG file says of how it was made: its quantization tables, and whether it has lost anything."""

from __future__ import annotations

from typing import Any

import numpy as np

UNKNOWN = np.zeros((2, 64), np.float32)
"""The tables of a file that has none."""


_LOSSLESS_FRAMES = (0xC3, 0xC7, 0xCB, 0xCF)
_OTHER_FRAMES = (0xC0, 0xC1, 0xC2, 0xC5, 0xC6, 0xC9, 0xCA, 0xCD, 0xCE)


def is_lossless(data: bytes) -> bool:
    """Whether the JPEG file ``data`` is of the lossless kind (ITU-T T.81, Table B.1), which has no such tables."""
    place = 2
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        marker = data[place + 1]
        if marker in (*_LOSSLESS_FRAMES, *_OTHER_FRAMES):
            return marker in _LOSSLESS_FRAMES
        # 0xFF: a byte of filling
        place += 1 if marker == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return False


def quantization_tables(image: Any) -> np.ndarray:
    """(2, 64) float32 steps of ``image``, one that Pillow has opened: those of luminance, and of the first chroma.

    A table is 8 rows of 8, the lowest frequencies first. Zeros: the file has no such table, as grey ones have none of
    chroma and other formats none at all. Of CMYK and RGB files they are those of the first two channels.
    """
    tables, found = getattr(image, "quantization", None) or {}, UNKNOWN.copy()
    components = getattr(image, "layer", ())  # (name, samples across, samples down, number of its table) each
    for row, component in zip(found, components[:2], strict=False):
        steps = tables.get(component[3])
        if steps is not None and len(steps) == 64:
            row[:] = np.maximum(steps, 1)
    return found
