"""`difflate decompress INPUT…`."""

import argparse
from typing import TYPE_CHECKING, Any

from difflate.cli.arguments import (
    add_codec_options,
    add_download_option,
    codec_options,
    input_path,
    name_of,
    output_path,
    spelled_as_flags,
)
from difflate.cli.batch import STANDARD, Job

if TYPE_CHECKING:
    from difflate.codecs.base import Codec
    from difflate.media.picture import Picture

_EPILOG = """examples:
  difflate decompress photo.dfl                      photo.png, beside it
  difflate decompress photo.dfl -o photo.jpg
  difflate decompress small/ -o restored/            all .dfl files below small/
  difflate decompress - -o - --format webp < photo.dfl > photo.webp
  difflate decompress photo.dfl --refine             of opq-32-8-8: improved by its refiner"""
_COMPRESSED = ((".dfl",), (".avif", ".jxl", ".webp"))
"""What is restored of a folder: the second group where there is none of the first."""
_SAVE: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "AVIF": {"quality": 95}}
"""What was restored should not lose again what can be seen."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "decompress",
        help="restore images from compressed files",
        description="Restore images. The codec and its model are found from the file itself. Without -o each output "
        "stands beside\nits input, as PNG; another format is chosen by the suffix of -o or by --format.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=input_path,
        metavar="INPUT",
        help=".dfl or classical image files, folders of .dfl files (of .avif, .jxl and .webp, if there are none), or - "
        "for stdin",
    )
    parser.add_argument(
        "-o", "--output", type=output_path, metavar="OUT", help="file (one input), folder, or - for stdout"
    )
    parser.add_argument("--codec", type=name_of, metavar="FOLDER", help="for .dfl files: a model that is not bundled")
    add_download_option(parser)
    add_codec_options(parser, "decoding")
    parser.add_argument("--format", metavar="SUFFIX", help="png, jpg, webp, avif, tif, bmp … (default: png)")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite outputs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Restores each input; returns the worst exit code."""
    from difflate.cli.batch import Result, find_compressed, plan, run_jobs
    from difflate.codecs.loading import codec_for, load_for_files
    from difflate.errors import ConfigError
    from difflate.format import container

    suffix = "." + (args.format or "png").lower().lstrip(".")
    if _kind(suffix) is None:
        raise ConfigError(f"--format (={args.format}) is no image format; choose png, jpg, webp, avif, tif or bmp")
    with spelled_as_flags():
        codec: Codec | None = load_for_files(args.codec, args.allow_download) if args.codec else None
    options = codec_options(args, "decoding")
    if "refiner" in options:  # read once for all inputs
        from difflate.models.refiner import open_refiner

        options["refiner"] = open_refiner(args.refiner, allow_download=args.allow_download)

    def work(job: Job, data: bytes) -> Result:
        kind = _kind(suffix if args.format or job.target == STANDARD else job.target.suffix.lower())
        if kind is None:
            raise ConfigError(
                f"output (={job.target}) has a suffix of no image format; end it in .png, or use --format"
            )
        chosen = codec if codec and data.startswith(container.MAGIC) else codec_for(data)
        with spelled_as_flags():
            picture = chosen.decode(data, **options)
        return Result(image_file(picture, kind), f"{picture.width}x{picture.height} px", picture.notes)

    return run_jobs(
        plan(args.inputs, args.output, suffix, lambda folder: find_compressed(folder, *_COMPRESSED)), args, work
    )


def _kind(suffix: str) -> str | None:
    """Pillow's name of the format that it writes for a suffix, if it does."""
    from PIL import Image

    Image.init()
    kind = Image.registered_extensions().get(suffix)
    return kind if kind in Image.SAVE else None


def image_file(picture: "Picture", kind: str) -> bytes:
    """The bytes of an image file of format ``kind``. Raises ConfigError if it cannot hold the picture."""
    import io

    from difflate.errors import ConfigError
    from difflate.media.picture import to_pil

    image, file = to_pil(picture), io.BytesIO()
    if kind in ("JPEG", "BMP") and image.mode in ("RGBA", "LA"):
        raise ConfigError(f"{kind} cannot hold the image's alpha; restore it as PNG or WebP")
    carried = {key: image.info[key] for key in ("exif", "icc_profile", "xmp") if key in image.info}
    try:
        image.save(file, kind, **carried, **_SAVE.get(kind, {}))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{kind} cannot hold this image ({error}); restore it as PNG") from error
    return file.getvalue()
