"""Tables 6 and 7 of Rampas, "On Neural Compression using Diffusion Autoencoders" (2024): clips.

Table 7 is AVC at five constant rate factors. Table 6 is of the thesis' video models, beside which codecs of ours are
put that a user names. The printed Fréchet video distances are of other clips.
"""

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difflate.errors import ConfigError
from difflate.evaluate.markdown import cell, markdown_table
from difflate.evaluate.measurer import Measurement, OfClips
from difflate.evaluate.options import load_with_options
from difflate.evaluate.records import Record
from difflate.evaluate.run import find_images, kind_of_files
from difflate.evaluate.settings import CodecSetting, load_codec, parse_codecs
from difflate.limits import DEFAULT_LIMITS
from difflate.media.video import open_clip
from difflate.metrics.clip_sets import ClipNetworks, Collecting, Looking, clip_distances, show
from difflate.metrics.clips import Flicker, FrameMean
from difflate.metrics.distortion import psnr


@dataclass(frozen=True)
class Line:
    """A line of a table as it is printed."""

    title: str
    ratio: float | None
    fvd: float
    psnr: float


TABLE7: Mapping[str, Line] = {
    "avc:18": Line("AVC, CRF 18", 132, 42.5, 36.2),
    "avc:25": Line("AVC, CRF 25", 219, 73.3, 34.8),
    "avc:30": Line("AVC, CRF 30", 393, 191.2, 32.8),
    "avc:35": Line("AVC, CRF 35", 672, 465.7, 30.6),
    "avc:40": Line("AVC, CRF 40", 1159, 1039.7, 28.5),
}
"""By the setting that is measured."""
TABLE6: Mapping[str, Line] = {
    "2": Line("temporal compression 2", None, 245.8, 22.8),
    "4": Line("temporal compression 4", None, 330.8, 21.8),
    "8": Line("temporal compression 8", None, 397.2, 22.0),
    "finetuned": Line("finetuned", None, 195.2, 21.9),
    "data": Line("finetuned, better data", None, 170.0, 23.6),
    "attention": Line("finetuned, better data, attention", None, 159.3, 23.2),
}
"""By the name that a user gives a model for that line."""
EVERY = 4
"""VGG16 looks at each n-th frame."""
DISTANCES = ("frechet-vgg16-frames", "frechet-vgg16-motion", "fvd")
PROTOCOL = {
    "psnr": "dB, mean over the frames of a clip, then over the clips, as in difflate eval",
    "flicker": "temporal PSNR in dB, mean over the clips, as in difflate eval",
    "ratio": "bytes of all frames as 8-bit RGB for each byte of the file, mean over the clips",
    "bpp": "bits of the files for each pixel of all frames, mean over the clips",
    "frechet-vgg16-frames, frechet-vgg16-motion": "of all restored clips from all originals: VGG16's features of "
    "frames of a short side of 128 px, and of the differences from the frame before",
    "fvd": "Fréchet video distance: I3D's logits of windows of 16 frames at 224x224 px; null without its weights",
    "fvd_printed": "of other clips: compares with fvd in its order at most, and with no other distance",
}


def table7(clips: Sequence[str | Path], i3d: str | Path | None = None, every: int = EVERY) -> dict[str, Any]:
    """``{"rows": [...], "protocol": {...}}`` with a row for each line of `TABLE7`.

    ``clips``: files, or folders of them. ``i3d``: see `difflate.metrics.i3d.load_i3d`. ``every``: VGG16 looks at each
    n-th frame. Raises ConfigError.
    """
    settings = parse_codecs(",".join(TABLE7))
    return _table(list(zip(TABLE7.values(), settings, strict=True)), clips, i3d, every)


def table6(
    clips: Sequence[str | Path], models: Sequence[str], i3d: str | Path | None = None, every: int = EVERY
) -> dict[str, Any]:
    """The same with a row for each line of `TABLE6`, and for each of ``models`` that belongs to none of them.

    ``models``: codecs as in `difflate.evaluate.settings.parse_codecs`, those for a line as ``2=FOLDER``. Raises
    ConfigError.
    """
    given: dict[str, CodecSetting] = {}
    others: list[tuple[Line | None, CodecSetting | None]] = []
    for model in models:
        name, equals, codec = model.partition("=")
        if equals and name in TABLE6:
            given[name], *more = parse_codecs(codec)
            others += [(None, setting) for setting in more]
        else:
            others += [(None, setting) for setting in parse_codecs(model)]
    return _table([(line, given.get(name)) for name, line in TABLE6.items()] + others, clips, i3d, every)


def _table(
    lines: Sequence[tuple[Line | None, CodecSetting | None]],
    clips: Sequence[str | Path],
    i3d: str | Path | None,
    every: int,
) -> dict[str, Any]:
    paths = find_images(clips)
    if kind_of_files(paths) != "clips":
        raise ConfigError(f"{paths[0]} is no clip; give clips, or folders of them")
    networks = ClipNetworks(i3d, every)
    originals = networks.lookers()
    for path in paths:
        for frame in open_clip(path).frames:
            show(frame.pixels, originals)
        for looker in originals.values():
            looker.end()
    rows = []
    for line, setting in lines:
        row: dict[str, Any] = {"title": line.title if line else str(setting), "setting": setting and str(setting)}
        row |= {"ratio_printed": line and line.ratio, "fvd_printed": line and line.fvd}
        row["psnr_printed"] = line and line.psnr
        own = _measured(setting, paths, networks, originals) if setting else {}
        rows.append({**row, **{key: own.get(key) for key in ("ratio", "bpp", "psnr", "flicker", *DISTANCES)}})
    frames = f"VGG16 looks at one of {every} frames" if every > 1 else "VGG16 looks at all frames"
    return {"rows": rows, "protocol": {"clips": [path.name for path in paths], "frames": frames, **PROTOCOL}}


def _measured(
    setting: CodecSetting, paths: Sequence[Path], networks: ClipNetworks, originals: dict[str, Looking]
) -> dict[str, float | None]:
    lookers = networks.lookers()
    compare: dict[str, Callable[[], Any]] = {
        "psnr": functools.partial(FrameMean, psnr),
        "flicker": Flicker,
        "features": functools.partial(Collecting, lookers),
    }
    codec = load_with_options(setting.codec, load_codec)
    measurer = OfClips({setting.codec: codec}, compare, {}, DEFAULT_LIMITS, None)
    tasks = [Measurement(number, path, setting, "clips") for number, path in enumerate(paths)]
    records = [measurer.measure(task) for task in tasks]
    for record in records:
        if record.error:
            raise ConfigError(f"{record.image}, {setting}: {record.error}")
    return {
        **{key: _mean(records, key) for key in compare if key != "features"},
        **{key: _mean(records, key) for key in ("ratio", "bpp")},
        **clip_distances(lookers, originals),
    }


def _mean(records: Sequence[Record], key: str) -> float | None:
    """None where no clip has a finite value."""
    values = [value for record in records if (value := record.values[key]) is not None and value != float("inf")]
    return statistics.fmean(values) if values else None


def format_video(result: dict[str, Any]) -> str:
    """``result`` of `table6` or `table7` as Markdown."""
    columns = (
        ("ratio printed", "ratio_printed", 0), ("ratio", "ratio", 0), ("bpp", "bpp", 3),
        ("PSNR printed", "psnr_printed", 1), ("PSNR", "psnr", 2), ("temporal PSNR", "flicker", 2),
        ("FVD printed", "fvd_printed", 1), ("FVD", "fvd", 1), ("Fréchet VGG16, frames", "frechet-vgg16-frames", 2),
        ("Fréchet VGG16, differences", "frechet-vgg16-motion", 2),
    )  # fmt: skip
    rows = result["rows"]
    shown = [column for column in columns if any(row[column[1]] is not None for row in rows)]
    lines = [[row["title"], *(cell(row[key], places) for _, key, places in shown)] for row in rows]
    return markdown_table(["codec", *(title for title, _, _ in shown)], lines)
