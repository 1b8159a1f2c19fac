import math

import numpy as np
import pytest

from difflate.errors import ConfigError
from difflate.metrics import bd_quality, bd_rate

RATES = [0.1, 0.25, 0.5, 0.9, 1.6]
DB = [26.1, 29.0, 31.2, 33.1, 35.9]


@pytest.mark.parametrize("method", ["pchip", "akima"])
@pytest.mark.parametrize("factor", [1.1, 0.8, 1.0])
def test_a_curve_shifted_in_rate_has_that_bd_rate(method: str, factor: float) -> None:
    shifted = [rate * factor for rate in RATES]
    assert bd_rate(RATES, DB, shifted, DB, method) == pytest.approx(100 * (factor - 1), abs=1e-9)


@pytest.mark.parametrize("method", ["pchip", "akima"])
def test_a_curve_shifted_in_quality_has_that_bd_psnr(method: str) -> None:
    assert bd_quality(RATES, DB, RATES, [db + 0.7 for db in DB], method) == pytest.approx(0.7, abs=1e-12)


@pytest.mark.parametrize("method", ["pchip", "akima"])
def test_straight_curves_over_other_points_and_ranges(method: str) -> None:
    # quality = 40 + 5 log(rate), and 41 + 5 log(rate): e^(-1/5) of the rate for any quality, whatever the points
    first, second = np.array([0.1, 0.2, 0.5, 1.0]), np.array([0.15, 0.3, 0.4, 0.9, 2.0])
    curves = (first, 40 + 5 * np.log(first), second, 41 + 5 * np.log(second))
    assert bd_rate(*curves, method=method) == pytest.approx(100 * np.expm1(-0.2), abs=1e-9)  # pyright: ignore
    assert bd_quality(*curves, method=method) == pytest.approx(1, abs=1e-9)  # pyright: ignore


def test_order_of_the_points_does_not_matter() -> None:
    better = [rate * 0.9 for rate in RATES]
    assert bd_rate(RATES[::-1], DB[::-1], better, DB) == bd_rate(RATES, DB, better, DB)


def test_swapping_the_curves_inverts_the_factor() -> None:
    other_rates, other_db = [0.08, 0.3, 0.6, 1.1], [26.0, 30.1, 32.5, 35.0]
    forward = bd_rate(RATES, DB, other_rates, other_db)
    backward = bd_rate(other_rates, other_db, RATES, DB)
    assert (1 + forward / 100) * (1 + backward / 100) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("rates", "qualities", "message"),
    [
        (RATES, [db + 10 for db in DB], "no quality in common"),
        (RATES[:3], DB[:3], "needs 4 pairs"),
        (RATES, DB[:4], "needs 4 pairs"),
        (RATES, [*DB[:4], 30.0], "does not rise"),
        ([*RATES[:4], RATES[3]], DB, "does not rise"),
        ([0, *RATES[1:]], DB, "not above 0"),
        (RATES, [*DB[:4], float("inf")], "not a finite number"),
    ],
)
def test_curves_that_cannot_be_compared_are_errors(rates: list[float], qualities: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bd_rate(RATES, DB, rates, qualities)


def test_bd_quality_needs_a_common_rate() -> None:
    with pytest.raises(ConfigError, match="no rate in common"):
        bd_quality(RATES, DB, [rate * 100 for rate in RATES], DB)


def test_unknown_method() -> None:
    with pytest.raises(ConfigError, match="pchip, akima"):
        bd_rate(RATES, DB, RATES, DB, method="cubic")


def test_a_range_of_rates_leaves_out_the_rest_of_the_curves() -> None:
    # straight in log rate; the second has 1.25 times the rate below quality 30, and less above
    qualities = np.arange(20.0, 41.0)
    rates = np.exp((qualities - 30) / 5)
    others = rates * np.where(qualities < 30, 1.25, 1.1)
    curves = (list(rates), list(qualities), list(others), list(qualities))
    low = bd_rate(*curves, rate_range=(math.exp(-1.6), math.exp(-0.6)))  # qualities 22 to 27
    high = bd_rate(*curves, rate_range=(math.exp(0.4), math.exp(1.4)))
    assert (low, high) == (pytest.approx(25), pytest.approx(10))
    assert bd_rate(*curves, rate_range=(1e-9, 1e9)) == bd_rate(*curves)
    with pytest.raises(ConfigError, match="no quality in common"):
        bd_rate(*curves, rate_range=(1e3, 1e4))
    with pytest.raises(ConfigError, match="two rising rates"):
        bd_rate(*curves, rate_range=(2, 1))


def test_a_range_of_rates_between_points() -> None:
    # d(log rate) = a + b·quality, both straight lines in log rate: its mean over any interval is that in the middle
    qualities = np.array([20.0, 24, 28, 32, 36])
    rates, others = np.exp(qualities / 8 - 4), np.exp(qualities / 10 - 3)
    ends = (21.3, 30.7)
    difference = bd_rate(
        list(rates),
        list(qualities),
        list(others),
        list(qualities),
        rate_range=(math.exp(ends[0] / 8 - 4), math.exp(ends[1] / 8 - 4)),
    )
    middle = sum(ends) / 2
    assert difference == pytest.approx(100 * math.expm1((middle / 10 - 3) - (middle / 8 - 4)), rel=1e-9)
