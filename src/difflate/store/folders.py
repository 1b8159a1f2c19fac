"""Neural models as folders: config.json, safetensors (in shards if large) and README.md, by huggingface_hub's mixin."""

import hashlib
import json
import os
import re
import tempfile
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import PyTorchModelHubMixin, save_torch_state_dict, snapshot_download
from safetensors import SafetensorError, safe_open
from torch import nn

from difflate.errors import ConfigError, DifflateError, ModelError
from difflate.files import atomic_write, file_mode
from difflate.store.config import CARD, CONFIG, read_config
from difflate.store.hub import MODEL_FILES

TEMPORARY = ".difflate-model-"
"""How the names begin of what a save that was killed leaves."""
_INDEX = "model.safetensors.index.json"
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_KIND, _DIGESTS = "kind", "sha256"


class FolderModel(nn.Module, PyTorchModelHubMixin, library_name="difflate", license="apache-2.0"):
    """A module whose constructor's arguments, dataclasses and plain values, are its config.json."""

    kind: str
    """What config.json calls it."""
    usage: str
    """A command that uses a model of this kind, for its card."""
    card: str | None = None
    """The text of README.md."""

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, *, card: str | None = None, max_shard_size: str = "2GB",
        dtype: torch.dtype | None = None, **options: Any,
    ) -> str | None:  # fmt: skip
        """Writes the folder, each file complete or not there; ``card`` is the text of its README.md.

        ``dtype``: of the weights in the file, for instance torch.float16 for half the size; default: as they are.

        ``options`` are those of the mixin, ``push_to_hub=True`` and ``repo_id`` among them. Raises DifflateError.
        """
        folder = Path(save_directory)
        options.setdefault("repo_id", folder.name)
        self.card = card or self.card
        try:
            self._save_weights(folder, max_shard_size, dtype)
            entries = self._save_beside(folder)
        except (OSError, SafetensorError) as error:
            raise DifflateError(f"{folder}: cannot be written ({error}); choose another folder") from error
        digests = {path.name: _digest(path) for path in weight_files(folder)}
        config = {**self.config_dict(), **entries, _DIGESTS: digests}
        atomic_write(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
        atomic_write(folder / CARD, (self.card or str(self.generate_model_card())).encode())
        if options.pop("push_to_hub", False):
            return self.push_to_hub(**options)
        return None

    def _save_beside(self, folder: Path) -> dict[str, Any]:
        """Writes what a kind of model has beside its weights; gives further entries of config.json."""
        return {}

    def _save_weights(self, folder: Path, max_shard_size: str, dtype: torch.dtype | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        state = self.state_dict()
        if dtype is not None:
            state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
        with tempfile.TemporaryDirectory(dir=folder, prefix=TEMPORARY) as name:
            save_torch_state_dict(state, name, max_shard_size=max_shard_size)
            written = sorted(Path(name).iterdir())
            for path in written:
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
                path.chmod(file_mode(folder / path.name))  # safetensors writes for the owner alone
                path.replace(folder / path.name)
        for path in [*weight_files(folder), folder / _INDEX]:
            if path.name not in {p.name for p in written}:
                path.unlink(missing_ok=True)  # of a save with other shards

    def config_dict(self) -> dict[str, Any]:
        """What config.json holds."""
        given = {key: getattr(self, key) for key in self._hub_mixin_init_parameters if key != "self"}
        return {_KIND: self.kind, **{k: asdict(v) if is_dataclass(v) else v for k, v in given.items()}}  # type: ignore

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> Self:  # type: ignore[override]
        """The model in a folder, or in a Hugging Face repository, which is fetched unless ``local_files_only=True``.

        ``options`` are those of the mixin. Raises ModelError if a file is missing, damaged, or not of this kind.
        """
        if Path(name).is_dir():
            cls._check_kind(Path(name))
        try:
            return super().from_pretrained(name, **options)
        except ConfigError as error:
            raise ModelError(f"{Path(name) / CONFIG}: {error}; get the folder again") from error
        except (SafetensorError, OSError, TypeError, AttributeError, LookupError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{name}: cannot be loaded ({reason}); get the folder again") from error

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The model in a folder. Raises ModelError if a file is missing, damaged, or not of this kind."""
        return cls.from_pretrained(folder)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None, cache_dir: str | Path | None, force_download: bool,
        local_files_only: bool, token: str | bool | None, **arguments: Any,
    ) -> Self:  # fmt: skip
        folder = Path(model_id)
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    model_id, revision=revision, cache_dir=cache_dir, force_download=force_download, token=token,
                    local_files_only=local_files_only, allow_patterns=MODEL_FILES,
                )
            )  # fmt: skip
            cls._check_kind(folder)
        with torch.device("meta"):
            load_weights(cls(**arguments), folder)  # compares, before anything is allocated
        model = cls(**arguments)
        load_weights(model, folder)
        for file, digest in (read_config(folder).get(_DIGESTS) or {}).items():
            if not (folder / file).is_file() or _digest(folder / file) != digest:
                raise ModelError(f"{folder}: {file} is not what the model was saved with; get the folder again")
        model._load_beside(folder)
        card = folder / CARD
        model.card = card.read_text("utf-8", "replace") if card.is_file() else None
        return model.eval()

    def _load_beside(self, folder: Path) -> None:
        """Reads what `_save_beside` has written."""

    @classmethod
    def _check_kind(cls, folder: Path) -> None:
        found = read_config(folder).get(_KIND)
        if found != cls.kind:
            raise ModelError(f"{folder}: kind (={found}) must be {cls.kind}; name a folder of that kind")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights: model.safetensors or its shards, and no other."""
    return sorted(path for path in folder.glob("model*.safetensors") if _WEIGHTS.fullmatch(path.name))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_weights(module: nn.Module, folder: Path) -> None:
    """Puts the folder's weights into ``module``, after their names and shapes have been compared.

    Only `weight_files` are opened, and as safetensors only: the index of shards, a file from anywhere, could name
    others. Raises ModelError if they are missing or do not fit, SafetensorError if they are damaged.
    """
    paths = weight_files(folder)
    if not paths:
        raise ModelError(f"{folder}: model.safetensors is missing; get the model folder again")
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found: dict[str, tuple[int, ...]] = {}
    for path in paths:
        with safe_open(str(path), "pt") as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    if found != wanted:
        names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        raise ModelError(f"{folder}: the weights do not fit {CONFIG} ({names[0]}); get the folder again")
    if next((value.is_meta for value in module.state_dict().values()), True):
        return  # it was only to be compared
    for path in paths:
        with safe_open(str(path), "pt") as file:
            module.load_state_dict({name: file.get_tensor(name) for name in file.keys()}, strict=False)  # noqa: SIM118
