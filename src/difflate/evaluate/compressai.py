"""Curves in the form of CompressAI's result files, from others and for others.

https://github.com/InterDigitalInc/CompressAI/tree/master/results: one object with ``name``, ``description`` and
``results``, whose lists have one number for each setting.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from difflate.errors import ConfigError, FormatError
from difflate.evaluate import measures
from difflate.evaluate.means import Point, mean_rows
from difflate.evaluate.records import Record, kind_of
from difflate.evaluate.versions import versions

NAMES: Mapping[str, tuple[str, ...]] = {
    "psnr": ("psnr-rgb", "psnr"),
    "ms_ssim": ("ms-ssim-rgb", "ms-ssim", "msssim"),
    "encode_s": ("encoding_time",),
    "decode_s": ("decoding_time",),
}
"""Our measures under its names, the one that is written first; its files have had all of them in the course of time.
What it has no name for keeps ours."""
MAX_BYTES = 1 << 22
_RANGES = {"ms_ssim": (-1, 1), "ssim": (-1, 1)}
"""Of measures that some files might have in dB."""


@dataclass(frozen=True)
class Overlay:
    """A codec's curve that somebody else measured."""

    name: str
    description: str
    file: str
    """Name of the file that it comes from."""
    results: Mapping[str, tuple[float, ...]]
    """By the keys of our measures, ``bpp`` always; one number for each setting."""

    def points(self, key: str) -> list[Point]:
        """The curve of that measure by rising rate; empty if the file has none."""
        both = zip(self.results["bpp"], self.results.get(key, ()), strict=False)
        return [Point(self.name, *point) for point in sorted(both)]


def read_overlay(path: str | Path) -> Overlay:
    """The curve in one of CompressAI's result files.

    Raises ConfigError where the file is missing, FormatError for one that is cut or is no such file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name a result file of CompressAI") from error
    if len(data) > MAX_BYTES:
        raise FormatError(f"{path}: has more than {MAX_BYTES >> 20} MiB; it is no result file of CompressAI")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: is not complete JSON; get the file again") from error
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, dict) or "bpp" not in results:
        raise FormatError(f"{path}: has no results with bpp; it is no result file of CompressAI for images")
    found: dict[str, tuple[float, ...]] = {}
    for measure in measures.MEASURES:
        name = next((name for name in (*NAMES.get(measure.key, ()), measure.key) if name in results), None)
        if name is not None:
            found[measure.key] = _numbers(path, name, results[name], len(_list(path, "bpp", results["bpp"])))
            low, high = _RANGES.get(measure.key, (-math.inf, math.inf))
            if not all(low <= value <= high for value in found[measure.key]):
                raise FormatError(f"{path}: {name} has a value outside of {low} to {high}; values in dB are not read")
    if min(found["bpp"]) <= 0:
        raise FormatError(f"{path}: bpp has a rate that is not above 0")
    name = content.get("name")
    description = content.get("description")
    return Overlay(
        name if isinstance(name, str) and name else path.stem,
        description if isinstance(description, str) else "",
        path.name,
        found,
    )


def distinct(overlays: Sequence[Overlay], taken: Iterable[str]) -> list[Overlay]:
    """The overlays under names that no two of them share, nor one with ``taken``: with their files' names behind."""
    counts = Counter([*taken, *(overlay.name for overlay in overlays)])
    result = []
    for overlay in overlays:
        name = overlay.name if counts[overlay.name] == 1 else f"{overlay.name} ({overlay.file})"
        while counts[name] > 1 or any(name == other.name for other in result):
            name += "'"
        result.append(replace(overlay, name=name))
    return result


def to_compressai(records: Sequence[Record], command: str = "") -> dict[str, dict[str, Any]]:
    """For each codec the contents of a result file: its settings with an error, by rising rate.

    Settings that restore every image are left out, for their PSNR is infinite; so are measures that not all of the
    others have.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in mean_rows(records):
        if row["bpp"] is not None and row["lossless"] < row[kind_of(records)]:
            groups.setdefault(row["codec"], []).append(row)
    content = {}
    for codec, rows in groups.items():
        rows.sort(key=lambda row: row["bpp"])
        lists = {measure.key: [row[measure.key] for row in rows] for measure in measures.measures_for(kind_of(records))}
        content[codec] = {
            "name": codec,
            "description": f"difflate {versions().get('difflate', '')}{': ' * bool(command)}{command}",
            "results": {
                NAMES.get(key, (key,))[0]: values
                for key, values in lists.items()
                if all(value is not None and math.isfinite(value) for value in values)
            },
        }
    return content


def file_name(codec: str) -> str:
    """Of the result file of that codec."""
    return re.sub(r"[^A-Za-z0-9._+=-]", "_", codec).strip(".") + ".json"


def _list(path: Path, name: str, values: Any) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise FormatError(f"{path}: {name} is no list of numbers; it is no result file of CompressAI")
    return values


def _numbers(path: Path, name: str, values: Any, count: int) -> tuple[float, ...]:
    for value in _list(path, name, values):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise FormatError(f"{path}: {name} has {str(value)[:40]!r}, which is no finite number")
    if len(values) != count:
        raise FormatError(f"{path}: {name} has {len(values)} values but bpp has {count}; the file is damaged")
    return tuple(map(float, values))
