"""How far a restored clip is from its original: numbers that grow with the frames, of which two are in memory at most.

A measure of a clip is a `Running`: it is told each frame beside its original, in their order, and asked at the end.
"""

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from difflate.media.picture import Picture
from difflate.metrics.pairs import PEAK, planes_of_pair


class Running(Protocol):
    """A measure of one clip that is under way."""

    def add(self, reference: Picture, restored: Picture) -> None:
        """The next frame of both clips, of one shape."""
        ...

    def value(self) -> float | None:
        """Of all frames that were added; None: the clip is too small or too short for the measure."""
        ...


class FrameMean:
    """A measure of pictures, averaged over the frames.

    Frames whose value is infinite, the PSNR of those without an error, are left out, unless all are: then it is inf.
    """

    def __init__(self, comparison: Callable[[Picture, Picture], float | None]):
        self._comparison = comparison
        self._values: list[float | None] = []

    def add(self, reference: Picture, restored: Picture) -> None:
        """See `Running`."""
        self._values.append(self._comparison(reference, restored))

    def value(self) -> float | None:
        """See `Running`."""
        values = [value for value in self._values if value is not None]
        finite = [value for value in values if value != math.inf]
        values = finite or values
        return math.fsum(values) / len(values) if values else None


class Flicker:
    """Temporal PSNR in dB: of how wrong each frame's change is, whatever is wrong with the frame before and after it.

    10 log10(255² / mean over t and samples of ((x_t - x_{t-1}) - (y_t - y_{t-1}))²), x the original and y the restored
    clip; inf if all changes are equal, None for a clip of one frame. An error that stands still costs nothing here, one
    that comes and goes costs twice its square.
    """

    def __init__(self) -> None:
        self._error: np.ndarray | None = None
        self._sum, self._count = 0.0, 0

    def add(self, reference: Picture, restored: Picture) -> None:
        """See `Running`."""
        first, second = planes_of_pair(reference, restored)
        error = first.astype(np.int16) - second
        if self._error is not None:
            change = (error - self._error).astype(np.float64)
            self._sum += float(np.square(change, out=change).sum())
            self._count += change.size
        self._error = error

    def value(self) -> float | None:
        """See `Running`."""
        if not self._count:
            return None
        return math.inf if self._sum == 0 else 10 * math.log10(PEAK**2 * self._count / self._sum)
