"""A latent of integers, as the coders of transform codecs write and read it. BITSTREAM: all of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difflate.entropy.fixed_point import ONE
from difflate.errors import DesyncError

SYMBOL_MAX = 32767


@dataclass(frozen=True)
class Latent:
    """What a file holds of an image: integers, the same on every machine."""

    z: np.ndarray
    """(Z, ⌈h/4⌉, ⌈w/4⌉) int16 side information; Z = 0 without."""
    q: np.ndarray
    """(M, h, w) int16: round(y - mean)."""
    wide: np.ndarray | None = None
    """(h, w, M) int32: q + mean in units of 2^-8; None: there is no mean."""

    @property
    def y_hat(self) -> np.ndarray:
        """(M, h, w) float32: q + mean, a multiple of 1/256. Made when it is asked for: an encoder has no use for it."""
        y_hat = np.empty(self.q.shape, np.float32)
        if self.wide is None:
            y_hat[:] = self.q
        else:
            np.multiply(self.wide.transpose(2, 0, 1), np.float32(1 / ONE), out=y_hat, casting="unsafe")
        return y_hat

    def symbols(self) -> bytes:
        """z, then q, as little-endian 16-bit integers: what the file's symbol check is taken of."""
        planes = (np.ascontiguousarray(symbols, "<i2") for symbols in (self.z, self.q))
        return b"".join(plane.data for plane in planes)  # one copy: of large images it is a hundred megabytes


def channel_index(shape: tuple[int, ...]) -> np.ndarray:
    """(C·h·w,) int64: each symbol's table number in a latent of ``shape`` (C, h, w), its channel."""
    return np.repeat(np.arange(shape[0]), shape[1] * shape[2])


def to_symbols(values: np.ndarray) -> np.ndarray:
    """``values``, whole numbers, as int16, clipped to ± `SYMBOL_MAX`; same shape."""
    return np.clip(values, -SYMBOL_MAX, SYMBOL_MAX).astype(np.int16)


def from_decoder(symbols: np.ndarray) -> np.ndarray:
    """``symbols`` as int16, same shape. Raises DesyncError for those that no encoder writes."""
    if symbols.size and np.abs(symbols.astype(np.int64)).max() > SYMBOL_MAX:
        raise DesyncError("a decoded symbol is larger than any that is written; get an intact copy of the file")
    return symbols.astype(np.int16)
