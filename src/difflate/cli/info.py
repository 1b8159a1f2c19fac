"""`difflate info FILE…`."""

import argparse
import json
from typing import Any

from difflate.cli.arguments import input_path, name_of
from difflate.cli.batch import expand, find_dfl, naming_source, read_input
from difflate.cli.report import report

_RATIOS = {"file": "as a file", "numbers_16_bits": "of the latent at 16 bits a number", "fixed_rate": "at fixed rate"}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "info",
        help="say what .dfl files hold",
        description="Say what .dfl files hold: size, rate, frames, model, how they were made, sections. Decodes "
        "nothing.",
        epilog="examples:\n  difflate info photo.dfl\n  difflate info photo.dfl --json\n  difflate info small/\n"
        "  difflate info photo.dfl --codec runs/diffae-small",
    )
    parser.add_argument(
        "files", nargs="+", type=input_path, metavar="FILE", help=".dfl files, folders of them, or - for stdin"
    )
    parser.add_argument(
        "--codec", type=name_of, metavar="FOLDER", help="folder of the files' model, if it is not bundled"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object; of several files in a list, files")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints header, sections and rate of each file; returns the worst exit code."""
    from difflate.codecs.loading import config_for_files

    config = None if args.codec is None else config_for_files(args.codec)
    single = len(args.files) == 1 and not args.files[0].is_dir()
    rows, worst = [], 0
    for path in expand(args.files, find_dfl):
        try:
            with naming_source(path):
                row = {"file": str(path), **describe(read_input(path), config)}
        except Exception as error:
            worst = max(worst, report(error, args.verbose))
            continue
        rows.append(row)
        if not args.json:
            print("\n" * (len(rows) > 1) + _text(row))
    if args.json and (rows or not single):
        print(json.dumps(rows[0] if single else {"files": rows}))
    return worst


def _text(row: dict[str, Any]) -> str:
    sections = ", ".join(f"{s['type']} {s['bytes']} bytes" for s in row["sections"])
    settings = ", ".join(f"{name} {_printable(value)}" for name, value in row["settings"].items())
    lines = {
        "file": row["file"],
        "format": f"dfl {row['version']}, {row['bytes']} bytes, of which {row['overhead_bytes']} overhead",
        "image": f"{row['width']}x{row['height']} px, {row['colour']}{', alpha' if row['alpha'] else ''}",
        "clip": _clip_text(row) if "frames" in row else "",
        "rate": f"{row['bpp']:.4f} bits per pixel" + (f", {row['kbit_per_s']:.1f} kbit/s" if "frames" in row else ""),
        "ratio": ", ".join(f"1:{ratio:.4g} {_RATIOS[name]}" for name, ratio in row["ratios"].items()),
        "model": f"{row['model'] or row['former_model'] or 'not bundled'} ({row['model_id']})",
        "settings": settings or "none",
        "sections": sections,
    }
    return "\n".join(f"{name:<9} {value}" for name, value in lines.items() if value)


def _clip_text(row: dict[str, Any]) -> str:
    times = "" if row["regular_times"] else ", variable times"
    groups = f", groups of {row['group_frames']}" if row["group_frames"] > 1 else ""
    return (
        f"{row['frames']} frames, {row['frames_per_second']:.6g} a second ({row['rate']}), {row['seconds']:.2f} s"
        f"{times}{groups}{', audio' if row['audio'] else ''}"
    )


def _printable(value: Any) -> Any:
    """``value``, of a text from a file without what could act on a terminal."""
    return ascii(value) if isinstance(value, str) and not value.isprintable() else value


def describe(data: bytes, config: dict[str, Any] | None = None) -> dict[str, Any]:
    """What `info` prints, for the bytes of a .dfl file. Raises as `difflate.format.container.read_dfl` does.

    ``config``: config.json of its model, if that is not bundled; raises ModelError if it is of another model.
    """
    from difflate import registry
    from difflate.cli.clips import clip_rates
    from difflate.codecs.loading import check_written_with, model_of
    from difflate.format import sections
    from difflate.format.container import read_dfl
    from difflate.format.stream import clip_of_file, is_clip_file
    from difflate.format.webp import is_lossless, webp_frames
    from difflate.store.former import former_model
    from difflate.store.hub import bundled_models

    file = read_dfl(data)
    former = former_model(file.codec, file.model_id)
    kind, model = registry.kind_of_number(file.codec), model_of(file)
    if config is not None:
        check_written_with(config, file)
    elif model is not None:
        config = bundled_models()[model]
    clip = clip_of_file(file) if is_clip_file(file) else None
    frames, kept = (1, dict(file.sections)) if clip is None else (clip.frames, clip.kept())
    ratios = {} if kind is None or config is None else kind.ratios(config)
    if ratios:
        ratios = {"file": 24 * file.width * file.height * frames / (8 * len(data)), **ratios}
    webp = file.section(sections.WEBP)
    settings = {} if webp is None else {"coded_as": f"WebP, {'lossless' if is_lossless(webp) else 'lossy'}"}
    told: dict[str, Any] = {}
    if clip is not None:
        if webp_count := webp_frames(clip):
            settings = {"coded_as_webp": f"{webp_count} frames"}
        told = {
            "frames": frames,
            "frames_per_second": float(clip.stream.rate),
            "rate": str(clip.stream.rate),
            "time_base": str(clip.stream.time_base),
            "regular_times": isinstance(clip.stream.times, range),
            "seconds": float(clip.seconds),
            "group_frames": clip.stream.group_frames,
            "audio": clip.audio is not None,
            "kbit_per_s": clip_rates(file.width, file.height, frames, clip.seconds, len(data))[1],
        }
    return {
        "version": f"{data[4] >> 4}.{data[4] & 15}",
        "bytes": len(data),
        "overhead_bytes": len(data) - sum(len(content) for _, content in file.sections),
        "width": file.width,
        "height": file.height,
        **told,
        "colour": "grey" if file.grey else "rgb",
        "alpha": file.section(sections.ALPHA) is not None,
        "bpp": 8 * len(data) / (file.width * file.height * frames),
        "codec": None if kind is None else kind.name,
        "model_id": file.model_id.hex(),
        "ratios": ratios,
        "model": model,
        "former_model": None if former is None else str(former),
        "settings": settings | ({} if kind is None else kind.settings(kept)),
        "sections": [{"type": sections.NAMES[number], "bytes": len(content)} for number, content in file.sections],
    }
