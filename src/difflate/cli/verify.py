"""`difflate verify FILE…`."""

import argparse
from typing import TYPE_CHECKING, Any

from difflate.cli.arguments import add_download_option, input_path, spelled_as_flags
from difflate.cli.batch import STANDARD, expand, find_dfl, naming_source, read_input
from difflate.cli.report import report

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
    parser.add_argument(
        "files", nargs="+", type=input_path, metavar="FILE", help=".dfl files, folders of them, or - for stdin"
    )
    parser.add_argument("--quick", action="store_true", help="structure and checksum only; needs no model")
    parser.add_argument("--codec", metavar="FOLDER", help="a model that is not bundled")
    add_download_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Checks each file; returns the worst exit code."""
    from difflate.cli.clips import clip_line
    from difflate.format.container import read_dfl
    from difflate.format.stream import clip_of_file, is_clip_file

    codec = None
    if args.codec and not args.quick:
        from difflate.codecs.loading import load_for_files

        with spelled_as_flags():
            codec = load_for_files(args.codec, args.allow_download)
    worst = 0
    for path in expand(args.files, find_dfl):
        try:
            with naming_source(path):
                data = read_input(path)
                file = read_dfl(data)
                line = f"{file.width}x{file.height} px, {len(data)} bytes"
                if is_clip_file(file):
                    clip = clip_of_file(file)
                    line = clip_line(file.width, file.height, clip.frames, clip.seconds, len(data))
                if not args.quick:
                    _decode_symbols(data, codec)
        except Exception as error:
            worst = max(worst, report(error, args.verbose))
            continue
        name = "stdin" if path == STANDARD else path
        print(f"{name}: {'intact' if args.quick else 'verified'}, {line}")
    return worst


def _decode_symbols(data: bytes, codec: "Codec | None") -> None:
    """Decodes all that is exact in a file. Raises FormatError, ModelError."""
    from difflate.cli.clips import watched
    from difflate.codecs.loading import codec_for
    from difflate.format import sections
    from difflate.format.alpha import decode_alpha
    from difflate.format.container import read_dfl
    from difflate.format.stream import clip_of_file, is_clip_file

    file = read_dfl(data)
    chosen: Any = codec or codec_for(data)
    if is_clip_file(file):
        clip = clip_of_file(file)
        for _ in watched(chosen.read_latents(clip), len(clip.groups), "group"):
            pass
        return
    chosen.read_latent(file)
    alpha = file.section(sections.ALPHA)
    if alpha is not None:
        decode_alpha(alpha, file.height, file.width)
