"""`difflate info FILE`."""

import argparse
import json
from typing import Any

from difflate.cli.batch import input_path, named, read_input


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "info",
        help="say what a .dfl file holds",
        description="Say what a .dfl file holds: size, rate, model, sections. Decodes nothing.",
        epilog="examples:\n  difflate info photo.dfl\n  difflate info photo.dfl --json",
    )
    parser.add_argument("file", type=input_path, metavar="FILE", help="a .dfl file, or - for stdin")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the header, the sections and the rate."""
    with named(args.file):
        found = describe(read_input(args.file))
    if args.json:
        print(json.dumps({"file": str(args.file), **found}))
        return 0
    sections = ", ".join(f"{s['type']} {s['bytes']} bytes" for s in found["sections"])
    print(f"file      {args.file}")
    print(f"format    dfl {found['version']}, {found['bytes']} bytes, of which {found['overhead_bytes']} overhead")
    print(f"image     {found['width']}x{found['height']} px, {found['colour']}{', alpha' if found['alpha'] else ''}")
    print(f"rate      {found['bpp']:.4f} bits per pixel")
    print(f"model     {found['model'] or 'not bundled'} ({found['model_id']})")
    print(f"sections  {sections}")
    return 0


def describe(data: bytes) -> dict[str, Any]:
    """What `info` prints, for the bytes of a .dfl file. Raises as `difflate.format.container.read_dfl` does."""
    from difflate.format import container
    from difflate.store.hub import model_of

    names = {
        container.SECTION_CONTEXT: "indices (context)",
        container.SECTION_FIXED: "indices (fixed rate)",
        container.SECTION_ALPHA: "alpha",
        container.SECTION_EXIF: "exif",
        container.SECTION_ICC: "icc",
        container.SECTION_XMP: "xmp",
        container.SECTION_LATENT: "latent",
        container.SECTION_DIFFUSION: "diffusion",
    }
    file = container.read_dfl(data)
    model_id = file.model_id.hex()
    return {
        "version": f"{data[4] >> 4}.{data[4] & 15}",
        "bytes": len(data),
        "overhead_bytes": len(data) - sum(len(content) for _, content in file.sections),
        "width": file.width,
        "height": file.height,
        "colour": "grey" if file.grey else "rgb",
        "alpha": file.section(container.SECTION_ALPHA) is not None,
        "bpp": 8 * len(data) / (file.width * file.height),
        "model_id": model_id,
        "model": model_of(file),
        "sections": [{"type": names[kind], "bytes": len(content)} for kind, content in file.sections],
    }
