"""`difflate codecs`."""

import argparse
import json
from typing import Any


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "codecs",
        help="list the codecs",
        description="List the codecs that can be named with --codec, and their qualities.",
        epilog="examples:\n  difflate codecs\n  difflate codecs --json",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints a line per codec; imports no torch."""
    from difflate import DEFAULT_CODEC, registry
    from difflate.codecs.classical import classical_codecs
    from difflate.codecs.classical_video import classical_video_codecs
    from difflate.store.hub import bundled_models

    rows = []
    for name, config in bundled_models("codec").items():
        kind = registry.kind_of(config)
        assert kind is not None
        rows.append(_row(name, "learned", ".dfl", kind.quality, kind.about(config)))
    for name, codec in classical_codecs().items():
        rows.append(_row(name, "classical", codec.suffix, codec.quality_range, codec.about))
    for name, codec in classical_video_codecs().items():
        rows.append(_row(name, "classical video", codec.suffix, codec.quality_range, codec.about))
    if args.json:
        print(json.dumps({"default": DEFAULT_CODEC, "codecs": rows}))
        return 0
    for row in rows:
        q = row["quality"]
        quality = f"-q {q['low']:g} to {q['high']:g}, default {q['default']:g}" if q else "one quality"
        mark = "*" if row["name"] == DEFAULT_CODEC else " "
        print(f"{mark} {row['name']:<16} {row['suffix']:<6} {quality:<28} {row['about']}")
    print("* default of `difflate compress`; a folder of `difflate train` can be named too")
    return 0


def _row(name: str, kind: str, suffix: str, quality: tuple[float, float, float] | None, about: str) -> dict[str, Any]:
    numbers = None if quality is None else dict(zip(("low", "high", "default"), quality, strict=True))
    return {"name": name, "kind": kind, "suffix": suffix, "quality": numbers, "about": about}
