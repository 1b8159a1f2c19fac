"""`difflate codecs`."""

import argparse
import json

_QUALITY = {"low": 0.0, "high": 100.0, "default": 50.0}
_NETWORKS = {
    "hyperprior": (_QUALITY, "transform coding with a scale hyperprior, any rate; fast"),
    "cdc": (_QUALITY, "the same, restored by a few steps of diffusion"),
}


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
    from difflate import DEFAULT_CODEC
    from difflate.codecs.classical import classical_codecs
    from difflate.store.hub import bundled_codecs

    rows = []
    for name, config in bundled_codecs().items():
        quality, about = _NETWORKS.get(config.get("kind", ""), (None, ""))
        if not about:
            bits, pixels = sum(config["plane_bits"]), config["patch_px"] ** 2
            about = f"{config['method'].upper()}, {bits} bits a patch at fixed rate: 1:{24 * pixels / bits:.0f}"
        rows.append({"name": name, "kind": "learned", "suffix": ".dfl", "quality": quality, "about": about})
    for name, codec in classical_codecs().items():
        low, high, default = codec.quality_range or (None, None, None)
        quality = None if low is None else {"low": low, "high": high, "default": default}
        rows.append(
            {"name": name, "kind": "classical", "suffix": codec.suffix, "quality": quality, "about": codec.about}
        )
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
