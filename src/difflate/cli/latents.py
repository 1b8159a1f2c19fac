"""`difflate latents IMAGES… -o shards/`."""

import argparse
import copy
import json
import sys

from difflate.cli.arguments import add_download_option, input_path, output_path
from difflate.cli.device import add_device_option, device_of

DEFAULT_CODEC = "opq-32-8-8"
_SHARD_IMAGES = 8192


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "latents",
        help="encode images once, as the data set that a generator of latents is trained on",
        description="Encodes images with a codec of indices and writes these as shards, which a training reads in the "
        "place\nof images. Images that cannot be read are left out.",
        epilog="examples:\n  difflate latents cats/ -o shards/\n"
        "  difflate latents photos/ --codec vq-8-8-8 --size 256 -o shards/",
    )
    parser.add_argument(
        "images", nargs="+", type=input_path, metavar="IMAGES", help="folders of images or of tar shards, image files"
    )
    parser.add_argument(
        "--codec", default=DEFAULT_CODEC, metavar="NAME|FOLDER",
        help="a codec whose latent is indices, such as the vq codecs (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=output_path, required=True, metavar="OUT", help="folder of the shards")
    parser.add_argument(
        "--size", type=int, metavar="PX",
        help="scale the short side of all images to PX and take the middle (default: squares of one size as they are)",
    )  # fmt: skip
    parser.add_argument("--no-flips", action="store_true", help="leave out the mirrored images: half the bytes")
    parser.add_argument(
        "--shard-images", type=int, default=_SHARD_IMAGES, metavar="N", help="images of a shard (default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="images at once (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that read images; 0: none (default: %(default)s)"
    )
    add_device_option(parser)
    add_download_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-f", "--force", action="store_true", help="replace the shards that are there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Encodes and writes; an interruption leaves the folder as it was."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from difflate.codecs import loading
    from difflate.data.items import list_items
    from difflate.data.latent_writer import check_shards, write_latents
    from difflate.models.latent_space import latent_space

    check_shards(args.output, args.force)
    items = list_items(args.images)
    space = latent_space(loading.load(args.codec, allow_download=args.allow_download))
    space = copy.deepcopy(space).to(device_of(args.device))  # the loaded one is everybody's
    bar = tqdm(total=len(items), unit="image", file=sys.stderr, disable=not sys.stderr.isatty())
    with bar, logging_redirect_tqdm():
        written = write_latents(
            items, space, args.output, sources=args.images, image_px=args.size, flips=not args.no_flips,
            shard_images=args.shard_images, batch=args.batch, workers=args.workers, force=args.force,
            progress=bar.update,
        )  # fmt: skip
    rate, each = written.images / written.seconds, written.bytes / written.images
    if args.json:
        values = {"output": args.output, "codec": space.name, "flips": not args.no_flips, **vars(written)}
        print(json.dumps({**values, "bytes_per_image": each, "images_per_s": rate}))
    else:
        skipped = f" ({written.skipped} cannot be read)" if written.skipped else ""
        size = f"{each:.0f} bytes an image{'' if args.no_flips else ' and its mirrored one'}"
        print(f"{args.output}: {written.images} images{skipped}, {size}, {rate:.0f} images/s")
    return 0
