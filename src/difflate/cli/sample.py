"""`difflate sample MODEL -n 16 -o grid.png`."""

import argparse
import json
import math
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from difflate.cli.arguments import add_download_option, name_of, output_path
from difflate.cli.device import add_device_option, device_of
from difflate.errors import ConfigError, LimitExceeded
from difflate.generate.options import SAMPLER_NAMES, SampleOptions

if TYPE_CHECKING:
    from torch import Tensor

_TRACE_IMAGES, _TRACE_MOMENTS = 4, 11
_MAX_GRID_PIXELS = 2**26
_SIZE = re.compile(r"(\d{1,6})(?:x(\d{1,6}))?")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "sample",
        help="generate images with a trained model",
        description="Generates images. -o names a PNG file for a grid of them, or a folder for a file each. Image i of "
        "a seed is\nthe same, but for rounding, whatever -n and --batch are. An interruption keeps what is finished.",
        epilog="examples:\n  difflate sample cats-small -n 16 -o cats.png\n"
        "  difflate sample cats-small -n 4 -o cats.png --trace steps.png\n"
        "  difflate sample runs/cats-32-small -n 1000 -o samples/ --seed 7",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="cats-small, which is bundled, a generator's folder, or owner/name of a Hugging Face repository",
    )
    parser.add_argument("-n", "--count", type=int, default=16, metavar="N", help="images (default: %(default)s)")
    parser.add_argument("-o", "--output", type=output_path, required=True, metavar="OUT", help="grid.png, or folder/")
    parser.add_argument("--grid", type=int, metavar="COLUMNS", help="images in a row of the grid (default: a square)")
    parser.add_argument(
        "--scale", type=int, metavar="N",
        help="enlarge each image of the grid N times, by nearest neighbours (default: to at least 96 px)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=int, metavar="N", help="of the sampler (default: as the model says, 30 for most)"
    )
    parser.add_argument(
        "--sampler", choices=SAMPLER_NAMES, help="(default: ddpm for categorical models, dpmpp_2m for others)"
    )
    parser.add_argument(
        "--seed", type=int, default=SampleOptions.seed, metavar="S", help="of all noise (default: %(default)s)"
    )
    parser.add_argument(
        "--size", metavar="PX", help="side, or WIDTHxHEIGHT, of the images (default: as the model was trained)"
    )
    parser.add_argument(
        "--temperature", type=float, metavar="G", help="of a categorical model: 0 takes the most likely index always"
    )
    parser.add_argument(
        "--softness", type=float, metavar="S",
        help="of a continuous model of latents: average the codewords around a sampled number of [-1, 1], with "
        "Gaussian weights of this standard deviation; 0 takes the nearest one (default: as the model says)",
    )  # fmt: skip
    parser.add_argument(
        "--codec", type=name_of, metavar="FOLDER", help="of a model of latents: its codec, where it is not bundled"
    )
    parser.add_argument(
        "--refine",
        action="store_true",
        help="of a model of latents: improve the decoded images, where a refiner is bundled",
    )
    parser.add_argument("--refiner", type=name_of, metavar="FOLDER", help="the same, by this refiner")
    parser.add_argument(
        "--class", dest="classes", action="append", default=[], metavar="NAME",
        help="of a model with classes; several are taken in turn (default: all in turn)",
    )  # fmt: skip
    parser.add_argument(
        "--guidance", type=float, default=SampleOptions.guidance, metavar="W",
        help="of a model with classes: 1 is none (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--trace", type=output_path, metavar="PNG",
        help=f"also a strip of {_TRACE_MOMENTS} steps from noise to image, of {_TRACE_IMAGES} images, or --batch",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="images at once (default: %(default)s)")
    add_device_option(parser)
    add_download_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object with the times")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite outputs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Generates, writes; an interruption keeps the finished images."""
    import torch
    from tqdm import tqdm

    from difflate.generate import load_generator, sample, trace, trajectory
    from difflate.generate.grid import image_grid, save_png

    folder = _output_folder(args)
    options = SampleOptions(
        args.steps, args.sampler, args.seed, args.classes, args.guidance, args.temperature, _parse_size(args.size)
    )
    model = load_generator(
        args.model, codec=args.codec, refine=args.refine, refiner=args.refiner, softness=args.softness,
        allow_download=args.allow_download,
    )  # fmt: skip
    model = model.to(device_of(args.device))
    taken = args.steps or model.steps
    began, made = time.perf_counter(), 0
    images: list[Tensor] = []
    batches = sample(model, args.count, options, batch=args.batch)  # raises now
    scale = 1 if folder is not None else _scale(args, *(options.size or (model.image_px, model.image_px)))
    if args.trace:
        steps = trajectory(model, range(min(args.count, args.batch, _TRACE_IMAGES)), options)  # raises now
    try:
        with tqdm(total=args.count, unit="image", file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
            for batch in batches:
                for image in batch:
                    if folder is None:
                        images.append(image)
                    else:
                        save_png(image, folder / _name(made), args.force)
                    made += 1
                bar.update(len(batch))
    finally:  # an interruption too
        if images:
            save_png(image_grid(torch.stack(images), args.grid, scale), Path(args.output), args.force)
    seconds = time.perf_counter() - began
    if args.trace:
        moments = [image for _, image in trace(steps, model, _TRACE_MOMENTS, taken)]
        strips = torch.stack(moments, dim=1)  # (images, moments, 3, H, W)
        save_png(image_grid(strips.flatten(0, 1), strips.shape[1], args.scale), Path(args.trace), args.force)
    if args.json:
        values = {"output": args.output, "images": made, "seconds": seconds, "seed": args.seed, "steps": taken}
        print(json.dumps({**values, "sampler": args.sampler or model.sampler, "images_per_s": made / seconds}))
    else:
        print(f"{args.output}: {made} images in {seconds:.1f} s")
    return 0


def _scale(args: argparse.Namespace, height: int, width: int) -> int:
    """How many times the images of the grid are enlarged. Raises LimitExceeded if the grid would be too large."""
    from difflate.generate.grid import grid_scale

    pixels = args.count * height * width
    most = math.isqrt(_MAX_GRID_PIXELS // pixels)
    scale = args.scale or max(1, min(grid_scale(height, width), most))
    if scale > most:
        enlarged = f", enlarged {scale} times," if scale > 1 else ""
        what = f"{args.count} images of {width}x{height} px{enlarged}"
        raise LimitExceeded(f"{args.output}: {what} are too many for a grid; end the name in /")
    return scale


def _output_folder(args: argparse.Namespace) -> Path | None:
    """The folder that is written to, if it is one, after all checks that need no model. Raises ConfigError."""
    from difflate.files import check_output

    folder = Path(args.output) if args.output.endswith("/") or Path(args.output).is_dir() else None
    if args.count < 1:
        raise ConfigError(f"-n (={args.count}) must be at least 1")
    if folder is None and Path(args.output).suffix.lower() != ".png":
        raise ConfigError(f"{args.output}: end the name in .png for a grid of the images, or in / for a folder of them")
    if args.grid is not None and (folder is not None or args.grid < 1):
        raise ConfigError(f"--grid (={args.grid}) must be at least 1, for an output that ends in .png")
    if args.scale is not None and (args.scale < 1 or (folder is not None and args.trace is None)):
        raise ConfigError(f"--scale (={args.scale}) must be at least 1, for an output that ends in .png or a --trace")
    if args.trace is not None and Path(args.trace).suffix.lower() != ".png":
        raise ConfigError(f"--trace (={args.trace}) must end in .png")
    if args.trace is not None and os.path.realpath(args.trace) == os.path.realpath(args.output):
        raise ConfigError(f"--trace (={args.trace}) must be another file than -o")
    check_output(Path(args.output) if folder is None else folder / _name(0), args.force)
    if args.trace is not None:
        check_output(Path(args.trace), args.force)
    if folder is not None and folder.is_dir() and not args.force:
        for name in sorted(path.name for path in folder.iterdir()):
            if name[:-4].isdigit() and name == _name(int(name[:-4])) and int(name[:-4]) < args.count:
                check_output(folder / name, force=False)
    return folder


def _parse_size(text: str | None) -> tuple[int, int] | None:
    """(height, width). Raises ConfigError."""
    if text is None:
        return None
    sides = _SIZE.fullmatch(text)
    if sides is None:
        raise ConfigError(f"--size (={text}) must be a side, or WIDTHxHEIGHT, in px")
    return int(sides[2] or sides[1]), int(sides[1])


def _name(number: int) -> str:
    return f"{number:06d}.png"
