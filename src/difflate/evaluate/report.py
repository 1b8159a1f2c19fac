"""The report of a rate-distortion run: results.json, results.md, rate_distortion.png, report.html in one folder."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflate import files
from difflate.errors import ConfigError
from difflate.evaluate import measures
from difflate.evaluate.machine import machine
from difflate.evaluate.markdown import cell, markdown_table
from difflate.evaluate.means import JPEG, Anchor, bd_rates, curves, mean_rows, measures_of, nets_of
from difflate.evaluate.measures import Kind, Measure
from difflate.evaluate.records import Record, failures, kind_of
from difflate.evaluate.results import NAME, VERSION, read_results
from difflate.evaluate.versions import versions
from difflate.extras import require

if TYPE_CHECKING:
    from difflate.evaluate.compressai import Overlay
    from difflate.evaluate.pictures import PictureFolder

PAGE = "report.html"
FILES = (NAME, "results.md", "rate_distortion.png", PAGE)
FRAMES = (
    "of the clip; psnr, ssim, ms_ssim, lpips and dists are means over them, of psnr over those with an error, unless "
    "none has one"
)
JOURNAL = "records.jsonl"
"""Stands in the folder as long as the run is not complete."""


def definitions(kind: Kind = "images") -> dict[str, str]:
    """What each key of results.json means that is a number."""
    one = kind.removesuffix("s")
    return {
        "bytes": "size of the complete file, which was decoded again; pixels only: no alpha, EXIF, ICC or XMP is "
        "stored" + ", and no sound" * (kind == "clips"),
        **({"frames": FRAMES} if kind == "clips" else {}),
        **{measure.key: measure.definition for measure in measures.measures_for(kind)},
        "jobs": "so many workers, each with one thread, measured at once, of a run that was gone on with the most; "
        "null: one process with all of its threads; encode_s and decode_s of different jobs do not compare",
        "peak_memory_bytes": "the most memory that a process which measured had resident, from its start to its last "
        "measurement: all codecs, models and measures together; of jobs that of the largest, not their sum; null: not "
        "known",
        "means": f"of the values of the {kind} that could be measured, each {one} counting once; psnr: of those with "
        "an error, lossless ones are counted apart",
        "bd_rate_percent": "mean difference of bpp against bd_anchor at equal mean quality, piecewise cubic through "
        "the means of a codec's four or more settings; ssim_db = -10 * log10(1 - ssim), ms_ssim_db likewise; "
        f"psnr: over the {kind} that no setting of the two codecs restores without an error; with bpp_range: over the "
        "qualities that the anchor has between these rates",
    }


def check_output(folder: Path, force: bool) -> None:
    """Raises what `write_report` would raise, so that it can be known before hours of work.

    OutputExists if a report stands in ``folder`` and ``force`` is not set; ConfigError if ``folder`` is a file or
    matplotlib is not installed.
    """
    require("matplotlib.figure", "eval")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; the report needs a folder")
    for name in FILES:
        files.check_output(folder / name, force)


def write_report(
    records: Sequence[Record],
    folder: str | Path,
    *,
    command: str = "",
    force: bool = False,
    anchor: Anchor = JPEG,
    overlays: "Sequence[Overlay]" = (),
    pictures: "PictureFolder | None" = None,
) -> list[Path]:
    """Writes the four files into ``folder``, which is made if needed, and returns their paths.

    ``command`` is kept as the way to repeat the run. ``overlays``: curves of others for the page's plots; ``pictures``:
    where those are that the run has kept. Raises as `check_output` and `mean_rows` do.
    """
    from difflate.evaluate.html import report_page

    folder = Path(folder)
    check_output(folder, force)
    picture = rate_distortion_png(records)
    results = as_json(records, command, anchor, pictures is not None)
    page = report_page(records, results["protocol"], anchor=anchor, overlays=overlays, pictures=pictures)
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    texts = (text, markdown(records, command, anchor))
    contents = (*(text.encode("utf-8", "backslashreplace") for text in texts), picture)
    paths = [folder / name for name in FILES]
    for path, data in zip(paths, (*contents, page.encode("utf-8", "backslashreplace")), strict=True):
        files.atomic_write(path, data, force)
    return paths


def remake_page(folder: str | Path, overlays: Sequence["Overlay"] = ()) -> Path:
    """Writes the page of the report in ``folder`` anew, with ``overlays`` as curves beside those of the codecs.

    Nothing is measured, and nothing else in ``folder`` changes. Raises as `difflate.evaluate.results.read_results`.
    """
    from difflate.evaluate.html import report_page
    from difflate.evaluate.pictures import PictureFolder

    folder = Path(folder)
    results = read_results(folder)
    pictures = PictureFolder(folder) if results.protocol.get("pictures") else None
    page = report_page(results.records, results.protocol, anchor=results.anchor, overlays=overlays, pictures=pictures)
    files.atomic_write(folder / PAGE, page.encode("utf-8", "backslashreplace"), force=True)
    return folder / PAGE


def as_json(
    records: Sequence[Record],
    command: str = "",
    anchor: Anchor = JPEG,
    pictures: bool = False,
) -> dict[str, Any]:
    """The contents of results.json: protocol, means, BD-rates and all records, without infinities."""
    means = [{key: None if value == math.inf else value for key, value in row.items()} for row in mean_rows(records)]
    nets, kind = nets_of(records), kind_of(records)
    protocol = {
        "command": command,
        **{measure.net_key: nets.get(measure.key) for measure in measures.measures_for(kind) if measure.nets},
        "bd_anchor": anchor.codec,
        "bpp_range": anchor.bpp_range and list(anchor.bpp_range),
        "versions": versions(),
        "machine": machine(),
        "jobs": jobs_of(records),
        "peak_memory_bytes": max((record.peak_memory_bytes or 0 for record in records), default=0) or None,
        "pictures": pictures,
        "definitions": definitions(kind),
    }
    return {
        "version": VERSION,
        "protocol": protocol,
        "means": means,
        "bd_rate_percent": bd_rates(records, anchor),
        "records": [record.to_json() for record in records],
    }


def table(records: Sequence[Record]) -> str:
    """The means as a Markdown table, one line per codec setting, with a footnote if any but not all are lossless."""
    columns, nets, kind = measures_of(records), nets_of(records), kind_of(records)
    titles = [f"{_title(measure, nets)} {measure.unit}".rstrip() for measure in columns]
    lines, notes = [], []
    for row in mean_rows(records):
        good = row[kind]
        count = f"{good}" if not row["failed"] else f"{good} of {good + row['failed']}"
        partly = 0 < row["lossless"] < good
        if partly:
            notes.append(f"{row['setting']} ({row['lossless']})")
        marks = ("†" if partly and measure.infinite else "" for measure in columns)
        cells = [cell(row[measure.key], measure.places) + mark for measure, mark in zip(columns, marks, strict=True)]
        lines.append([row["setting"], count, *cells])
    text = markdown_table(["setting", kind, *titles], lines)
    if jobs := jobs_of(records):
        text += f"\nTimes of {jobs} workers at once, with one thread each; those of other runs do not compare.\n"
    if notes:
        over = " and ".join(measure.title for measure in columns if measure.infinite)
        text += f"\n† {over} of the {kind} with an error; restored without one: {', '.join(notes)}\n"
    return text


def jobs_of(records: Sequence[Record]) -> int | None:
    """The most workers that measured at once; None: one process measured all."""
    return max((record.jobs or 0 for record in records), default=0) or None


def bd_table(records: Sequence[Record], anchor: Anchor = JPEG) -> str:
    """A title and the BD-rates as a Markdown table, – where there is none; empty without two codecs to compare."""
    rates = bd_rates(records, anchor)
    if not rates:
        return ""
    nets = nets_of(records)
    titles = [_title(measure, nets) for measure in measures_of(records) if measure.curve]
    where = ", at the qualities it has from {:g} to {:g} bpp".format(*anchor.bpp_range) if anchor.bpp_range else ""
    rows = [
        [codec, *("–" if isinstance(value, str) else f"{value:+.1f} %" for value in values.values())]
        for codec, values in rates.items()
    ]
    title = f"BD-rate against {anchor.codec}{where} (negative: fewer bits for the same quality):\n\n"
    return title + markdown_table(["codec", *titles], rows)


def markdown(records: Sequence[Record], command: str = "", anchor: Anchor = JPEG) -> str:
    """The contents of results.md."""
    kind, count = kind_of(records), len({record.image for record in records})
    parts = ["# Rate and distortion\n", f"{count} {kind}. Means per codec setting:\n", table(records)]
    parts.append("![Quality against bits per pixel](rate_distortion.png)\n")
    if rates := bd_table(records, anchor):
        parts.append(rates)
    failed = failures(records)
    if failed:
        parts.append("Not measured:\n")
        parts.append("".join(f"- {line}\n" for line in failed))
    parts.append("## Protocol\n")
    parts.append("".join(f"- {name}: {meaning}\n" for name, meaning in definitions(kind).items()))
    parts.append("- versions: " + ", ".join(f"{name} {version}" for name, version in versions().items()) + "\n")
    if command:
        parts.append(f"Command:\n\n    {command}\n")
    return "\n".join(parts)


def rate_distortion_png(records: Sequence[Record]) -> bytes:
    """PNG with a plot against bpp for each measure that has a curve: a line for several settings, a marker for one.

    Lossless settings are left to the table: their PSNR has no place on the axis, and their many bits would squeeze the
    others into a corner.
    """
    from difflate.evaluate.plot import quality_plots

    columns, nets = [measure for measure in measures_of(records) if measure.curve], nets_of(records)
    labels = {measure.key: _title(measure, nets) for measure in columns}
    for measure in columns:
        labels[measure.key] += f" ({measure.unit})" * bool(measure.unit)
        labels[measure.key] += " (lower is better)" * measure.lower_is_better
    drawn = {
        codec: {key: [(point.bpp, point.value) for point in points] for key, points in curve.items()}
        for codec, curve in curves(records).items()
    }
    return quality_plots(drawn, labels)


def _title(measure: Measure, nets: dict[str, str]) -> str:
    return f"{measure.title} {nets.get(measure.key, '')}".rstrip()
