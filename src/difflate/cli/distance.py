"""`difflate distance SAMPLES REFERENCE`."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflate.cli.arguments import input_path
from difflate.cli.device import add_device_option, device_of
from difflate.evaluate.markdown import markdown_table

if TYPE_CHECKING:
    import torch

    from difflate.data.items import Item
    from difflate.metrics.sets import ImageSet


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "distance",
        help="compare two sets of images: sliced Wasserstein distance, Fréchet and kernel distances, nearest images",
        description="Says how far two sets of images are from each other. All images are scaled to one size: the short "
        "side, of\nwhich the middle is taken. Values compare with each other at equal numbers of images and sizes only."
        "\nAll but swd need pip install 'difflate[eval]' and the weights of a network, Inception or VGG16.",
        epilog="examples:\n  difflate distance samples/ cats/ --holdback 500 --floor\n"
        "  difflate distance samples/ cats/ --holdback 500 --metrics swd,frechet-vgg16,kernel-vgg16 --floor\n"
        "  difflate distance samples/ cats/ --holdback 500 --nearest pairs.png\n"
        "  difflate distance samples/ shards/ --size 64 --max-images 10000 --metrics swd,fid,kid --json",
    )
    parser.add_argument("samples", type=input_path, metavar="SAMPLES", help="a folder of images or of tar shards")
    parser.add_argument("reference", type=input_path, metavar="REFERENCE", help="the same, of real images")
    parser.add_argument(
        "--metrics",
        default="swd",
        metavar="LIST",
        help="swd, fid, kid, frechet-vgg16 or kernel-vgg16, separated by commas (default: %(default)s)",
    )
    parser.add_argument("--size", type=int, metavar="PX", help="side to scale all images to (default: the samples')")
    parser.add_argument(
        "--holdback", type=int, metavar="N", help="of REFERENCE, the N images that a training with holdback=N kept back"
    )
    parser.add_argument("--max-images", type=int, metavar="N", help="N images of each set, evenly spaced")
    parser.add_argument(
        "--floor", action="store_true", help="also compare REFERENCE with as many images of it that are left over"
    )
    parser.add_argument(
        "--nearest",
        type=Path,
        metavar="PNG",
        help="also write each sample beside the nearest image of REFERENCE that is not held back, and say how near "
        "samples and the held-back images are to those",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of what is drawn (default: %(default)s)")
    add_device_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite PNG if it is there")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the distances; images that cannot be read are left out, with a line on stderr."""
    from difflate.errors import ConfigError
    from difflate.files import check_output
    from difflate.metrics import nearest, sets

    names = _metric_names(args)
    if args.nearest is not None:
        check_output(args.nearest, args.force)
    choice = sets.choose(args.samples, args.reference, args.holdback, args.max_images)
    if args.floor and not choice.others:
        raise ConfigError(f"--floor: no image of {args.reference} is left over; give --holdback N or --max-images N")
    device = device_of(args.device)
    networks = sets.load_networks(names, device)
    described = nearest.description() if args.nearest is not None else None
    size = sets.check_size(args.samples, choice.samples, args.size)
    made, real = _read(args.samples, choice.samples, size), _read(args.reference, choice.reference, size)
    result: dict[str, Any] = {"size": size, "seed": args.seed}
    result["samples"] = {"path": str(args.samples), **_counts(made)}
    result["reference"] = {"path": str(args.reference), **_counts(real)}
    compared = [made.images]
    if args.floor:
        others = _read(args.reference, sets.spread(choice.others, len(made.images))[1], size)
        result["floor"] = _counts(others)
        compared.append(others.images)
    looked_at = sum(map(len, (real.images, *compared))) * len(networks)
    with _bar("features", looked_at) as progress:
        values = sets.distances(compared, real.images, names, networks, device, args.seed, progress)
    result |= values[0]
    if args.floor:
        result["floor"] |= values[1]
    if described is not None:
        by, network = described
        held_back = real if args.holdback is not None else None
        result["nearest"] = _nearest(args, made, held_back, choice.training, by, network.to(device))
    print(json.dumps(result, allow_nan=False) if args.json else _table(result))
    return 0


def _metric_names(args: argparse.Namespace) -> list[str]:
    """The names in --metrics. Raises ConfigError for it and for numbers that are too small."""
    from difflate.errors import ConfigError
    from difflate.metrics.sets import DISTANCES
    from difflate.metrics.sliced import PATCH_PX

    names = list(dict.fromkeys(name.strip() for name in args.metrics.split(",")))
    for name in names:
        if name not in DISTANCES:
            raise ConfigError(f"--metrics: {name!r} is not one of {', '.join(DISTANCES)}")
    least = {"size": PATCH_PX, "holdback": 1, "max_images": 1, "seed": 0}
    for key, low in least.items():
        value = getattr(args, key)
        if value is not None and value < low:
            raise ConfigError(f"--{key.replace('_', '-')} (={value}) must be at least {low}")
    return names


@contextmanager
def _bar(name: str, total: int) -> Iterator[Callable[[int], object]]:
    """What counts up a bar on stderr, if that is a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, desc=name, file=sys.stderr, disable=not sys.stderr.isatty(), unit="image") as bar:
        yield bar.update


def _read(path: Path, items: "list[Item]", size: int) -> "ImageSet":
    """The images that can be read; says of the others how many. Raises ImageError if there are none."""
    from difflate.metrics.sets import read_images

    with _bar(path.name, len(items)) as progress:
        found = read_images(path, items, size, progress)
    _say_skipped(path, found.skipped, len(items))
    return found


def _say_skipped(path: Path, skipped: "list[Item]", total: int) -> None:
    if skipped:
        count = f"{len(skipped)} of {total} images cannot be read and are left out"
        print(f"difflate: {path}: {count}; the first is {skipped[0]}", file=sys.stderr)


def _counts(found: "ImageSet") -> dict[str, int]:
    return {"images": len(found.images), "skipped": len(found.skipped)}


def _nearest(
    args: argparse.Namespace,
    made: "ImageSet",
    held_back: "ImageSet | None",
    training: "list[Item]",
    by: str,
    network: "torch.nn.Module",
) -> dict[str, Any]:
    """Writes the picture of --nearest; what is said of it."""
    from difflate.generate.grid import save_png
    from difflate.metrics.nearest import find_nearest, pairs_picture

    with _bar("nearest", len(training)) as progress:
        found = find_nearest(args.reference, made, held_back, training, network, progress)
    _say_skipped(args.reference, found.skipped, len(training))
    save_png(pairs_picture(made.images, found), args.nearest, args.force)
    return {"by": by, **found.to_json()}


def _table(result: dict[str, Any]) -> str:
    """A Markdown table, a row for each pair of sets, and a line on the nearest training images."""
    samples = {**result, "set": "samples", "images": result["samples"]["images"]}
    floor = [{**result["floor"], "set": "floor"}] if "floor" in result else []
    rows = [_cells(row, result["reference"]["images"]) for row in (samples, *floor)]
    table = markdown_table(list(rows[0]), [list(row.values()) for row in rows])
    text = f"{result['size']}x{result['size']} px, seed {result['seed']}\n\n{table}".rstrip()
    return f"{text}\n\n{_nearest_line(result['nearest'])}" if "nearest" in result else text


def _nearest_line(found: dict[str, Any]) -> str:
    names = {"samples": "samples", "held_back": "images held back"}
    sides = [
        f"{found[key]['median']:.4f} for {found[key]['images']} {name} (least {found[key]['least']:.4f})"
        for key, name in names.items()
        if key in found
    ]
    more = "" if "held_back" in found else "; --holdback N compares it with that of real images"
    of = f"nearest of {found['training']['images']} training images by {found['by']}"
    return f"{of}, median distance: {', '.join(sides)}{more}"


def _cells(row: dict[str, Any], reference_images: int) -> dict[str, str]:
    """Column and text."""
    cells = {"set": row["set"], "images": f"{row['images']} / {reference_images}"}
    for level, value in row.get("swd", {}).items():
        cells["swd" if level == "mean" else f"swd {level} px"] = f"{value:.2f}"
    for name in ("fid", "frechet-vgg16"):
        if name in row:
            cells[name] = f"{row[name]:.3f}"
    for name in ("kid", "kernel-vgg16"):
        if name in row:
            cells[name] = f"{row[name]['mean']:.5f} ± {row[name]['std']:.5f}"
    return cells
