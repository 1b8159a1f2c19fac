"""`difflate distance SAMPLES REFERENCE`."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflate.cli.arguments import input_path
from difflate.cli.device import add_device_option, device_of
from difflate.evaluate.markdown import markdown_table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from difflate.data.items import Item

METRICS = ("swd", "fid", "kid")
_SMALLEST_PX = 7
"""The side of a descriptor of SWD."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "distance",
        help="compare two sets of images: sliced Wasserstein distance, FID, KID",
        description="Says how far two sets of images are from each other. All images are scaled to one size: the short "
        "side, of\nwhich the middle is taken. Values compare with each other at equal numbers of images and sizes only."
        "\nfid and kid need pip install 'difflate[eval]' and the weights of a network.",
        epilog="examples:\n  difflate distance samples/ cats/ --holdback 500 --floor\n"
        "  difflate distance samples/ shards/ --size 64 --max-images 10000 --metrics swd,fid,kid --json",
    )
    parser.add_argument("samples", type=input_path, metavar="SAMPLES", help="a folder of images or of tar shards")
    parser.add_argument("reference", type=input_path, metavar="REFERENCE", help="the same, of real images")
    parser.add_argument(
        "--metrics", default="swd", metavar="LIST", help="swd, fid or kid, separated by commas (default: %(default)s)"
    )
    parser.add_argument("--size", type=int, metavar="PX", help="side to scale all images to (default: the samples')")
    parser.add_argument(
        "--holdback", type=int, metavar="N", help="of REFERENCE, the N images that a training with holdback=N kept back"
    )
    parser.add_argument("--max-images", type=int, metavar="N", help="N images of each set, evenly spaced")
    parser.add_argument(
        "--floor", action="store_true", help="also compare REFERENCE with as many images of it that are left over"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of what is drawn (default: %(default)s)")
    add_device_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the distances; images that cannot be read are left out, with a line on stderr."""
    from difflate.data.items import hold_back, list_items
    from difflate.errors import ConfigError
    from difflate.metrics.frechet import inception

    names = _metric_names(args)
    samples, reference, others = list_items([args.samples]), list_items([args.reference]), []
    if args.holdback is not None:
        others, reference = hold_back(reference, args.holdback)
    if args.max_images is not None:
        _, samples = _spread(samples, args.max_images)
        left_over, reference = _spread(reference, args.max_images)
        others = others or left_over
    if args.floor and not others:
        raise ConfigError(f"--floor: no image of {args.reference} is left over; give --holdback N or --max-images N")
    device = device_of(args.device)
    network = inception().to(device) if {"fid", "kid"} & set(names) else None
    size = _common_size(args.samples, samples) if args.size is None else args.size
    made, real = _read(args.samples, samples, size), _read(args.reference, reference, size)
    result: dict[str, Any] = {"size": size, "seed": args.seed}
    result["samples"] = {"path": str(args.samples), **_counts(made, samples)}
    result["reference"] = {"path": str(args.reference), **_counts(real, reference)}
    sets = [made]
    if args.floor:
        _, others = _spread(others, len(made))
        sets.append(_read(args.reference, others, size))
        result["floor"] = _counts(sets[1], others)
    values = _distances(sets, real, names, network, device, args.seed)
    result |= values[0]
    if args.floor:
        result["floor"] |= values[1]
    print(json.dumps(result, allow_nan=False) if args.json else _table(result))
    return 0


def _metric_names(args: argparse.Namespace) -> list[str]:
    """The names in --metrics. Raises ConfigError for it and for numbers that are too small."""
    from difflate.errors import ConfigError

    names = list(dict.fromkeys(name.strip() for name in args.metrics.split(",")))
    for name in names:
        if name not in METRICS:
            raise ConfigError(f"--metrics: {name!r} is not one of {', '.join(METRICS)}")
    least = {"size": _SMALLEST_PX, "holdback": 1, "max_images": 1, "seed": 0}
    for key, low in least.items():
        value = getattr(args, key)
        if value is not None and value < low:
            raise ConfigError(f"--{key.replace('_', '-')} (={value}) must be at least {low}")
    return names


def _spread(items: "Sequence[Item]", count: int) -> "tuple[list[Item], list[Item]]":
    """(the others, ``count`` items, evenly spaced): the first ones may all lie in one folder, of one class."""
    from difflate.data.items import hold_back

    return hold_back(items, count) if count < len(items) else ([], list(items))


def _common_size(path: Path, items: "Sequence[Item]") -> int:
    """The side of all images that can be opened. Raises ConfigError if it is not one, or too small; ImageError."""
    from difflate.data.items import common_side
    from difflate.errors import ConfigError

    side = common_side(path, items)
    if side < _SMALLEST_PX:
        raise ConfigError(f"{path}: images of {side}x{side} px are too small; give --size")
    return side


def _read(path: Path, items: "Sequence[Item]", size: int) -> "Tensor":
    """(N, 3, size, size) uint8 of those that can be read; says of the others how many. Raises ImageError if N is 0."""
    import torch
    from tqdm import tqdm

    from difflate.data.crops import Crops
    from difflate.data.items import unreadable
    from difflate.errors import ImageError

    pixels, left_out = [], []
    for item in tqdm(items, desc=path.name, file=sys.stderr, disable=not sys.stderr.isatty(), unit="image"):
        try:
            pixels.append(Crops([item], size, short_side=size, augment=False).read(0)[0])
        except ImageError:
            left_out.append(item)
    if not pixels:
        raise unreadable(path, len(items))
    if left_out:
        count = f"{len(left_out)} of {len(items)} images cannot be read and are left out"
        print(f"difflate: {path}: {count}; the first is {left_out[0]}", file=sys.stderr)
    return torch.stack(pixels)


def _counts(pixels: "Tensor", items: "Sequence[Item]") -> dict[str, int]:
    return {"images": len(pixels), "skipped": len(items) - len(pixels)}


def _distances(
    sets: "list[Tensor]", reference: "Tensor", names: list[str], network: "nn.Module | None", device: Any, seed: int
) -> list[dict[str, Any]]:
    """The values of the metrics for each set, by their names."""
    from tqdm import tqdm

    from difflate.metrics.frechet import features_of, fid, kid
    from difflate.metrics.sliced import sliced_wasserstein

    values: list[dict[str, Any]] = [{} for _ in sets]
    if "swd" in names:
        on_device = reference.to(device)
        for value, images in zip(values, sets, strict=True):
            value["swd"] = sliced_wasserstein(images.to(device), on_device, seed)
    if network is not None:
        total = len(reference) + sum(map(len, sets))
        with tqdm(total=total, desc="features", file=sys.stderr, disable=not sys.stderr.isatty(), unit="image") as bar:
            features, *others = (features_of(images, network, progress=bar.update) for images in (reference, *sets))
        for value, of_set in zip(values, others, strict=True):
            if "fid" in names:
                value["fid"] = fid(of_set, features)
            if "kid" in names:
                value["kid"] = dataclasses.asdict(kid(of_set, features, seed))
    return values


def _table(result: dict[str, Any]) -> str:
    """A Markdown table, a row for each pair of sets."""
    samples = {**result, "set": "samples", "images": result["samples"]["images"]}
    floor = [{**result["floor"], "set": "floor"}] if "floor" in result else []
    rows = [_cells(row, result["reference"]["images"]) for row in (samples, *floor)]
    table = markdown_table(list(rows[0]), [list(row.values()) for row in rows])
    return f"{result['size']}x{result['size']} px, seed {result['seed']}\n\n{table}".rstrip()


def _cells(row: dict[str, Any], reference_images: int) -> dict[str, str]:
    """Column and text."""
    cells = {"set": row["set"], "images": f"{row['images']} / {reference_images}"}
    for level, value in row.get("swd", {}).items():
        cells["swd" if level == "mean" else f"swd {level} px"] = f"{value:.2f}"
    if "fid" in row:
        cells["fid"] = f"{row['fid']:.3f}"
    if "kid" in row:
        cells["kid"] = f"{row['kid']['mean']:.5f} ± {row['kid']['std']:.5f}"
    return cells
