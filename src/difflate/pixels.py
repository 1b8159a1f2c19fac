"""Pictures in and out: PIL, numpy and torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Picture:
    """An image as every codec takes it: 8 bits, upright, grey or RGB."""

    pixels: np.ndarray
    """(C, H, W) uint8, C = 1 (grey) or 3 (sRGB), H and W >= 1."""
    alpha: np.ndarray | None = None
    """(H, W) uint8, 255 opaque; None: fully opaque."""
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None

    @property
    def width(self) -> int:
        return self.pixels.shape[2]

    @property
    def height(self) -> int:
        return self.pixels.shape[1]
