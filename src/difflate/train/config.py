"""Typed settings from a YAML file and `key=value` overrides."""

import dataclasses
import json
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difflate.errors import ConfigError
from difflate.extras import require
from difflate.files import atomic_write


def read_recipe(config: Path) -> str:
    """The name of the recipe that a configuration file is for. Raises ConfigError."""
    name = _read_yaml(config).get("recipe")
    if not isinstance(name, str):
        raise ConfigError(f"{config}: has no key recipe; it says what to train, e.g. recipe: vq")
    return name


def read_settings(settings_class: type, config: Path, overrides: Sequence[str]) -> Any:
    """``settings_class`` filled from the YAML file ``config``, then from ``overrides`` like ``bits=[24,8,8]``.

    A field with the metadata ``kinds`` is a list of entries with a `name` and a `kind`, the classes of which it gives:
    ``stages.NAME.key=value`` or ``stages.0.key=value`` sets a key of one, ``stages.NAME=null`` leaves it out.
    Raises ConfigError that names the wrong key.
    """
    values = _read_yaml(config)
    values.pop("recipe", None)
    fields = {field.name: field for field in dataclasses.fields(settings_class)}
    kinds = {name: field.metadata["kinds"] for name, field in fields.items() if field.metadata}
    lists = {name: entries for name in kinds if isinstance(entries := values.get(name), list)}
    listed = {entry.get("name"): name for name in lists for entry in lists[name] if isinstance(entry, dict)}
    own: list[tuple[str, str]] = []
    inner: dict[str, list[tuple[str, str]]] = {name: [] for name in kinds}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r} must be written key=value")
        if key == "recipe":
            raise ConfigError(f"recipe (={value}) is what {config} is for; choose another configuration")
        first, dot, rest = key.partition(".")
        if first in listed and first not in fields:
            raise ConfigError(f"{key} (={value}) is a key of an entry of a list; write {listed[first]}.{override}")
        if first in kinds and not dot:
            raise ConfigError(f"{key} (={value}) is a list; set a key of one of its entries, {key}.NAME.key=value")
        (inner[first] if first in kinds else own).append((rest if first in kinds else key, value))
    converted = {n: _convert_entries(config, n, values.pop(n, None), kinds[n], inner[n]) for n in kinds}
    return settings_class(**_convert(settings_class, str(config), values, own, skip=set(kinds)), **converted)


def _convert(
    settings_class: type, where: str, values: dict[str, Any], overrides: list[tuple[str, str]], skip: set[str]
) -> dict[str, Any]:
    """Arguments of ``settings_class``, converted to the types of its fields, but for those in ``skip``."""
    for key, value in overrides:
        _check_key(settings_class, key, value)
    jsonargparse = require("jsonargparse", "train")
    parser = jsonargparse.ArgumentParser(exit_on_error=False, prog="difflate train")
    parser.add_class_arguments(settings_class, as_group=False, skip=skip)
    parser.add_argument("--config", action="config")
    arguments = [f"--config={as_yaml(values)}"]
    arguments += [f"--{key}={_as_list(settings_class, key, value)}" for key, value in overrides]
    try:
        instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # what older versions have
        parsed = instantiate(parser.parse_args(arguments))
    except (jsonargparse.ArgumentError, TypeError, KeyError, ValueError) as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from error
    return {key: value for key, value in vars(parsed).items() if key != "config"}


def _check_key(settings_class: type, key: str, value: str) -> None:
    """Raises ConfigError for a key that ``settings_class`` does not have, abbreviated ones too."""
    at: Any = settings_class
    for place, part in enumerate(key.split(".")):
        if not dataclasses.is_dataclass(at):
            return  # a dictionary's keys are free, and jsonargparse knows what else there is
        known = [field.name for field in dataclasses.fields(at)]
        if part not in known:
            above = ".".join(key.split(".")[:place])
            raise ConfigError(f"{key} (={value}): {above or 'the recipe'} has no key {part}; it has {', '.join(known)}")
        hint = typing.get_type_hints(at)[part]
        at = next((cls for cls in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(cls)), None)


def _convert_entries(
    config: Path, list_name: str, entries: Any, kinds: dict[str, type], overrides: list[tuple[str, str]]
) -> list[Any]:
    entries = [] if entries is None else entries
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{config}: {list_name} must be a list of entries with a name and a kind")
    names = [str(entry.get("name", number)) for number, entry in enumerate(entries)]
    own: list[list[tuple[str, str]] | None] = [[] for _ in entries]
    for key, value in overrides:
        name, dot, rest = key.partition(".")
        known = {**{str(number): number for number in range(len(names))}, **{n: i for i, n in enumerate(names)}}
        if name not in known:
            raise ConfigError(f"{list_name}.{key} (={value}): there is no {name}; there are {', '.join(names)}")
        if not dot and value != "null":
            raise ConfigError(f"{list_name}.{key} (={value}) must be null, or set a key: {list_name}.{name}.key=value")
        chosen = own[known[name]]
        if not dot:
            own[known[name]] = None
        elif chosen is not None:
            chosen.append((rest, value))
    typed = []
    for name, entry, changes in zip(names, entries, own, strict=True):
        if changes is None:
            continue
        where, kind = f"{list_name}.{name}", entry.get("kind")
        if kind not in kinds:
            raise ConfigError(f"{config}: {where}.kind (={kind}) must be one of {', '.join(kinds)}")
        try:
            typed.append(kinds[kind](**_convert(kinds[kind], str(config), entry, changes, skip=set())))
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
    return typed


def _read_yaml(config: Path) -> dict[str, Any]:
    yaml = require("yaml", "train")
    try:
        loaded = yaml.safe_load(config.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{config}: no such file; configurations are in configs/") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{config}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{config}: has no key recipe; it says what to train, e.g. recipe: vq")
    return loaded


def _as_list(settings_class: type, key: str, value: str) -> str:
    """A single value for a key that holds a list is a list of one: images=FOLDER."""
    annotation = str(typing.get_type_hints(settings_class).get(key, ""))
    if annotation.startswith("list[str]") and not value.startswith("["):
        return "[" + ",".join(repr(v) for v in value.split(",")) + "]"
    return value


TRAINING = "training.yaml"
"""File in a model's folder: the settings that it was trained with."""


def plain_settings(settings: Any, recipe: str) -> dict[str, Any]:
    """The settings of a training as plain values, those of JSON and YAML."""
    return {"recipe": recipe, **_without_calls(json.loads(json.dumps(dataclasses.asdict(settings))))}


def _without_calls(values: Any) -> Any:
    """``values`` without the keys that are of one call, not of the training, at any depth."""
    if isinstance(values, list):
        return [_without_calls(value) for value in values]
    if isinstance(values, dict):
        return {key: _without_calls(value) for key, value in values.items() if key not in ("force", "resume")}
    return values


def as_yaml(settings: dict[str, Any]) -> str:
    """`plain_settings` as YAML that `read_settings` reads again."""
    yaml = require("yaml", "train")

    class Dumper(yaml.SafeDumper):
        """Lists in one line, as they are written on the command line."""

    Dumper.add_representer(list, lambda dumper, v: dumper.represent_sequence("tag:yaml.org,2002:seq", v, True))
    return yaml.dump(settings, Dumper=Dumper, sort_keys=False)


def write_settings(settings: dict[str, Any], folder: Path) -> None:
    """Writes `plain_settings` into the model's ``folder``."""
    atomic_write(folder / TRAINING, as_yaml(settings).encode())
