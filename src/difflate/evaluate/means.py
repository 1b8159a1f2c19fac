"""Means over images or clips, and BD-rates between the curves of two codecs."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from difflate.errors import ConfigError
from difflate.evaluate import measures
from difflate.evaluate.measures import Measure
from difflate.evaluate.records import Record, kind_of
from difflate.metrics.bjontegaard import MIN_POINTS, bd_rate


@dataclass(frozen=True)
class Anchor:
    """What BD-rates are relative to."""

    codec: str = "jpeg"
    bpp_range: tuple[float, float] | None = None
    """Only the qualities count that the anchor has between these two rates; None: all."""

    def __post_init__(self) -> None:
        if self.bpp_range is not None and not 0 < self.bpp_range[0] < self.bpp_range[1] < math.inf:
            low, high = self.bpp_range
            raise ConfigError(f"bpp_range (={low:g}, {high:g}) must be two rising rates above 0, such as 0.15 0.8")


JPEG = Anchor()


@dataclass(frozen=True)
class Point:
    """A codec setting on a curve."""

    setting: str
    bpp: float
    value: float


def nets_of(records: Iterable[Record]) -> dict[str, str]:
    """Key of a measure to the network that the records have it of.

    Raises ConfigError for records with a measure of more than one, whose values do not compare.
    """
    nets: dict[str, str] = {}
    for record in records:
        for key, net in record.nets.items():
            if nets.setdefault(key, net) != net:
                title = next(measure.title for measure in measures.MEASURES if measure.key == key)
                both = " and ".join(sorted((nets[key], net)))
                raise ConfigError(f"the records have {title} of {both}, which do not compare; report them apart")
    return nets


def measures_of(records: Sequence[Record]) -> list[Measure]:
    """The measures to report: all that are not optional, and those that any record has."""
    present = {key for record in records for key in record.values}
    mine = measures.measures_for(kind_of(records))
    return [measure for measure in mine if not measure.optional or measure.key in present]


def mean_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One dictionary per codec setting, in the order of ``records``.

    It has ``setting``, ``codec``, ``quality``, ``images`` or ``clips`` (how many were measured), ``failed``,
    ``lossless`` (how many were restored without an error), ``lpips_net``, the mean of every measure, and ``counts``: of
    how many images each is the mean. Images whose value is infinite, the PSNR of lossless ones, are left out of that
    mean, unless all are: then it is inf. It is None where no image has the value. Raises ConfigError as `nets_of` does.
    """
    nets, kind = nets_of(records), kind_of(records)
    mine = measures.measures_for(kind)
    rows = []
    for group in _by_setting(records):
        good = [record for record in group if record.error is None]
        row: dict[str, Any] = {"setting": group[0].setting, "codec": group[0].codec, "quality": group[0].quality}
        row |= {kind: len(good), "failed": len(group) - len(good)}
        row["lossless"] = sum(record.lossless for record in good)
        row |= {measure.net_key: nets.get(measure.key) for measure in mine if measure.nets}
        row["counts"] = {}
        for measure in mine:
            values = [value for record in good if (value := record.values.get(measure.key)) is not None]
            finite = [value for value in values if value != math.inf]
            values = finite or values
            row[measure.key] = math.fsum(values) / len(values) if values else None
            row["counts"][measure.key] = len(values)
        rows.append(row)
    return rows


def curves(records: Sequence[Record]) -> dict[str, dict[str, list[Point]]]:
    """For each codec and each measure with a curve the means of its settings, by rising rate.

    Lossless settings are left to tables: their PSNR has no place on an axis, and their many bits would squeeze the
    others into a corner.
    """
    columns = [measure for measure in measures_of(records) if measure.curve]
    result: dict[str, dict[str, list[Point]]] = {}
    for row in mean_rows(records):
        if row["bpp"] is None or row["lossless"] == row[kind_of(records)]:
            continue
        curve = result.setdefault(row["codec"], {measure.key: [] for measure in columns})
        for measure in columns:
            if row[measure.key] is not None:
                curve[measure.key].append(Point(row["setting"], row["bpp"], row[measure.key]))
    for curve in result.values():
        for points in curve.values():
            points.sort(key=lambda point: (point.bpp, point.value))
    return result


def bd_rates(records: Sequence[Record], anchor: Anchor = JPEG) -> dict[str, dict[str, float | str]]:
    """BD-rate in percent against ``anchor``, for each other codec of four or more settings and each measure with one.

    Images with an infinite value in any setting of the two codecs are left out of rates and qualities alike. A
    sentence stands in place of the number where the two curves do not allow one.
    """
    columns = [measure for measure in measures_of(records) if measure.curve]
    groups = by_codec(records)
    points = {codec: len(_by_setting(group)) for codec, group in groups.items()}
    result: dict[str, dict[str, float | str]] = {}
    for codec in groups:
        if codec == anchor.codec or min(points[codec], points.get(anchor.codec, 0)) < MIN_POINTS:
            continue
        result[codec] = {}
        for measure in columns:
            try:
                curves = curves_of_pair(groups[anchor.codec], groups[codec], measure)
                result[codec][measure.bd_key] = bd_rate(*curves[0], *curves[1], rate_range=anchor.bpp_range)
            except ConfigError as error:
                result[codec][measure.bd_key] = str(error)
    return result


def by_codec(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of each codec, without settings of which no image could be measured: they are no points."""
    groups: dict[str, list[Record]] = {}
    for setting in _by_setting(records):
        if any(record.error is None for record in setting):
            groups.setdefault(setting[0].codec, []).extend(setting)
    return groups


def _by_setting(records: Sequence[Record]) -> list[list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.setting, []).append(record)
    return list(groups.values())


def curves_of_pair(
    reference: Sequence[Record], records: Sequence[Record], measure: Measure
) -> list[tuple[list[float], list[float]]]:
    """(rates, qualities) of two codecs, over the images that neither restores without an error.

    Raises ConfigError if rates and qualities would be those of different images, or of none.
    """
    both = [*reference, *records]
    names = f"{reference[0].codec} and {records[0].codec}"
    infinite = {record.image for record in both if record.values.get(measure.key) == math.inf}
    sides = [mean_rows([record for record in side if record.image not in infinite]) for side in (reference, records)]
    if not all(sides):
        raise ConfigError(f"each image has an infinite {measure.title} in a setting of {names}; leave that setting out")
    if len({row["counts"][key] for rows in sides for row in rows for key in ("bpp", measure.key)}) > 1:
        raise ConfigError(
            f"not all images have {measure.bd_key} in each setting of {names}; evaluate those that have it"
        )
    return [([row["bpp"] for row in rows], [measure.quality(row[measure.key]) for row in rows]) for rows in sides]
