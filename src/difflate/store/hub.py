"""Finding the folder of a model: by the name of a bundled one, as a folder, or as a Hugging Face repository."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from difflate import registry
from difflate.errors import ConfigError, ModelError

MODEL_FILES = ["config.json", "README.md", "training.yaml", "*.safetensors", "*.safetensors.index.json"]
"""All that is ever fetched of a repository."""
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def bundled_models(role: registry.Role | None = None) -> dict[str, dict]:
    """Name to config.json of each model that ships with the package, or with a kind of another; of one role only."""
    models = {}
    for folder in dict.fromkeys(kind.models for kind in registry.KINDS.values()):
        for path in sorted(folder.glob("*/config.json")):
            models[path.parent.name] = json.loads(path.read_text("utf-8"))
    kinds = {name: registry.kind_of(config) for name, config in models.items()}
    return {name: models[name] for name, kind in kinds.items() if kind is not None and role in (None, kind.role)}


def bundled_folder(name: str) -> Path:
    """The folder of a bundled model. Raises KeyError."""
    kind = registry.kind_of(bundled_models()[name])
    assert kind is not None
    return kind.models / name


def model_folder(
    name: str | Path, *, allow_download: bool = False, files: Sequence[str] = MODEL_FILES
) -> Path | None:  # fmt: skip
    """The folder of a bundled model, of that name, or of a Hugging Face repository ``owner/name``; None: it is none.

    A repository is looked for in the local cache and, only if ``allow_download``, fetched: no more than ``files``, by
    default config, safetensors and card. Raises ConfigError for what is no name, ModelError if it is not in the cache,
    or cannot be fetched.
    """
    if not isinstance(name, str | os.PathLike):
        raise ConfigError(f"model (={name!r}) must be a name or a folder")
    if str(name).lower() in bundled_models():
        return bundled_folder(str(name).lower())
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not _REPOSITORY.fullmatch(str(name)):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        fetched = snapshot_download(str(name), allow_patterns=list(files), local_files_only=not allow_download)
    except LocalEntryNotFoundError as error:
        if not allow_download:
            raise ModelError(
                f"{name}: is no folder, and not in the cache of Hugging Face models; fetch it with --allow-download of "
                "the commands that have it, or allow_download=True in Python"
            ) from error
        raise ModelError(f"{name}: cannot be fetched ({_reason(error)}); check the name and the network") from error
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors
        raise ModelError(f"{name}: cannot be fetched ({_reason(error)}); check the name and the network") from error
    return Path(fetched)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
