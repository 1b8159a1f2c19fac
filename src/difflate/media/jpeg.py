"""What a JPEG file says of how it was made: its quantization tables."""

from __future__ import annotations

from typing import Any

import numpy as np

UNKNOWN = np.zeros((2, 64), np.float32)
"""The tables of a file that has none."""


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
