"""`difflate compress INPUT…`."""

import argparse
import math
from pathlib import Path

from difflate import DEFAULT_CODEC
from difflate.cli.batch import add_diffusion_options, add_download_option, input_path, output_path

_EPILOG = """examples:
  difflate compress photo.png                        photo.dfl, beside it
  difflate compress photo.png --codec avif -q 60     photo.avif
  difflate compress photo.png --bpp 0.3              at most 0.3 bits per pixel
  difflate compress holiday/ -o small/               all images below holiday/
  difflate compress - -o - < photo.png > photo.dfl"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "compress",
        help="compress image files",
        description="Compress images: .dfl files with a learned codec, or the own format of a classical one. "
        "Without -o each\noutput stands beside its input.",
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
    add_diffusion_options(parser, "as the model's configuration says")
    add_download_option(parser)
    parser.add_argument("-f", "--force", action="store_true", help="overwrite outputs")
    parser.add_argument("--metadata", action="store_true", help="keep EXIF, ICC profile and XMP")
    parser.add_argument(
        "--fixed-rate", action="store_true", help="vq codecs: exactly the codec's bits a patch, no context coding"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compresses each input; returns the worst exit code."""
    from difflate.cli.batch import Job, plan, run_jobs
    from difflate.codecs.base import check_quality, options_for
    from difflate.codecs.rate_search import encode_within
    from difflate.data.images import list_images
    from difflate.errors import ConfigError
    from difflate.media.picture import open_image
    from difflate.store.hub import load

    codec = load(args.codec, allow_download=args.allow_download)
    check_quality(codec, args.quality)
    if args.quality is not None and (args.bpp is not None or args.max_bytes is not None):
        raise ConfigError("--quality stands against --bpp and --max-bytes, which search for it; give one of them")
    for option, value in (("--bpp", args.bpp), ("--max-bytes", args.max_bytes)):
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{option} (={value:g}) must be a number above 0")
    given = {"steps": args.steps, "gamma": args.gamma, "seed": args.seed, "tile_px": args.tile}
    options = options_for(codec, codec.encode, {**given, "fixed_rate": args.fixed_rate or None})
    jobs = plan(args.inputs, args.output, codec.suffix, lambda folder: list_images([folder]))
    if len(jobs) == 1:
        _check_suffix(jobs[0].target, codec.suffix, codec.name)

    def work(job: Job, data: bytes) -> tuple[bytes, str]:
        picture = open_image(data, metadata=args.metadata)
        allowed = args.max_bytes if args.bpp is None else math.floor(args.bpp * picture.width * picture.height / 8)
        if allowed is None:
            coded = codec.encode(picture, quality=args.quality, **options)
        else:
            coded = encode_within(codec, allowed, lambda q: codec.encode(picture, quality=q, **options))
        bpp = 8 * len(coded) / (picture.width * picture.height)
        size = f"{picture.width}x{picture.height}"
        return coded, f"{size} px, {len(data)} -> {len(coded)} bytes, {bpp:.3f} bpp"

    return run_jobs(jobs, args, work)


def _check_suffix(target: Path, suffix: str, codec: str) -> None:
    """Raises ConfigError for a name that promises another format than the codec writes."""
    from difflate.data.images import SUFFIXES
    from difflate.errors import ConfigError

    named = target.suffix.lower()
    if named in SUFFIXES | {".dfl", ".jxl"} and named.replace(".jpeg", ".jpg") != suffix:
        raise ConfigError(
            f"{target}: {codec} writes {suffix} files; end the name in {suffix}, or choose another --codec"
        )
