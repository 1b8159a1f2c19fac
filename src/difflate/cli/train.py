"""`difflate train CONFIG key=value…`."""

import argparse
import logging
import shlex
import sys
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "train",
        help="train a codec from a configuration",
        description="Train from a YAML configuration. Each of its keys can be set on the command line as key=value; "
        "lists\nare written [a,b]. Needs pip install 'difflate[train]'.",
        epilog="examples:\n  difflate train configs/opq-32-8-8.yaml images=photos/ out=runs/mine\n"
        "  difflate train configs/vq-8-8-8.yaml images=photos/ --dry-run",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="for instance configs/opq-32-8-8.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for instance images=photos/ out=runs/mine")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains what the configuration says; prints the model's folder."""
    from difflate.errors import ConfigError
    from difflate.files import check_output
    from difflate.train import vq
    from difflate.train.config import read_recipe, read_settings, write_settings

    recipe = read_recipe(args.config)
    if recipe != "vq":
        raise ConfigError(f"{args.config}: recipe (={recipe}) is unknown; known: vq")
    settings = read_settings(vq.VqTraining, args.config, args.overrides)
    if args.dry_run:
        for key, value in vars(settings).items():
            print(f"{key}: {value}")
        return 0
    check_output(Path(settings.out) / "training.yaml", force=True)  # before hours of work
    interactive = sys.stderr.isatty()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if not interactive:  # where there is no progress bar
        logging.getLogger("difflate").setLevel(logging.INFO)
    command = shlex.join(["difflate", "train", str(args.config), *args.overrides])
    out = vq.run(settings, command, progress=interactive)
    write_settings(settings, recipe, out / "training.yaml")
    print(out)
    return 0
