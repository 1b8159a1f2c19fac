"""Tables for integers whose distribution is a rounded Gaussian of mean 0 (Ballé et al. 2018, Eq. 8).

A codec stores the tables with its weights, and codes round(y - mean) with the table of the scale that a network gives.
The scales are a fixed ladder, so that the network's exact part has only to find a rung: `scale_index`.
"""

import math

import numpy as np

from difflate.entropy.tables import Tables

SCALE_MIN, SCALE_MAX, LEVELS = 0.11, 256.0, 64
"""The ladder of Ballé et al. 2018: below the first rung nearly all integers are 0."""
_REACH = 5.0
"""Standard deviations that a table reaches to; what is beyond is escaped, once in two million symbols."""


def scale_ladder() -> np.ndarray:
    """(64,) float64, from 0.11 to 256 in equal ratios."""
    return np.exp(np.linspace(np.log(SCALE_MIN), np.log(SCALE_MAX), LEVELS))


def scale_index(scales: np.ndarray) -> np.ndarray:
    """int64, same shape: the first rung that is not below each of ``scales``, the last for those above all."""
    return np.minimum(np.searchsorted(scale_ladder(), np.asarray(scales, np.float64)), LEVELS - 1)


def gaussian_tables() -> Tables:
    """The table of each rung, for integers of both signs. Made once for a model; decoders read it from the weights."""
    masses, escapes, low = [], [], []
    for scale in scale_ladder():
        reach = math.ceil(_REACH * scale)
        # P(X < edge) of the edges up to 0, where differences keep their digits; the other half is the mirror image
        below = np.array([math.erfc((edge + 0.5) / scale / math.sqrt(2)) / 2 for edge in range(reach, -1, -1)])
        side = np.diff(below)
        masses.append(np.concatenate([side, [1 - 2 * below[-1]], side[::-1]]))
        escapes.append(2 * below[0])
        low.append(-reach)
    return Tables.from_counts(masses, low, escapes)
