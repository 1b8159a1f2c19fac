"""`difflate decompress INPUT…`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflate.cli.batch import (
    STANDARD,
    Job,
    add_diffusion_options,
    add_download_option,
    input_path,
    name_of,
    output_path,
)

if TYPE_CHECKING:
    from difflate.codecs.base import Codec
    from difflate.media.picture import Picture
    from difflate.models.refiner import Refiner

_EPILOG = """examples:
  difflate decompress photo.dfl                      photo.png, beside it
  difflate decompress photo.dfl -o photo.jpg
  difflate decompress small/ -o restored/            all .dfl files below small/
  difflate decompress - -o - --format webp < photo.dfl > photo.webp
  difflate decompress photo.dfl --refine             of opq-32-8-8: improved by its refiner"""
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
        help=".dfl or classical image files, folders of .dfl files, or - for stdin",
    )
    parser.add_argument(
        "-o", "--output", type=output_path, metavar="OUT", help="file (one input), folder, or - for stdout"
    )
    parser.add_argument("--codec", type=name_of, metavar="FOLDER", help="for .dfl files: a model that is not bundled")
    add_download_option(parser)
    add_diffusion_options(parser, "as the file says")
    refine = "vq codecs: improve the image by a small network, the one that is bundled for the codec"
    parser.add_argument("--refine", action="store_true", default=None, help=refine)  # False would be an option given
    parser.add_argument("--refiner", type=name_of, metavar="FOLDER", help="the same by a network that is not bundled")
    parser.add_argument("--format", metavar="SUFFIX", help="png, jpg, webp, avif, tif, bmp … (default: png)")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite outputs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Restores each input; returns the worst exit code."""
    from difflate.cli.batch import plan, run_jobs
    from difflate.codecs.base import options_for
    from difflate.errors import ConfigError
    from difflate.format import container
    from difflate.store.hub import codec_for, load

    suffix = "." + (args.format or "png").lower().lstrip(".")
    if _kind(suffix) is None:
        raise ConfigError(f"--format (={args.format}) is no image format; choose png, jpg, webp, avif, tif or bmp")
    codec: Codec | None = load(args.codec, allow_download=args.allow_download) if args.codec else None
    if codec is not None and codec.suffix != ".dfl":
        raise ConfigError(
            f"--codec (={args.codec}) must be a model's folder; {codec.suffix} files need none: leave it out"
        )
    options = {"steps": args.steps, "gamma": args.gamma, "seed": args.seed, "tile_px": args.tile}
    options |= {"refine": args.refine, "refiner": _opened(args.refiner, args.allow_download)}

    def work(job: Job, data: bytes) -> tuple[bytes, str]:
        kind = _kind(suffix if args.format or job.target == STANDARD else job.target.suffix.lower())
        if kind is None:
            raise ConfigError(
                f"output (={job.target}) has a suffix of no image format; end it in .png, or use --format"
            )
        learned = data.startswith(container.MAGIC)
        found = codec if codec and learned else codec_for(data)
        picture = found.decode(data, **options_for(found, found.decode, options))
        return _saved(picture, kind), f"{picture.width}x{picture.height} px"

    return run_jobs(plan(args.inputs, args.output, suffix, _dfl_files), args, work)


def _opened(refiner: str | None, allow_download: bool) -> "Refiner | None":
    """The refiner in that folder, read once for all inputs."""
    if refiner is None:
        return None
    from difflate.models.refiner import open_refiner

    return open_refiner(refiner, allow_download=allow_download)


def _kind(suffix: str) -> str | None:
    """Pillow's name of the format that it writes for a suffix, if it does."""
    from PIL import Image

    Image.init()
    kind = Image.registered_extensions().get(suffix)
    return kind if kind in Image.SAVE else None


def _saved(picture: "Picture", kind: str) -> bytes:
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


def _dfl_files(folder: Path) -> list[Path]:
    from difflate.errors import ConfigError

    found = sorted(p for p in folder.rglob("*.dfl") if p.is_file())
    if not found:
        raise ConfigError(f"{folder}: no .dfl files in this folder; name other files one by one")
    return found
