"""`difflate train CONFIG key=value…`."""

import argparse
import logging
import os
import shlex
import sys
from pathlib import Path


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "train",
        help="train a codec, a refiner or a generator from a configuration",
        description="Train from a YAML configuration. Each of its keys can be set on the command line as key=value; "
        "lists\nare written [a,b], keys of a stage stages.NAME.key=value. Given again, a command goes on where it\nwas "
        "interrupted. Needs pip install 'difflate[train]'.",
        epilog="examples:\n  difflate train configs/opq-32-8-8.yaml images=photos/ out=runs/mine\n"
        "  difflate train configs/vq-8-8-8.yaml images=photos/ --dry-run\n"
        "  difflate train configs/finetune-cdc-small.yaml images=photos/ stages.perceptual.training.max_minutes=30",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG", help="for instance configs/opq-32-8-8.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for instance images=photos/ out=runs/mine")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved configuration and the cost, and stop"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trains what the configuration says; prints the model's folder."""
    from difflate import registry
    from difflate.errors import ConfigError
    from difflate.files import check_output
    from difflate.train.config import TRAINING, as_yaml, plain_settings, read_recipe, read_settings

    name = read_recipe(args.config)
    if name not in registry.RECIPES:
        raise ConfigError(f"{args.config}: recipe (={name}) is unknown; known: {', '.join(registry.RECIPES)}")
    recipe = registry.recipe(name)
    settings = read_settings(recipe.settings, args.config, args.overrides)
    if args.dry_run:
        print(as_yaml(plain_settings(settings, name)), end="")
        if recipe.cost is not None:
            print(f"# {recipe.cost(settings)}")
        return 0
    check_output(Path(settings.out) / TRAINING, force=True)  # before hours of work
    first = int(os.environ.get("RANK", "0")) == 0  # of the processes that `accelerate launch` started
    interactive = sys.stderr.isatty() and first
    if not interactive and first:  # where there is no progress bar
        logging.getLogger("difflate").setLevel(logging.INFO)
    command = shlex.join(["difflate", "train", str(args.config), *args.overrides])
    out = recipe.run(settings, command, progress=interactive)
    if first:
        print(out)
    return 0
