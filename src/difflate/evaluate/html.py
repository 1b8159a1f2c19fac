"""A run as one HTML page that needs nothing else: numbers, curves and pictures are in it, and its program too."""

import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from difflate.evaluate.compressai import Overlay, distinct
from difflate.evaluate.embed import Embedded, embed, shown_images, target_rates
from difflate.evaluate.matrix import bd_matrix, drawn_value
from difflate.evaluate.means import JPEG, Anchor, Point, curves, mean_rows, measures_of, nets_of
from difflate.evaluate.measures import Measure
from difflate.evaluate.pictures import PictureFolder
from difflate.evaluate.plot import line_style
from difflate.evaluate.records import Record, failures, kind_of

SCRIPTS = ("page.js", "charts.js", "tables.js", "viewer.js")


def render(package: str, scripts: Sequence[str], data: Mapping[str, Any]) -> str:
    """page.html of a folder of this package, with its page.css, those scripts and the data put in."""
    folder = resources.files("difflate.evaluate") / package

    def text(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    # no text of the data can end the element that it stands in
    as_text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {"/*css*/": text("page.css"), "/*js*/": "\n".join(map(text, scripts)), "/*data*/": as_text}
    page = text("page.html")
    for mark, part in parts.items():
        before, found, after = page.partition(mark)
        assert found, f"{package}/page.html has no {mark}"
        page = before + part + after
    return page


def report_page(
    records: Sequence[Record],
    protocol: Mapping[str, Any],
    *,
    anchor: Anchor = JPEG,
    overlays: Sequence[Overlay] = (),
    pictures: PictureFolder | None = None,
) -> str:
    """The page of a run. ``protocol``: as in results.json. ``pictures``: where its pictures are; None: it shows none.

    Raises ImageError for a picture that is damaged.
    """
    images = shown_images(records)
    overlays = distinct(overlays, {record.codec for record in records})
    embedded = embed(records, images, pictures) if pictures is not None else Embedded()
    return render("report_page", SCRIPTS, _data(records, protocol, anchor, overlays, images, embedded, pictures))


def _data(
    records: Sequence[Record],
    protocol: Mapping[str, Any],
    anchor: Anchor,
    overlays: Sequence[Overlay],
    images: Sequence[str],
    embedded: Embedded,
    pictures: PictureFolder | None,
) -> dict[str, Any]:
    columns, nets = measures_of(records), nets_of(records)
    rows, kind = mean_rows(records), kind_of(records)
    codecs = list(dict.fromkeys(row["codec"] for row in rows))
    drawn = curves(records)
    lines = [(codec, "", drawn.get(codec, {})) for codec in codecs]
    lines += [
        (overlay.name, overlay.file, {measure.key: overlay.points(measure.key) for measure in columns})
        for overlay in overlays
    ]
    return {
        "kind": kind,
        "images": len({record.image for record in records}),
        "measures": [_measure(measure, nets) for measure in columns],
        "codecs": [
            {"name": name, "file": file, "style": line_style(i), "curves": _curves(columns, points)}
            for i, (name, file, points) in enumerate(lines)
        ],
        "overlays": [{"name": overlay.name, "file": overlay.file, "text": overlay.description} for overlay in overlays],
        "settings": [
            {
                **{key: row[key] for key in ("setting", "codec", "quality", "failed", "lossless")},
                "images": row[kind],
                "values": [_number(row[measure.key]) for measure in columns],
                "counts": [row["counts"][measure.key] for measure in columns],
            }
            for row in rows
        ],
        "bd": _matrix(records, overlays, anchor),
        "rates": target_rates(records),
        "left_out": len({record.image for record in records} - set(images)),
        "shown": _images(records, images, columns, embedded, pictures),
        "failures": failures(records),
        "embedded": {"quality": embedded.quality, "worst_db": _number(embedded.worst_db), "kept": pictures is not None},
        "protocol": dict(protocol),
    }


def _measure(measure: Measure, nets: Mapping[str, str]) -> dict[str, Any]:
    return {
        "key": measure.key,
        "title": f"{measure.title} {nets.get(measure.key, '')}".rstrip(),
        "unit": measure.unit,
        "drawn_unit": "dB" if measure.in_db else measure.unit,
        "in_db": measure.in_db,
        "infinite": measure.infinite,
        "places": measure.places,
        "curve": measure.curve,
        "lower": measure.lower_is_better,
        "rate": measure.key == "bpp",
        "time": measure.unit == "s",
        "text": measure.definition,
    }


def _curves(columns: Sequence[Measure], points: Mapping[str, Sequence[Point]]) -> dict[str, list[list[Any]]]:
    """Key of a measure to [setting, bpp, place on the axis, value] of each setting."""
    found: dict[str, list[list[Any]]] = {}
    for measure in columns:
        if measure.curve:
            line = [[p.setting, p.bpp, drawn_value(measure, p.value), p.value] for p in points.get(measure.key, ())]
            found[measure.key] = [point for point in line if all(map(math.isfinite, point[1:]))]
    return found


def _matrix(records: Sequence[Record], overlays: Sequence[Overlay], anchor: Anchor) -> dict[str, Any]:
    return {
        "bpp_range": anchor.bpp_range and list(anchor.bpp_range),
        "rates": {
            key: {
                of: {codec: cell.why or [cell.rate, cell.low, cell.high, cell.share] for codec, cell in row.items()}
                for of, row in rows.items()
            }
            for key, rows in bd_matrix(records, overlays, anchor.bpp_range).items()
        },
    }


def _images(
    records: Sequence[Record],
    images: Sequence[str],
    columns: Sequence[Measure],
    embedded: Embedded,
    pictures: PictureFolder | None,
) -> list[dict[str, Any]]:
    shown: dict[str, dict[str, Any]] = {image: {"name": image, "settings": {}} for image in images}
    for record in records:
        image = shown.get(record.image)
        if image is None or record.error:
            continue
        kept = pictures is not None and pictures.has(record)
        image |= {"width": record.width, "height": record.height, "crop": embedded.crops.get(record.image)}
        image["pixels"] = (record.width or 0) * (record.height or 0) * (record.frames or 1)
        if pictures is not None and kept:
            image["file"] = pictures.relative(pictures.original(record))
            image["src"] = embedded.sources.get((record.image, ""))
        image["settings"][record.setting] = {
            "bytes": record.bytes,
            "values": [_number(record.values.get(measure.key)) for measure in columns],
            "lossless": record.lossless,
            "file": pictures.relative(pictures.restored(record)) if pictures is not None and kept else None,
            "src": embedded.sources.get((record.image, record.setting)),
        }
    return [image for image in shown.values() if image["settings"]]


def _number(value: float | None) -> float | str | None:
    """JSON has no infinity: "inf" stands for it."""
    return "inf" if value == math.inf else value
