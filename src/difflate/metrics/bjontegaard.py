"""Bjøntegaard deltas: how much less rate, or how much more quality, one codec's curve has than another's.

The curves are interpolated in (log rate, quality) through all their points and integrated where both exist
(Bjøntegaard 2001, VCEG-M33; piecewise cubic as in VCEG-AI11 in place of one polynomial, which oscillates).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from difflate.errors import ConfigError
from difflate.extras import require

METHODS = {"pchip": "PchipInterpolator", "akima": "Akima1DInterpolator"}
MIN_POINTS = 4


def bd_rate(
    reference_rates: Sequence[float],
    reference_qualities: Sequence[float],
    rates: Sequence[float],
    qualities: Sequence[float],
    method: str = "pchip",
    rate_range: tuple[float, float] | None = None,
) -> float:
    """Mean rate difference in percent at equal quality; negative: less rate than the reference.

    Each curve: four points or more in any order; rates > 0 (bits per pixel), qualities (dB) rising with the rate.
    ``method`` is ``pchip`` or ``akima``. ``rate_range``: only over the qualities that the reference has between these
    two rates; the curves still go through all their points. Raises ConfigError for other curves, and for curves
    without a common quality there.
    """
    reference = _curve("the reference curve", reference_rates, reference_qualities)
    curve = _curve("the curve", rates, qualities)
    # log rate as a function of quality: the two axes change places
    mean = _mean_difference((reference[1], reference[0]), (curve[1], curve[0]), method, "quality", rate_range)
    return 100 * math.expm1(mean)


def bd_rate_overlap(
    reference_rates: Sequence[float],
    reference_qualities: Sequence[float],
    rates: Sequence[float],
    qualities: Sequence[float],
    method: str = "pchip",
    rate_range: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """The lowest and highest quality that `bd_rate` compares the curves at. Arguments and errors as there."""
    reference = _curve("the reference curve", reference_rates, reference_qualities)
    curve = _curve("the curve", rates, qualities)
    return _common((reference[1], reference[0]), (curve[1], curve[0]), _interpolator(method), "quality", rate_range)


def bd_quality(
    reference_rates: Sequence[float],
    reference_qualities: Sequence[float],
    rates: Sequence[float],
    qualities: Sequence[float],
    method: str = "pchip",
) -> float:
    """Mean quality difference at equal rate, in the unit of ``qualities`` (BD-PSNR in dB); positive: better.

    Arguments and errors as in `bd_rate`, but the curves need a common rate.
    """
    reference = _curve("the reference curve", reference_rates, reference_qualities)
    curve = _curve("the curve", rates, qualities)
    return _mean_difference(reference, curve, method, "rate")


def _curve(what: str, rates: Sequence[float], qualities: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(n,) log rates, rising, and (n,) qualities, float64."""
    if len(rates) != len(qualities) or len(rates) < MIN_POINTS:
        raise ConfigError(f"{what} has {len(rates)} rates and {len(qualities)} qualities; it needs {MIN_POINTS} pairs")
    points = np.array(sorted(zip(rates, qualities, strict=True)), dtype=np.float64)
    if not np.isfinite(points).all() or points[0, 0] <= 0:
        raise ConfigError(f"{what} has a rate or quality that is not a finite number, or a rate that is not above 0")
    if (np.diff(points, axis=0) <= 0).any():
        raise ConfigError(f"{what} does not rise: each of its points needs more rate and more quality than the last")
    return np.log(points[:, 0]), points[:, 1]


def _mean_difference(
    reference: tuple[np.ndarray, np.ndarray],
    curve: tuple[np.ndarray, np.ndarray],
    method: str,
    axis: str,
    rate_range: tuple[float, float] | None = None,
) -> float:
    """Mean of curve(x) - reference(x) over the x that both have; each curve is (x, y).

    ``rate_range``: only where exp(reference(x)) lies in it.
    """
    interpolator = _interpolator(method)
    low, high = _common(reference, curve, interpolator, axis, rate_range)
    areas = [float(interpolator(x, y).integrate(low, high)) for x, y in (reference, curve)]
    return (areas[1] - areas[0]) / float(high - low)


def _interpolator(method: str) -> Any:
    if method not in METHODS:
        raise ConfigError(f"method (={method}) must be one of {', '.join(METHODS)}")
    return getattr(require("scipy.interpolate", "eval"), METHODS[method])


def _common(
    reference: tuple[np.ndarray, np.ndarray],
    curve: tuple[np.ndarray, np.ndarray],
    interpolator: Any,
    axis: str,
    rate_range: tuple[float, float] | None,
) -> tuple[float, float]:
    """The lowest and highest x that both curves have, as in `_mean_difference`. Raises ConfigError if there is none."""
    low, high = max(reference[0][0], curve[0][0]), min(reference[0][-1], curve[0][-1])
    if rate_range is not None:
        if not 0 < rate_range[0] < rate_range[1] < math.inf:
            raise ConfigError(f"rate_range (={rate_range[0]:g}, {rate_range[1]:g}) must be two rising rates above 0")
        ends = [_quality_at(interpolator(*reference), *reference, math.log(rate)) for rate in rate_range]
        low, high = max(low, ends[0]), min(high, ends[1])
    if low >= high:
        raise ConfigError(f"the two curves have no {axis} in common; measure them over overlapping ranges")
    return float(low), float(high)


def _quality_at(function: Any, x: np.ndarray, y: np.ndarray, value: float) -> float:
    """The quality x at which ``function``, through the rising points (x, y), has ``value``; else the nearer end."""
    if not y[0] < value < y[-1]:
        return float(x[0] if value <= y[0] else x[-1])
    return float(function.solve(value, extrapolate=False)[0])
