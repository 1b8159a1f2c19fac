"""`difflate compress INPUT…`."""

import argparse
import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from difflate import DEFAULT_CODEC
from difflate.cli.arguments import (
    add_codec_options,
    add_download_option,
    codec_options,
    input_path,
    output_path,
    spelled_as_flags,
)

_EPILOG = """examples:
  difflate compress photo.png                        photo.dfl, beside it
  difflate compress photo.png --codec avif -q 60     photo.avif
  difflate compress photo.png --bpp 0.3              at most 0.3 bits per pixel
  difflate compress photo.png --effort 7             fewer bits for the same image, after a minute
  difflate compress holiday/ -o small/               all images below holiday/
  difflate compress - -o - < photo.png > photo.dfl"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "compress",
        help="compress image files",
        description="Compress images: .dfl files with a learned codec, or the own format of a classical one. "
        "Without -o each\noutput stands beside its input. What of an input is left out, or coded in another way, is "
        "said\non standard error.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "inputs", nargs="+", type=input_path, metavar="INPUT", help="image files, folders, or - for stdin"
    )
    parser.add_argument(
        "-o", "--output", type=output_path, metavar="OUT", help="file (one input), folder, or - for stdout"
    )
    parser.add_argument(
        "--codec", default=DEFAULT_CODEC, metavar="NAME|FOLDER", help="see `difflate codecs` (default: %(default)s)"
    )
    parser.add_argument(
        "-q", "--quality", type=float, metavar="Q", help="of a codec that has one, see `difflate codecs`"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--bpp", type=float, metavar="BPP", help="the best quality within so many bits per pixel")
    size.add_argument("--max-bytes", type=int, metavar="N", help="the best quality within so many bytes a file")
    add_codec_options(parser, "encoding")
    add_download_option(parser)
    parser.add_argument("-f", "--force", action="store_true", help="overwrite outputs")
    parser.add_argument(
        "--metadata", action="store_true", help="keep EXIF, ICC profile and XMP (default: convert to sRGB)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compresses each input; returns the worst exit code."""
    from difflate.cli.batch import Job, Result, plan, run_jobs
    from difflate.codecs.base import quality_for
    from difflate.codecs.loading import load
    from difflate.codecs.rate_search import check_request, encode_picture
    from difflate.data.images import list_images
    from difflate.format.webp import fallback_notes
    from difflate.media.picture import open_image

    codec = load(args.codec, allow_download=args.allow_download)
    options = codec_options(args, "encoding")
    with spelled_as_flags():  # what is wrong with all files is said once
        check_request(args.quality, args.bpp, args.max_bytes)
        quality_for(codec, args.quality)
        codec.encoding.of(options, codec.name)
    jobs = plan(args.inputs, args.output, codec.suffix, lambda folder: list_images([folder]))
    if len(jobs) == 1:
        _check_suffix(jobs[0].target, codec.suffix, codec.name)

    def work(job: Job, data: bytes) -> Result:
        picture = open_image(data, metadata=args.metadata)
        with spelled_as_flags():
            coded = encode_picture(
                codec, picture, quality=args.quality, bpp=args.bpp, max_bytes=args.max_bytes, options=options
            )
        bpp = 8 * len(coded.data) / (picture.width * picture.height)
        size = f"{picture.width}x{picture.height}"
        reached = f", the most that {codec.name} gives" if coded.short else ""
        line = f"{size} px, {len(data)} -> {len(coded.data)} bytes, {bpp:.3f} bpp{reached}"
        return Result(coded.data, line, (*picture.notes, *fallback_notes(coded.data)))

    with _bar(codec, options):
        return run_jobs(jobs, args, work)


@contextlib.contextmanager
def _bar(codec: Any, options: Mapping[str, Any]) -> Iterator[None]:
    """Shows on a terminal how far an image is whose encoding takes an effort."""
    if options.get("effort") in (None, 1) or not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    with tqdm(unit="step", leave=False, file=sys.stderr) as bar:

        def show(done: int, total: int) -> None:
            if done == 1:
                bar.reset(total)
            bar.update()

        codec.progress = show
        try:
            yield
        finally:
            codec.progress = None


def _check_suffix(target: Path, suffix: str, codec: str) -> None:
    """Raises ConfigError for a name that promises another format than the codec writes."""
    from difflate.data.images import SUFFIXES
    from difflate.errors import ConfigError

    named = target.suffix.lower()
    if named in SUFFIXES | {".dfl", ".jxl"} and named.replace(".jpeg", ".jpg") != suffix:
        raise ConfigError(
            f"{target}: {codec} writes {suffix} files; end the name in {suffix}, or choose another --codec"
        )
