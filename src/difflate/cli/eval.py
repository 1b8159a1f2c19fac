"""``difflate eval``: codecs measured on images, with a report."""

import argparse
import functools
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from difflate.cli.arguments import add_download_option

if TYPE_CHECKING:
    from difflate.evaluate import CodecSetting
    from difflate.evaluate.report import Anchor

DEFAULT_CODECS = "jpeg:10..90..20,webp:10..90..20,opq-32-8-8"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to those of ``difflate``."""
    parser = subparsers.add_parser(
        "eval",
        help="measure codecs on images: rate, PSNR, SSIM, MS-SSIM, SSIMULACRA2, times",
        description="Encodes every image with every codec setting to a file's bytes, decodes those bytes again, and "
        "writes\nresults.json, results.md and rate_distortion.png. Alpha and metadata are left out of files and "
        "metrics.\nNeeds pip install 'difflate[eval]'.",
        epilog="examples:\n  difflate eval kodak/ --out report/\n"
        "  difflate eval photo.png --codecs jpeg:50,webp:10..90..20,jxl:1.0,opq-32-8-8 --json\n"
        "  difflate eval kodak/ --codecs webp:10..90..20,avif:20..80..20 --anchor webp --lpips alex",
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGES", help="image files, or folders of them")
    parser.add_argument(
        "--codecs",
        default=DEFAULT_CODECS,
        metavar="LIST",
        help="name, name:quality or name:low..high..step, separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--lpips",
        choices=("alex", "vgg"),
        help="measure LPIPS too, with that network, whose weights must be there: none are downloaded",
    )
    parser.add_argument(
        "--anchor",
        metavar="CODEC",
        help="the codec that BD-rates are relative to, with four or more qualities (default: jpeg, if it has them)",
    )
    parser.add_argument(
        "--bpp-range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="BD-rates only over the qualities that the anchor has between these rates",
    )
    add_download_option(parser)
    parser.add_argument("--out", type=Path, metavar="REPORT", help="folder for the report (default: none is written)")
    parser.add_argument("--max-images", type=int, metavar="N", help="stop after the first N images")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite a report that is there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The worst exit code of all images; the report and the table hold the images that could be measured."""
    from tqdm import tqdm

    from difflate.codecs import loading
    from difflate.evaluate.report import as_json, bd_table, check_output, mean_rows, table, write_report
    from difflate.evaluate.run import Record, evaluate, find_images, parse_codecs, worst_exit_code

    if args.out:
        check_output(args.out, args.force)
    images = find_images(args.images, args.max_images)
    allowed = {"allow_download": True} if args.allow_download else {}
    load = functools.cache(functools.partial(loading.load, **allowed))
    settings = parse_codecs(args.codecs, load)
    anchor = _anchor(args, settings)
    lpips = None
    if args.lpips:
        from difflate.metrics.perceptual import load_lpips

        lpips = load_lpips(args.lpips)
    told: set[tuple[str, str]] = set()
    with tqdm(total=len(images) * len(settings), file=sys.stderr, disable=not sys.stderr.isatty(), unit="file") as bar:

        def progress(record: Record) -> None:
            bar.update()
            if record.error and (record.image, record.error) not in told:
                told.add((record.image, record.error))  # an image that cannot be read fails with every codec
                bar.write(f"difflate: {record.image}: {record.error}", file=sys.stderr)

        records = evaluate(images, settings, load=load, lpips=lpips, progress=progress)
    command = _command(args)
    if args.out:
        write_report(records, args.out, command=command, force=args.force, anchor=anchor)
    if args.json:
        print(json.dumps(as_json(records, command, anchor), allow_nan=False))
    else:
        rows = mean_rows(records)
        print("\n".join(part for part in (table(rows), bd_table(rows, anchor)) if part), end="")
    return worst_exit_code(records)


def _anchor(args: argparse.Namespace, settings: "list[CodecSetting]") -> "Anchor":
    """What BD-rates are relative to. Raises ConfigError for one that was asked for and cannot be."""
    from difflate.errors import ConfigError
    from difflate.evaluate.report import Anchor
    from difflate.metrics.bjontegaard import MIN_POINTS

    anchor = Anchor(args.anchor or Anchor.codec, args.bpp_range and tuple(args.bpp_range))
    count = sum(setting.codec == anchor.codec for setting in settings)
    if count < MIN_POINTS and (args.anchor or args.bpp_range):
        raise ConfigError(
            f"anchor (={anchor.codec}) has {count} qualities in --codecs; BD-rates need {MIN_POINTS}, "
            f"such as {anchor.codec}:LOW..HIGH..STEP"
        )
    return anchor


def _command(args: argparse.Namespace) -> str:
    """The command that repeats the run, without the options that only say where its results go."""
    words = ["difflate", "eval", *map(str, args.images), "--codecs", args.codecs]
    if args.lpips:
        words += ["--lpips", args.lpips]
    if args.anchor:
        words += ["--anchor", args.anchor]
    if args.bpp_range:
        words += ["--bpp-range", *map(str, args.bpp_range)]
    if args.allow_download:
        words.append("--allow-download")
    if args.max_images is not None:
        words += ["--max-images", str(args.max_images)]
    return shlex.join(words)
