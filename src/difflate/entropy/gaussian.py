"""Tables for integers whose distribution is a rounded Gaussian of mean 0 (Ballé et al. 2018, Eq. 8).

A codec stores the tables with its weights, and codes round(y - mean) with the table of the scale that a network gives.
The scales are a fixed ladder, so that the network's exact part has only to find a rung: `scale_index`.
"""

import math

import numpy as np

from difflate.entropy.tables import Tables

SCALE_MIN, SCALE_MAX, RUNGS = 0.11, 256.0, 64
"""The ladder of Ballé et al. 2018: below the first rung nearly all integers are 0."""
_REACH = 5.0
"""Standard deviations that a table reaches to; what is beyond is escaped."""
_ESCAPE_MIN = 2.0**-15
"""The escape's share. A Gaussian has less so far out, values that a network misjudges have more; it costs all others a
twenty-thousandth of a bit."""


def scale_ladder() -> np.ndarray:
    """(64,) float64, from 0.11 to 256 in equal ratios."""
    return np.exp(np.linspace(np.log(SCALE_MIN), np.log(SCALE_MAX), RUNGS))


def scale_index(scales: np.ndarray) -> np.ndarray:
    """int64, same shape: the first rung that is not below each of ``scales``, the last for those above all."""
    return np.minimum(np.searchsorted(scale_ladder(), np.asarray(scales, np.float64)), RUNGS - 1)


def gaussian_tables() -> Tables:
    """The table of each rung, for integers of both signs. Made once for a model; decoders read it from the weights."""
    masses, escapes, low = [], [], []
    for scale in scale_ladder():
        reach = math.ceil(_REACH * scale)
        # P(X < edge) of the edges up to 0, where differences keep their digits; the other half is the mirror image
        below = np.array([math.erfc((edge + 0.5) / scale / math.sqrt(2)) / 2 for edge in range(reach, -1, -1)])
        side = np.diff(below)
        masses.append(np.concatenate([side, [1 - 2 * below[-1]], side[::-1]]))
        escapes.append(max(2 * below[0], _ESCAPE_MIN))
        low.append(-reach)
    return Tables.from_counts(masses, low, escapes)


BIT_PRICE = 1 / 24
"""What a bit costs in squared quantizer steps, when integers are chosen. At high rates a uniform quantizer of step Δ is
best for λ = 6/(Δ²·ln 2), where a bit is worth 1/8.7 squared steps. About a third of that is taken: synthesis networks
are trained with half steps of error in all numbers, and expect them."""
_STEPS = 9


def rounding_offsets() -> np.ndarray:
    """(64, 9) float64: how far above n - ½ a size must be for n to be worth its bits, for each rung and n from 0 on.

    n costs some bits more than n - 1; it is chosen where it saves as much squared error as they are worth. Sizes of 9
    and more are taken for 8. Only an encoder's choice: decoders do not know of it.
    """
    tables = gaussian_tables()
    offsets = np.zeros((RUNGS, _STEPS))
    for rung, (frequencies, low) in enumerate(zip(tables.frequencies, tables.low, strict=True)):
        bits = -np.log2(frequencies[-low:-1] / frequencies.sum())  # of 0, 1, 2 …
        for n in range(1, _STEPS):
            more = bits[n] - bits[n - 1] if n < len(bits) else offsets[rung, n - 1] * 2 / BIT_PRICE
            offsets[rung, n] = more * BIT_PRICE / 2
    return np.minimum(offsets, 0.49)  # what rounds to n is at least n - ½, and never worth more than n
