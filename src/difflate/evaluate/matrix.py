"""BD-rates of all pairs of codecs, with the range of quality that each is over."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from difflate.errors import ConfigError
from difflate.evaluate.compressai import Overlay
from difflate.evaluate.means import by_codec, curves, curves_of_pair, measures_of
from difflate.evaluate.measures import Measure
from difflate.evaluate.records import Record
from difflate.metrics.bjontegaard import MIN_POINTS, bd_rate, bd_rate_overlap


@dataclass(frozen=True)
class Cell:
    """One codec against another, the anchor."""

    rate: float | None = None
    """BD-rate in percent; None where the two curves allow none."""
    low: float | None = None
    high: float | None = None
    """The qualities that it is over, as the measure is drawn (`drawn_value`)."""
    share: float | None = None
    """Of the range of qualities that the two curves have together; a small one says little of the two codecs."""
    why: str = ""
    """Why there is no rate."""


def drawn_value(measure: Measure, value: float) -> float:
    """A mean as plots have it: in dB where the BD-rate is of dB."""
    return measure.quality(value) if measure.in_db else value


def bd_matrix(
    records: Sequence[Record], overlays: Sequence[Overlay] = (), bpp_range: tuple[float, float] | None = None
) -> dict[str, dict[str, dict[str, Cell]]]:
    """Key of a measure -> anchor -> codec -> `Cell`; codecs with four settings or more.

    Two codecs that were measured here are compared over the images that neither restores without an error, as
    `bd_rates` does; with ``overlays``, which have means alone, over the means of all that has an error.
    ``bpp_range``: only over the qualities that the anchor has between these two rates.
    """
    groups, drawn = by_codec(records), curves(records)
    others = {overlay.name: overlay for overlay in overlays}
    result: dict[str, dict[str, dict[str, Cell]]] = {}
    for measure in measures_of(records):
        if not measure.curve:
            continue
        lines = {codec: curve[measure.key] for codec, curve in drawn.items()}
        lines |= {name: overlay.points(measure.key) for name, overlay in others.items()}
        names = [name for name, points in lines.items() if len(points) >= MIN_POINTS]
        rows: dict[str, dict[str, Cell]] = {name: {} for name in names}
        for first, second in itertools.combinations(names, 2):
            try:
                if first in others or second in others:
                    both = [
                        ([point.bpp for point in points], [measure.quality(point.value) for point in points])
                        for points in (lines[first], lines[second])
                    ]
                else:
                    both = curves_of_pair(groups[first], groups[second], measure)
            except ConfigError as error:
                rows[first][second] = rows[second][first] = Cell(why=str(error))
            else:
                rows[first][second] = _cell(measure, both, bpp_range)
                rows[second][first] = _cell(measure, both[::-1], bpp_range)
        result[measure.key] = rows
    return result


def _cell(measure: Measure, both: list[tuple[list[float], list[float]]], bpp_range: tuple[float, float] | None) -> Cell:
    try:
        rate = bd_rate(*both[0], *both[1], rate_range=bpp_range)
        low, high = bd_rate_overlap(*both[0], *both[1], rate_range=bpp_range)
    except ConfigError as error:
        return Cell(why=str(error))
    qualities = [*both[0][1], *both[1][1]]
    share = (high - low) / (max(qualities) - min(qualities))
    if measure.lower_is_better and not measure.in_db:
        low, high = -high, -low
    return Cell(rate, low, high, share)
