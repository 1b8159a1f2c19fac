"""Parts of a model that are not stored with it, because they are another model, unchanged.

A decoder that was trained for a bundled coder, or for one whose folder lies beside its own, need not hold it once more.
In the place of the tensors, config.json has for the part

    "coder": {"from": "hyperprior-small", "fingerprint": "fb72…", "sha256": {"model.safetensors": "0f6e…"}}

What it names is that very model or an error: both values are those of its own config.json, which its files are compared
with when it is loaded.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from difflate.errors import ModelError
from difflate.store.config import CONFIG, read_config
from difflate.store.hub import bundled_folder, bundled_models

FROM = "from"
_IDENTITY = ("fingerprint", "sha256")
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
"""No absolute paths and no "..": a config.json from anywhere must not reach what is elsewhere."""


def references(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The entries of config.json that name other models, by the parts that these are."""
    # `from` is no name of a setting: Python keeps the word for itself
    return {key: value for key, value in config.items() if isinstance(value, dict) and FROM in value}


def named(name: str, folder: Path) -> list[Path]:
    """Folders of the models that ``name`` may be for the model in ``folder``. Raises ModelError if there are none."""
    found = _candidates(name, folder)
    if not found:
        raise ModelError(f"{name}: is no bundled model, and no folder beside {folder}; name one that is")
    return found


def reference_to(name: str, found: Path) -> dict[str, Any]:
    """The entry of config.json for the model ``name`` in the folder ``found``. Raises ModelError."""
    config = read_config(found)
    return {FROM: name, **{key: config.get(key) for key in _IDENTITY}}


def resolve(part: str, reference: Mapping[str, Any], folder: Path) -> Path:
    """The folder of the model that config.json of ``folder`` names for its ``part``. Raises ModelError."""
    name = reference[FROM]
    found = _candidates(name, folder)
    for candidate in found:
        config = read_config(candidate)
        if all(reference.get(key) and reference[key] == config.get(key) for key in _IDENTITY):
            return candidate
    if found:
        raise ModelError(
            f"{folder}: its {part} is another {name} than that in {found[0]}; get the one that it was saved with"
        )
    raise ModelError(
        f"{folder}: its {part} is {name}, which is neither bundled nor a folder beside it; get that model too"
    )


def _candidates(name: Any, folder: Path) -> list[Path]:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ModelError(f"{folder}: {FROM} (={name!r}) must be a bundled model or the name of a folder beside it")
    beside = folder.absolute().parent / name
    found = [beside] if (beside / CONFIG).is_file() else []
    return [*found, *([bundled_folder(name)] if name in bundled_models() and bundled_folder(name) != beside else [])]
