"""`difflate verify FILE`."""

import argparse
from typing import TYPE_CHECKING, Any

from difflate.cli.batch import STANDARD, add_download_option, input_path, named, read_input

if TYPE_CHECKING:
    from difflate.codecs.base import Codec


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "verify",
        help="check that .dfl files are intact",
        description="Check structure, checksum, limits and model of .dfl files, and decode their\nsymbols and "
        "alpha. Nothing is written.",
        epilog="examples:\n  difflate verify photo.dfl\n  difflate verify --quick archive/*.dfl",
    )
    parser.add_argument("files", nargs="+", type=input_path, metavar="FILE", help=".dfl files, or - for stdin")
    parser.add_argument("--quick", action="store_true", help="structure and checksum only; needs no model")
    parser.add_argument("--codec", metavar="FOLDER", help="a model that is not bundled")
    add_download_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Checks each file; returns the worst exit code."""
    from difflate.cli.main import report
    from difflate.format.container import read_dfl

    codec = _load(args.codec, args.allow_download) if args.codec and not args.quick else None
    worst = 0
    for path in args.files:
        try:
            with named(path):
                data = read_input(path)
                file = read_dfl(data)
                if not args.quick:
                    _decode_symbols(data, codec)
        except Exception as error:
            worst = max(worst, report(error, args.verbose))
            continue
        name = "stdin" if path == STANDARD else path
        print(f"{name}: {'intact' if args.quick else 'verified'}, {file.width}x{file.height} px, {len(data)} bytes")
    return worst


def _load(folder: str, allow_download: bool) -> "Codec":
    from difflate.errors import ConfigError
    from difflate.store.hub import load

    codec = load(folder, allow_download=allow_download)
    if codec.suffix != ".dfl":
        raise ConfigError(f"--codec (={folder}) must be a model's folder; {codec.suffix} files cannot be verified")
    return codec


def _decode_symbols(data: bytes, codec: "Codec | None") -> None:
    """Decodes all that is exact in a file. Raises FormatError, ModelError."""
    from difflate.format import container
    from difflate.format.alpha import decode_alpha
    from difflate.store.hub import codec_for

    file = container.read_dfl(data)
    found: Any = codec or codec_for(data)
    found.read_latent(file)
    alpha = file.section(container.SECTION_ALPHA)
    if alpha is not None:
        decode_alpha(alpha, file.height, file.width)
