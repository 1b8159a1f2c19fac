"""What the commands' arguments share: paths, names, devices, and the flags of what codecs can be told."""

import argparse
import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from difflate import registry
from difflate.errors import ConfigError
from difflate.options import Options, type_of

Side = Literal["encoding", "decoding"]


def input_path(text: str) -> Path:
    """A path of the command line. Raises ArgumentTypeError if it is empty, as an unset variable of a script is."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a file, a folder or -")
    return Path(text)


def name_of(text: str) -> str:
    """The name or folder of a model. Raises ArgumentTypeError if it is empty."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a model or its folder")
    return text


def output_path(text: str) -> str:
    """An output of the command line: text, because a Path loses the / at the end of a folder's name."""
    return str(input_path(text)) + ("/" if text.endswith(("/", os.sep)) else "")


def add_download_option(parser: argparse.ArgumentParser) -> None:
    """Adds --allow-download, which alone lets a command use the network."""
    parser.add_argument(
        "--allow-download", action="store_true", help="fetch the model of a Hugging Face repository if it is not here"
    )


def add_overlay_option(parser: argparse.ArgumentParser) -> None:
    """Adds --overlay, the curves of others in the page of a report."""
    parser.add_argument(
        "--overlay",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="draw the curve of others beside those of the codecs in the page: a result file of CompressAI; may be "
        "given several times",
    )


def flag_of(name: str) -> str:
    """The flag of an option: ``tile_px`` is --tile."""
    return "--" + name.removesuffix("_px").replace("_", "-")


def add_codec_options(parser: argparse.ArgumentParser, side: Side) -> None:
    """Adds a flag for each option that any kind of codec has for encoding, or decoding."""
    for name, (field, cls, kinds) in _codec_options(side).items():
        every = len(kinds) == len(registry.codec_kinds())
        help = field.metadata["help"] if every else f"{', '.join(kinds)}: {field.metadata['help']}"
        if field.metadata["hint"]:
            help += f" (default: as the {'model' if side == 'encoding' else 'file'} says)"
        _add_flag(parser, flag_of(name), field, cls, help)


def add_options(parser: argparse.ArgumentParser, cls: type[Options], flags: Mapping[str, str]) -> None:
    """Adds those options of ``cls`` that are named in ``flags``, under the flags there."""
    for field in dataclasses.fields(cls):
        if field.name in flags:
            _add_flag(parser, flags[field.name], field, cls, field.metadata["help"])


def _add_flag(
    parser: argparse.ArgumentParser, flag: str, field: dataclasses.Field, cls: type[Options], help: str
) -> None:
    value_type = type_of(cls, field.name)
    if value_type is bool:  # False would be an option that is given
        parser.add_argument(flag, action="store_true", default=None, dest=field.name, help=help)
    else:
        parse = name_of if value_type is str and not field.metadata["words"] else value_type
        parser.add_argument(flag, type=parse, metavar=field.metadata["metavar"], dest=field.name, help=help)


def codec_options(args: argparse.Namespace, side: Side) -> dict[str, Any]:
    """The options that `add_codec_options` has added and that were given."""
    values = {name: getattr(args, name) for name in _codec_options(side)}
    return {name: value for name, value in values.items() if value is not None}


def _codec_options(side: Side) -> dict[str, tuple[dataclasses.Field, type[Options], list[str]]]:
    """Name to the field, a class that has it, and the kinds of codecs that take it."""
    options: dict[str, tuple[dataclasses.Field, type[Options], list[str]]] = {}
    for kind in registry.codec_kinds():
        cls = getattr(kind, side)
        for field in dataclasses.fields(cls):
            options.setdefault(field.name, (field, cls, []))[2].append(kind.name)
    return options


@contextlib.contextmanager
def spelled_as_flags() -> Iterator[None]:
    """Errors about `tile_px`, as Python calls it, speak of --tile."""
    try:
        yield
    except ConfigError as error:
        raise as_flags(error) from error


def as_flags(error: Exception) -> Exception:
    """``error``, which if it is about `tile_px` speaks of --tile."""
    if not isinstance(error, ConfigError):
        return error
    return type(error)(re.sub(r"`(\w+)`", lambda name: flag_of(name[1]), str(error)))
