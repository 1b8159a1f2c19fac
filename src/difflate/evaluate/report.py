"""The report of a rate-distortion run: results.json, results.md and rate_distortion.png in one folder."""

import importlib.metadata
import json
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difflate import files
from difflate.errors import ConfigError, DifflateError
from difflate.evaluate.run import Record
from difflate.extras import require
from difflate.metrics import bd_rate

FILES = ("results.json", "results.md", "rate_distortion.png")
MEASURES = ("bpp", "psnr", "ssim", "ms_ssim", "ssimulacra2", "encode_s", "decode_s")
BD_ANCHOR = "jpeg"
BD_MEASURES = ("psnr", "ms_ssim_db", "ssimulacra2")
DEFINITIONS = {
    "bytes": "size of the complete file, which was decoded again; pixels only: no alpha, EXIF, ICC or XMP is stored",
    "bpp": "8 * bytes / (width * height)",
    "psnr": "dB, peak 255, mean squared error over the R, G and B samples; null without an error: identical",
    "ssim": "Gaussian window 11x11, sigma 1.5, mean over R, G and B; null: a side below 11 px",
    "ms_ssim": "as ssim, on five scales; null: a side below 176 px",
    "ssimulacra2": "100: identical, about 90: visually lossless, 70: high, 50: medium; null: a side below 8 px",
    "encode_s, decode_s": "wall seconds for one image; each codec ran once before the timing",
    "means": "of the values of the images that could be measured, each image counting once",
    "bd_rate_percent": "mean difference of bpp against jpeg at equal mean quality, piecewise cubic through the means "
    "of a codec's four or more settings; ms_ssim_db = -10 * log10(1 - ms_ssim)",
}
_PACKAGES = ("difflate", "torch", "numpy", "pillow", "scipy", "ssimulacra2", "imagecodecs")


def mean_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """One dictionary per codec setting, in the order of ``records``.

    It has ``setting``, ``codec``, ``quality``, ``images`` (how many were measured), ``failed``, and the mean of every
    measure: inf for the PSNR if an image is identical, None where no image has the value.
    """
    rows = []
    for setting in dict.fromkeys(record.setting for record in records):
        of_setting = [record for record in records if record.setting == setting]
        good = [record for record in of_setting if record.error is None]
        row: dict[str, Any] = {"setting": setting, "codec": of_setting[0].codec, "quality": of_setting[0].quality}
        row |= {"images": len(good), "failed": len(of_setting) - len(good)}
        for measure in MEASURES:
            values = [value for record in good if (value := getattr(record, measure)) is not None]
            row[measure] = math.fsum(values) / len(values) if values else None
        rows.append(row)
    return rows


def bd_rates(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | str]]:
    """BD-rate in percent against jpeg, for each other codec of four or more settings and each of `BD_MEASURES`.

    A sentence stands in place of the number where the two curves do not allow one.
    """
    curves = _curves(rows)
    anchor = curves.pop(BD_ANCHOR, [])
    result: dict[str, dict[str, float | str]] = {}
    for codec, points in curves.items():
        if len(points) < 4 or len(anchor) < 4:
            continue
        result[codec] = {}
        for measure in BD_MEASURES:
            pairs = [[(row["bpp"], quality) for row in side if (quality := _quality(row, measure)) is not None]
                     for side in (anchor, points)]  # fmt: skip
            try:
                result[codec][measure] = bd_rate(*_transposed(pairs[0]), *_transposed(pairs[1]))
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
    records: Sequence[Record], folder: str | Path, *, command: str = "", force: bool = False
) -> list[Path]:
    """Writes the three files into ``folder``, which is made if needed, and returns their paths.

    ``command`` is kept as the way to repeat the run. Raises as `check_output` does.
    """
    folder = Path(folder)
    check_output(folder, force)
    picture = rate_distortion_png(mean_rows(records))
    make_folder(folder)
    text = json.dumps(as_json(records, command), indent=1, allow_nan=False) + "\n"
    contents = (text.encode(), markdown(records, command).encode("utf-8", "backslashreplace"), picture)
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


def as_json(records: Sequence[Record], command: str = "") -> dict[str, Any]:
    """The contents of results.json: protocol, means, BD-rates and all records, without infinities."""
    rows = mean_rows(records)
    means = [{key: None if value == math.inf else value for key, value in row.items()} for row in rows]
    protocol = {"command": command, "versions": _versions(), "definitions": DEFINITIONS}
    return {
        "protocol": protocol,
        "means": means,
        "bd_rate_percent": bd_rates(rows),
        "records": [record.to_json() for record in records],
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The means as a Markdown table, one line per codec setting."""
    lines = [
        "| setting | images | bpp | PSNR dB | SSIM | MS-SSIM | SSIMULACRA2 | encode s | decode s |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        images = f"{row['images']}" if not row["failed"] else f"{row['images']} of {row['images'] + row['failed']}"
        digits = zip(MEASURES, (3, 2, 4, 4, 2, 3, 3), strict=True)
        cells = [row["setting"], images, *(_cell(row[measure], places) for measure, places in digits)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def markdown(records: Sequence[Record], command: str = "") -> str:
    """The contents of results.md."""
    rows = mean_rows(records)
    images = len({record.image for record in records})
    parts = ["# Rate and distortion\n", f"{images} images. Means per codec setting:\n", table(rows)]
    parts.append("![Quality against bits per pixel](rate_distortion.png)\n")
    rates = bd_rates(rows)
    if rates:
        lines = ["| codec | PSNR | MS-SSIM | SSIMULACRA2 |", "|:--|--:|--:|--:|"]
        for codec, values in rates.items():
            cells = ("–" if isinstance(value, str) else f"{value:+.1f} %" for value in values.values())
            lines.append(f"| {codec} | " + " | ".join(cells) + " |")
        parts += ["BD-rate against JPEG (negative: fewer bits for the same quality):\n", "\n".join(lines) + "\n"]
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
    """PNG of three plots against bpp: a line for a codec of several settings, a marker for a single one.

    Lossless settings are left to the table: their PSNR has no place on the axis, and their many bits would squeeze the
    others into a corner.
    """
    from difflate.evaluate.plot import quality_plots

    measures = {"psnr": "PSNR (dB)", "ms_ssim": "MS-SSIM", "ssimulacra2": "SSIMULACRA2"}
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


def _quality(row: dict[str, Any], measure: str) -> float | None:
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
