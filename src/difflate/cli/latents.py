"""`difflate latents IMAGES… -o shards/`."""

import argparse
import copy
import functools
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from difflate.cli.arguments import add_download_option, input_path, output_path
from difflate.cli.bulk import add_workers_options, shown, workers_of
from difflate.cli.device import add_device_option, device_of
from difflate.errors import ConfigError

if TYPE_CHECKING:
    from difflate.bulk.run import Done
    from difflate.bulk.workers import Workers
    from difflate.data.latent_writer import Written
    from difflate.models.latent_space import LatentSpace

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
        "  difflate latents photos/ --codec vq-8-8-8 --size 256 -o shards/\n"
        "  difflate latents tars/ --size 256 -o shards/ --jobs 8      by 8 processes; again: what is missing",
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
        "--workers", type=int, metavar="N", help="processes that read for the one that encodes; 0: none (default: 1)"
    )
    add_workers_options(
        parser.add_argument_group(
            "many images",
            "Each worker makes whole shards, and OUT gets a manifest.jsonl. A second run makes shards that are missing "
            "or whose images have changed, and checks the others.",
        )
    )
    add_device_option(parser)
    add_download_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("-f", "--force", action="store_true", help="replace the shards that are there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Encodes and writes; the worst exit code of all shards."""
    workers = workers_of(args)
    made = _by_one(args) if workers is None else _by_many(args, workers)
    written, codec, rate, more, code = made
    each = written.bytes / max(written.images, 1)
    if args.json:
        values = {"output": args.output, "codec": codec, "flips": not args.no_flips, **vars(written), **more}
        print(json.dumps({**values, "bytes_per_image": each, "images_per_s": rate}))
    else:
        skipped = f" ({written.skipped} cannot be read)" if written.skipped else ""
        size = f"{each:.0f} bytes an image{'' if args.no_flips else ' and its mirrored one'}"
        shards = f"; {more['kept']} of {written.shards} shards kept, {more['failed']} failed" if more else ""
        print(f"{args.output}: {written.images} images{skipped}, {size}, {rate:.0f} images/s{shards}")
    return code


_Made = tuple["Written", str, float, dict[str, int], int]
"""What there is now, the name of the codec, images per second, what becomes of shards, the worst exit code."""


def _by_one(args: argparse.Namespace) -> _Made:
    """By this process; an interruption leaves the folder as it was."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from difflate.data.items import list_items
    from difflate.data.latent_writer import check_shards, write_latents

    check_shards(args.output, args.force)
    items = list_items(args.images)
    space = _space(args.codec, args.allow_download, args.device)
    bar = tqdm(total=len(items), unit="image", file=sys.stderr, disable=not sys.stderr.isatty())
    with bar, logging_redirect_tqdm():
        written = write_latents(
            items, space, args.output, sources=args.images, image_px=args.size, flips=not args.no_flips,
            shard_images=args.shard_images, batch=args.batch, workers=1 if args.workers is None else args.workers,
            force=args.force, progress=bar.update,
        )  # fmt: skip
    return written, space.name, written.images / written.seconds, {}, 0


def _by_many(args: argparse.Namespace, workers: "Workers") -> _Made:
    """By ``workers``; an interruption leaves the shards that are complete."""
    from difflate.bulk.latents import latent_shards
    from difflate.bulk.manifest import MANIFEST
    from difflate.bulk.run import run_bulk
    from difflate.data.items import list_items, unreadable
    from difflate.data.latent_writer import SKIPPED_SHOWN, Written, called, check_shards, plan_shards
    from difflate.data.latents import shard_files

    began, out = time.perf_counter(), Path(args.output)
    if args.workers is not None:
        raise ConfigError("--workers is for one process that encodes; leave it out with --jobs, whose workers read too")
    check_shards(out, args.force or (out / MANIFEST).exists())  # what a manifest knows may be replaced
    items = list_items(args.images)
    plan = plan_shards(
        items, _space(args.codec, args.allow_download, "cpu"), sources=args.images, image_px=args.size,
        flips=not args.no_flips, shard_images=args.shard_images, batch=args.batch,
    )  # fmt: skip
    header = plan.header
    settings = {
        "command": "latents", "codec": header.codec, "model": header.fingerprint, "image_px": header.image_px,
        "images": header.images, "sources": plan.names, "shard_images": plan.shard_images, "flips": plan.flips,
    }  # fmt: skip
    # where no GPU was asked for, Ray keeps those that there are from its workers
    device = args.device or ("cpu" if workers.engine == "ray" else None)
    load = functools.partial(_space, args.codec, args.allow_download, device)
    shards, old = latent_shards(plan, items, out), shard_files(out)
    made = run_bulk(shards, out, load, settings, workers, force=args.force, replaced=old)
    images = skipped = size = encoded = kept = failed = code = 0

    def said(done: "Done") -> list[str]:
        entry = done.entry
        if entry.error is not None:
            return [entry.error]
        texts = [f"skipped: {text}" for _, text in entry.failed[: max(SKIPPED_SHOWN - skipped, 0)]]
        return [] if done.kept else [*entry.notes, *texts]

    for done in shown(made, len(shards), "shard", said):
        entry, code = done.entry, max(code, done.entry.code)
        if entry.error is not None:
            failed += 1
            continue
        images, skipped, size = images + entry.images, skipped + len(entry.failed), size + entry.bytes
        kept, encoded = kept + done.kept, encoded + (0 if done.kept else entry.images)
    if not images and not failed:
        for path in (*shard_files(out), out / MANIFEST):
            path.unlink()  # all empty: as one process leaves it
        raise unreadable(called(args.images), len(items))
    seconds = time.perf_counter() - began
    written = Written(images, skipped, len(shards), header.image_px, size, seconds)
    return written, header.codec, encoded / seconds, {"kept": kept, "failed": failed}, code


def _space(codec: str, allow_download: bool, device: str | None) -> "LatentSpace":
    """The codec's latent space, on that device. Raises ConfigError, ModelError."""
    from difflate.codecs import loading
    from difflate.models.latent_space import latent_space

    space = latent_space(loading.load(codec, allow_download=allow_download))
    return copy.deepcopy(space).to(device_of(device))  # the loaded one is everybody's
