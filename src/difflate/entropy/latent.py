"""A latent of integers, as the coders of transform codecs write and read it. BITSTREAM: all of it."""

from __future__ import annotations

from collections.abc import Sequence
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

    def __getitem__(self, place: tuple[slice, slice, slice]) -> np.ndarray:
        """(M', h', w') float32: `y_hat` at ``place``, of channels, rows and columns, made when it is asked for."""
        q = self.q[place]
        y_hat = np.empty(q.shape, np.float32)
        if self.wide is None:
            y_hat[:] = q
        else:
            np.multiply(self.wide.transpose(2, 0, 1)[place], np.float32(1 / ONE), out=y_hat, casting="unsafe")
        return y_hat

    @property
    def y_hat(self) -> np.ndarray:
        """(M, h, w) float32: q + mean, a multiple of 1/256. Of large images it is better asked for in parts."""
        return self[:, :, :]

    def symbols(self) -> bytes:
        """z, then q, as little-endian 16-bit integers: what the file's symbol check is taken of."""
        planes = (np.ascontiguousarray(symbols, "<i2") for symbols in (self.z, self.q))
        return b"".join(plane.data for plane in planes)  # one copy: of large images it is a hundred megabytes


class Latents:
    """(B, M, h, w) float32: the `y_hat` of B latents of one size, of which only parts are made."""

    def __init__(self, latents: Sequence[Latent]):
        self.latents = latents

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, place: tuple[slice, slice, slice, slice]) -> np.ndarray:
        return np.stack([latent[place[1:]] for latent in self.latents[place[0]]])


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
