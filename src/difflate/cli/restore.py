"""`difflate restore INPUT…`."""

import argparse
from typing import Any

from difflate.cli.arguments import add_download_option, add_options, input_path, output_path, spelled_as_flags
from difflate.cli.batch import STANDARD, Job
from difflate.options import RestoredDecoding

_EPILOG = """examples:
  difflate restore photo.jpg -o photo.png            what JPEG has lost, at once
  difflate restore photo.jpg -o photo.png --steps 8 --seed 3
  difflate restore album/ -o restored/               all .jpg, .webp and .avif files below album/
  difflate restore photo.webp -o photo.png --model runs/restorer"""
_FLAGS = {"restorer": "--model", "steps": "--steps", "seed": "--seed", "tile_px": "--tile"}
_SUFFIXES = (".jpg", ".jpeg", ".webp", ".avif")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "restore",
        help="take back what JPEG, WebP or AVIF files have lost",
        description="Restore JPEG, WebP and AVIF files that any program wrote, by a small network that is told the "
        "quantization\ntables of JPEG. What it adds is a guess, the same each time; with --steps one of those that "
        "could be, by\ndiffusion. Files of good quality hardly change. Outputs are PNG files unless -o or --format "
        "says otherwise.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "inputs", nargs="+", type=input_path, metavar="INPUT", help="JPEG, WebP or AVIF files, folders, or - for stdin"
    )
    parser.add_argument(
        "-o", "--output", type=output_path, metavar="OUT", help="file (one input), folder, or - for stdout"
    )
    add_options(parser, RestoredDecoding, _FLAGS)
    add_download_option(parser)
    parser.add_argument("--format", metavar="SUFFIX", help="png, jpg, webp, avif, tif, bmp … (default: png)")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite outputs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Restores each input; returns the worst exit code."""
    from difflate.cli.batch import Result, find_compressed, plan, read_input, run_jobs
    from difflate.cli.decompress import image_file, image_kind
    from difflate.errors import ConfigError
    from difflate.models.restorer import load_restorer

    suffix = "." + (args.format or "png").lower().lstrip(".")
    if image_kind(suffix) is None:
        raise ConfigError(f"--format (={args.format}) is no image format; choose png, jpg, webp, avif, tif or bmp")
    options: dict[str, Any] = {name: getattr(args, name) for name in _FLAGS}
    with spelled_as_flags():
        RestoredDecoding.of({**options, "restore": True}, "restore")
    options["restorer"] = load_restorer(args.restorer, allow_download=args.allow_download)  # once for all inputs

    def work(job: Job) -> Result:
        kind = image_kind(suffix if args.format or job.target == STANDARD else job.target.suffix.lower())
        if kind is None:
            raise ConfigError(
                f"output (={job.target}) has a suffix of no image format; end it in .png, or use --format"
            )
        data = read_input(job.source)
        with spelled_as_flags():
            picture = _lossy_codec(data).decode(data, **options)
        return Result(image_file(picture, kind), f"{picture.width}x{picture.height} px", picture.notes)

    return run_jobs(
        plan(args.inputs, args.output, suffix, lambda folder: find_compressed(folder, _SUFFIXES)), args, work
    )


def _lossy_codec(data: bytes) -> Any:
    """The codec that reads the file ``data``, if it has lost anything. Raises ImageError, ConfigError."""
    from difflate.codecs.classical import classical_codecs, sniff
    from difflate.errors import ConfigError, ImageError
    from difflate.format import webp
    from difflate.media import jpeg
    from difflate.media.files import PREFIX_BYTES, sniff_format

    kind = sniff_format(data[:PREFIX_BYTES])
    codec = classical_codecs().get(sniff(data) or "")
    lossless = {"WebP": webp.is_lossless, "JPEG": jpeg.is_lossless}.get(kind or "")
    if kind in ("PNG", "BMP", "GIF", "PPM") or (lossless is not None and lossless(data)):
        raise ConfigError(f"a {kind} file without loss: nothing was lost that could be restored")
    if codec is not None and codec.decoding is RestoredDecoding:
        return codec
    if kind == ".dfl":
        raise ConfigError("it is a .dfl file, which its own codec restores; use: difflate decompress")
    if kind is None:
        raise ImageError("neither a JPEG nor a WebP nor an AVIF file; nothing to restore")
    raise ConfigError(f"it is a {kind} file; only JPEG, WebP and AVIF are restored")
