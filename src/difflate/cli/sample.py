"""`difflate sample MODEL -n 16 -o grid.png`."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from difflate.cli.batch import add_download_option, output_path

if TYPE_CHECKING:
    from torch import Tensor

SAMPLER_NAMES = ("ddpm", "ddim", "euler", "heun", "dpmpp_2m")
_DEFAULT_SAMPLER, _DEFAULT_STEPS = "dpmpp_2m", 30


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "sample",
        help="generate images with a trained model",
        description="Generates images. -o names a PNG file for a grid of them, or a folder for a file each. Image i of "
        "a seed is\nthe same whatever -n and --batch are.",
        epilog="examples:\n  difflate sample runs/cats-32-small -n 16 -o grid.png\n"
        "  difflate sample runs/cats-32-small -n 1000 -o samples/ --seed 7",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a generator's folder, or owner/name of a Hugging Face repository"
    )
    parser.add_argument("-n", "--count", type=int, default=16, metavar="N", help="images (default: %(default)s)")
    parser.add_argument("-o", "--output", type=output_path, required=True, metavar="OUT", help="grid.png, or folder/")
    parser.add_argument(
        "--steps", type=int, default=_DEFAULT_STEPS, metavar="N", help="of the sampler (default: %(default)s)"
    )
    parser.add_argument("--sampler", choices=SAMPLER_NAMES, default=_DEFAULT_SAMPLER, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="(default: %(default)s)")
    parser.add_argument(
        "--class", dest="classes", action="append", default=[], metavar="NAME",
        help="of a model with classes; several are taken in turn (default: all in turn)",
    )  # fmt: skip
    parser.add_argument(
        "--guidance", type=float, default=1.0, metavar="W", help="of a model with classes: 1 is none (default: 1)"
    )
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="images at once (default: %(default)s)")
    parser.add_argument("--device", default=None, help="cpu, cuda … (default: cuda if there is one)")
    add_download_option(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object with the times")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite outputs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Generates, writes; an interruption keeps the finished images of a folder."""
    import torch
    from tqdm import tqdm

    from difflate.errors import ConfigError
    from difflate.files import check_output
    from difflate.generate import load_generator, sample
    from difflate.grid import image_grid, save_png

    folder = Path(args.output) if args.output.endswith("/") or Path(args.output).is_dir() else None
    if args.count < 1:
        raise ConfigError(f"-n (={args.count}) must be at least 1")
    if folder is None and Path(args.output).suffix.lower() != ".png":
        raise ConfigError(f"{args.output}: end the name in .png for a grid of the images, or in / for a folder of them")
    check_output(Path(args.output) if folder is None else folder / _name(0), args.force)  # before the work
    if folder is not None and folder.is_dir() and not args.force:
        for name in sorted(path.name for path in folder.iterdir()):
            if name[:-4].isdigit() and name == _name(int(name[:-4])) and int(name[:-4]) < args.count:
                check_output(folder / name, force=False)
    model = load_generator(args.model, allow_download=args.allow_download)
    try:
        model = model.to(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device (={args.device}) cannot be used ({' '.join(str(error).split())[:120]})") from error
    began, made = time.perf_counter(), 0
    images: list[Tensor] = []
    options = {"steps": args.steps, "sampler": args.sampler, "seed": args.seed, "classes": args.classes}
    batches = sample(model, args.count, guidance=args.guidance, batch=args.batch, **options)
    with tqdm(total=args.count, unit="image", file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
        for batch in batches:
            for image in batch:
                if folder is None:
                    images.append(image)
                else:
                    save_png(image, folder / _name(made), args.force)
                made += 1
            bar.update(len(batch))
    seconds = time.perf_counter() - began
    if folder is None:
        save_png(image_grid(torch.stack(images)), Path(args.output), args.force)
    if args.json:
        found = {"output": args.output, "images": made, "seconds": seconds, "seed": args.seed}
        print(json.dumps({**found, "steps": args.steps, "sampler": args.sampler, "images_per_s": made / seconds}))
    else:
        print(f"{args.output}: {made} images in {seconds:.1f} s")
    return 0


def _name(number: int) -> str:
    return f"{number:06d}.png"
