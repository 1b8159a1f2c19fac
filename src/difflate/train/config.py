"""Typed settings from a YAML file and `key=value` overrides."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difflate.errors import ConfigError
from difflate.extras import require
from difflate.files import atomic_write


def read_recipe(config: Path) -> str:
    """The name of the recipe that a configuration file is for. Raises ConfigError."""
    yaml = require("yaml", "train")
    try:
        loaded = yaml.safe_load(config.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{config}: no such file; configurations are in configs/") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{config}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(loaded, dict) or not isinstance(loaded.get("recipe"), str):
        raise ConfigError(f"{config}: has no key recipe; it says what to train, e.g. recipe: vq")
    return loaded["recipe"]


def read_settings(settings_class: type, config: Path, overrides: Sequence[str]) -> Any:
    """``settings_class`` filled from the YAML file ``config``, then from ``overrides`` like ``bits=[24,8,8]``.

    Raises ConfigError that names the wrong key.
    """
    jsonargparse = require("jsonargparse", "train")
    parser = jsonargparse.ArgumentParser(exit_on_error=False, prog="difflate train")
    parser.add_argument("--recipe", type=str)
    parser.add_class_arguments(settings_class, as_group=False)
    parser.add_argument("--config", action="config")
    arguments = [f"--config={config}"]
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r} must be written key=value")
        if key == "recipe":
            raise ConfigError(f"recipe (={value}) is what {config} is for; choose another configuration")
        arguments.append(f"--{key}={_as_list(settings_class, key, value)}")
    try:
        instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # what older versions have
        parsed = instantiate(parser.parse_args(arguments))
    except (jsonargparse.ArgumentError, TypeError, KeyError, ValueError) as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"{config}: {message}") from error
    values = {k: v for k, v in vars(parsed).items() if k not in ("config", "recipe")}
    return settings_class(**values)


def _as_list(settings_class: type, key: str, value: str) -> str:
    """A single value for a key that holds a list is a list of one: images=FOLDER."""
    annotation = str(settings_class.__annotations__.get(key, ""))
    if annotation.startswith("list[str]") and not value.startswith("["):
        return "[" + ",".join(repr(v) for v in value.split(",")) + "]"
    return value


TRAINING = "training.yaml"
"""In a model's folder: the resolved settings that it was trained with."""


def resolved(settings: Any, recipe: str) -> dict[str, Any]:
    """The settings of a training as plain values, those of JSON and YAML."""
    values = json.loads(json.dumps(dataclasses.asdict(settings)))
    for section in (values, values.get("training", {})):
        for key in ("force", "resume"):  # of one call, not of the training
            section.pop(key, None)
    return {"recipe": recipe, **values}


def as_yaml(settings: dict[str, Any]) -> str:
    """`resolved` settings as YAML that `read_settings` reads again."""
    yaml = require("yaml", "train")

    class Dumper(yaml.SafeDumper):
        """Lists in one line, as they are written on the command line."""

    Dumper.add_representer(list, lambda dumper, v: dumper.represent_sequence("tag:yaml.org,2002:seq", v, True))
    return yaml.dump(settings, Dumper=Dumper, sort_keys=False)


def write_settings(settings: dict[str, Any], folder: Path) -> None:
    """Writes `resolved` settings into the model's ``folder``."""
    atomic_write(folder / TRAINING, as_yaml(settings).encode())
