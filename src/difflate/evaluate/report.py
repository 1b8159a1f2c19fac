"""The report of a rate-distortion run: results.json, results.md and rate_distortion.png in one folder."""

import importlib.metadata
import json
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difflate import files
from difflate.errors import ConfigError, DifflateError
from difflate.evaluate.run import Record
from difflate.extras import require
from difflate.metrics import bd_rate
from difflate.metrics.bjontegaard import MIN_POINTS

FILES = ("results.json", "results.md", "rate_distortion.png")
MEASURES = ("bpp", "psnr", "ssim", "ms_ssim", "ssimulacra2", "lpips", "encode_s", "decode_s")
BD_MEASURES = {"psnr": "PSNR", "ms_ssim_db": "MS-SSIM", "ssimulacra2": "SSIMULACRA2", "lpips": "LPIPS"}
DEFINITIONS = {
    "bytes": "size of the complete file, which was decoded again; pixels only: no alpha, EXIF, ICC or XMP is stored",
    "bpp": "8 * bytes / (width * height)",
    "psnr": "dB, peak 255, mean squared error over the R, G and B samples; null without an error: identical",
    "ssim": "Gaussian window 11x11, sigma 1.5, mean over R, G and B; null: a side below 11 px",
    "ms_ssim": "as ssim, on five scales; null: a side below 176 px",
    "ssimulacra2": "100: identical, about 90: visually lossless, 70: high, 50: medium; null: a side below 8 px",
    "lpips": "version 0.1 with the backbone lpips_net in the image's own size, 0: identical, lower is better; "
    "null: not asked for, or a side below 31 px (alex) or 16 px (vgg)",
    "encode_s, decode_s": "wall seconds for one image; each codec ran once before the timing",
    "means": "of the values of the images that could be measured, each image counting once",
    "bd_rate_percent": "mean difference of bpp against bd_anchor at equal mean quality, piecewise cubic through the "
    "means of a codec's four or more settings; ms_ssim_db = -10 * log10(1 - ms_ssim); with bpp_range: over the "
    "qualities that the anchor has between these rates",
}
_PACKAGES = ("difflate", "torch", "numpy", "pillow", "scipy", "ssimulacra2", "imagecodecs", "torchvision")


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


_JPEG = Anchor()


def mean_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One dictionary per codec setting, in the order of ``records``.

    It has ``setting``, ``codec``, ``quality``, ``images`` (how many were measured), ``failed``, ``lpips_net``, the mean
    of every measure (inf for the PSNR if an image is identical, None where no image has the value), and ``counts``: of
    how many images each is the mean.
    Raises ConfigError for records with LPIPS of more than one backbone.
    """
    nets = sorted({record.lpips_net for record in records if record.lpips_net})
    if len(nets) > 1:
        raise ConfigError(f"the records have LPIPS of {' and '.join(nets)}, which do not compare; report them apart")
    rows = []
    for setting in dict.fromkeys(record.setting for record in records):
        of_setting = [record for record in records if record.setting == setting]
        good = [record for record in of_setting if record.error is None]
        row: dict[str, Any] = {"setting": setting, "codec": of_setting[0].codec, "quality": of_setting[0].quality}
        row |= {"images": len(good), "failed": len(of_setting) - len(good), "lpips_net": nets[0] if nets else None}
        row["counts"] = {}
        for measure in MEASURES:
            values = [value for record in good if (value := getattr(record, measure)) is not None]
            row[measure] = math.fsum(values) / len(values) if values else None
            row["counts"][measure] = len(values)
        rows.append(row)
    return rows


def bd_rates(rows: Sequence[dict[str, Any]], anchor: Anchor = _JPEG) -> dict[str, dict[str, float | str]]:
    """BD-rate in percent against ``anchor``, for each other codec of four or more settings and each of `BD_MEASURES`.

    LPIPS is left out if it was not measured. A sentence stands in place of the number where the two curves do not
    allow one.
    """
    curves = _curves(rows)
    reference = curves.pop(anchor.codec, [])
    result: dict[str, dict[str, float | str]] = {}
    for codec, points in curves.items():
        if len(points) < MIN_POINTS or len(reference) < MIN_POINTS:
            continue
        result[codec] = {}
        for measure in BD_MEASURES:
            if measure == "lpips" and _lpips_net(rows) is None:
                continue
            pairs = [[(row["bpp"], quality) for row in side if (quality := _quality(row, measure)) is not None]
                     for side in (reference, points)]  # fmt: skip
            try:
                counts = {row["counts"][key] for row in [*reference, *points] for key in ("bpp", _source(measure))}
                if len(counts) > 1:  # rates of some images and qualities of others
                    raise ConfigError(
                        f"not all images have {measure} in each setting of {anchor.codec} and {codec}; "
                        "evaluate those that have it"
                    )
                result[codec][measure] = bd_rate(
                    *_transposed(pairs[0]), *_transposed(pairs[1]), rate_range=anchor.bpp_range
                )
            except ConfigError as error:
                result[codec][measure] = str(error)
    return result


def check_output(folder: str | Path, force: bool) -> None:
    """Raises what `write_report` would raise, so that it can be known before hours of work.

    OutputExists if a report stands in ``folder`` and ``force`` is not set; ConfigError if ``folder`` is a file or
    matplotlib is not installed.
    """
    require("matplotlib.figure", "eval")
    if Path(folder).exists() and not Path(folder).is_dir():
        raise ConfigError(f"{folder} is a file; the report needs a folder")
    for name in FILES:
        files.check_output(Path(folder) / name, force)


def write_report(
    records: Sequence[Record], folder: str | Path, *, command: str = "", force: bool = False, anchor: Anchor = _JPEG
) -> list[Path]:
    """Writes the three files into ``folder``, which is made if needed, and returns their paths.

    ``command`` is kept as the way to repeat the run. Raises as `check_output` and `mean_rows` do.
    """
    folder = Path(folder)
    check_output(folder, force)
    picture = rate_distortion_png(mean_rows(records))
    make_folder(folder)
    text = json.dumps(as_json(records, command, anchor), indent=1, allow_nan=False) + "\n"
    contents = (text.encode(), markdown(records, command, anchor).encode("utf-8", "backslashreplace"), picture)
    paths = [folder / name for name in FILES]
    for path, data in zip(paths, contents, strict=True):
        files.atomic_write(path, data, force)
    return paths


def make_folder(folder: Path) -> None:
    """Makes ``folder`` with its parents if it is not there. Raises DifflateError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DifflateError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error


def as_json(records: Sequence[Record], command: str = "", anchor: Anchor = _JPEG) -> dict[str, Any]:
    """The contents of results.json: protocol, means, BD-rates and all records, without infinities."""
    rows = mean_rows(records)
    means = [{key: None if value == math.inf else value for key, value in row.items()} for row in rows]
    protocol = {
        "command": command,
        "lpips_net": _lpips_net(rows),
        "bd_anchor": anchor.codec,
        "bpp_range": anchor.bpp_range and list(anchor.bpp_range),
        "versions": _versions(),
        "definitions": DEFINITIONS,
    }
    return {
        "protocol": protocol,
        "means": means,
        "bd_rate_percent": bd_rates(rows, anchor),
        "records": [record.to_json() for record in records],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The means as a Markdown table, one line per codec setting; a column for LPIPS if it was measured."""
    net = _lpips_net(rows)
    columns = {"bpp": ("bpp", 3), "psnr": ("PSNR dB", 2), "ssim": ("SSIM", 4), "ms_ssim": ("MS-SSIM", 4)}
    columns |= {"ssimulacra2": ("SSIMULACRA2", 2)} | ({"lpips": (f"LPIPS {net}", 4)} if net else {})
    columns |= {"encode_s": ("encode s", 3), "decode_s": ("decode s", 3)}
    lines = ["| setting | images | " + " | ".join(title for title, _ in columns.values()) + " |"]
    lines.append("|:--|" + "--:|" * (1 + len(columns)))
    for row in rows:
        images = f"{row['images']}" if not row["failed"] else f"{row['images']} of {row['images'] + row['failed']}"
        cells = [row["setting"], images, *(_cell(row[measure], places) for measure, (_, places) in columns.items())]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def bd_table(rows: Sequence[dict[str, Any]], anchor: Anchor = _JPEG) -> str:
    """A title and the BD-rates as a Markdown table, – where there is none; empty without two codecs to compare."""
    rates = bd_rates(rows, anchor)
    if not rates:
        return ""
    net = _lpips_net(rows)
    titles = [title for measure, title in BD_MEASURES.items() if measure != "lpips"] + ([f"LPIPS {net}"] if net else [])
    where = ", at the qualities it has from {:g} to {:g} bpp".format(*anchor.bpp_range) if anchor.bpp_range else ""
    lines = [f"BD-rate against {anchor.codec}{where} (negative: fewer bits for the same quality):\n"]
    lines += ["| codec | " + " | ".join(titles) + " |", "|:--|" + "--:|" * len(titles)]
    for codec, values in rates.items():
        cells = ("–" if isinstance(value, str) else f"{value:+.1f} %" for value in values.values())
        lines.append(f"| {codec} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def markdown(records: Sequence[Record], command: str = "", anchor: Anchor = _JPEG) -> str:
    """The contents of results.md."""
    rows = mean_rows(records)
    images = len({record.image for record in records})
    parts = ["# Rate and distortion\n", f"{images} images. Means per codec setting:\n", table(rows)]
    parts.append("![Quality against bits per pixel](rate_distortion.png)\n")
    if rates := bd_table(rows, anchor):
        parts.append(rates)
    failed = [record for record in records if record.error]
    if failed:
        parts.append("Not measured:\n")
        parts.append("".join(f"- {record.image}, {record.setting}: {record.error}\n" for record in failed))
    parts.append("## Protocol\n")
    parts.append("".join(f"- {name}: {meaning}\n" for name, meaning in DEFINITIONS.items()))
    parts.append("- versions: " + ", ".join(f"{name} {version}" for name, version in _versions().items()) + "\n")
    if command:
        parts.append(f"Command:\n\n    {command}\n")
    return "\n".join(parts)


def rate_distortion_png(rows: Sequence[dict[str, Any]]) -> bytes:
    """PNG of three plots against bpp, four with LPIPS: a line for a codec of several settings, a marker for one.

    Lossless settings are left to the table: their PSNR has no place on the axis, and their many bits would squeeze the
    others into a corner.
    """
    from difflate.evaluate.plot import quality_plots

    measures = {"psnr": "PSNR (dB)", "ms_ssim": "MS-SSIM", "ssimulacra2": "SSIMULACRA2"}
    if net := _lpips_net(rows):
        measures["lpips"] = f"LPIPS {net} (lower is better)"
    curves = {
        codec: {
            measure: [
                (row["bpp"], row[measure])
                for row in sorted(of_codec, key=lambda row: row["bpp"])
                if row[measure] is not None
            ]
            for measure in measures
        }
        for codec, of_codec in _curves([row for row in rows if row["psnr"] != math.inf]).items()
    }
    return quality_plots(curves, measures)


def _curves(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows that were measured, by codec."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["bpp"] is not None:
            curves.setdefault(row["codec"], []).append(row)
    return curves


def _lpips_net(rows: Sequence[dict[str, Any]]) -> str | None:
    """The backbone of the rows' LPIPS, None if it was not measured."""
    return next((row["lpips_net"] for row in rows), None)


def _source(measure: str) -> str:
    """The mean that a measure of `BD_MEASURES` is made of."""
    return measure.removesuffix("_db")


def _quality(row: dict[str, Any], measure: str) -> float | None:
    """What rises with the rate."""
    if measure == "lpips":
        return None if row["lpips"] is None else -row["lpips"]
    if measure != "ms_ssim_db":
        return row[measure]
    value = row["ms_ssim"]
    return None if value is None else math.inf if value >= 1 else -10 * math.log10(1 - value)


def _transposed(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _cell(value: float | None, places: int) -> str:
    return "–" if value is None else "∞" if value == math.inf else f"{value:.{places}f}"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
