"""Neural models as folders: config.json, safetensors (in shards if large) and README.md."""

import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Self, get_args, get_type_hints

import torch
from safetensors import SafetensorError
from torch import nn

from difflate import registry
from difflate.errors import ConfigError, DifflateError, LimitExceeded, ModelError
from difflate.files import atomic_write, file_mode
from difflate.store.config import CARD, CONFIG, read_config
from difflate.store.deflated import deflate_file
from difflate.store.hub import MODEL_FILES
from difflate.store.references import named, reference_to, references, resolve
from difflate.store.unfilled import Unfilled
from difflate.store.weights import (
    FORMAT,
    INT8,
    count_numbers,
    differs,
    load_weights,
    pack,
    saved_dtype,
    weight_files,
)

TEMPORARY = ".difflate-model-"
"""How the names begin of what a save that was killed leaves."""
_INDEX = "model.safetensors.index.json"
_KIND, DIGESTS = "kind", "sha256"
_SPARE_NUMBERS = 1 << 22
"""What a model may hold while it is built beside twice its weights: constants and what they are made from."""


class FolderModel(nn.Module):
    """A module whose constructor's arguments, dataclasses and plain values, are its config.json."""

    kind: str
    """What config.json calls it."""
    card: str | None = None
    """The text of README.md."""
    files_beside: Sequence[str] = ()
    """The safetensors that a folder may have beside the weights, and some of these in 8 bits from."""

    @property
    def usage(self) -> str:
        """A command that uses a model of this kind; where the kind is not registered, what loads it in Python."""
        kind = registry.KINDS.get(self.kind)
        return kind.verb if kind else f"{type(self).__name__}.from_pretrained(FOLDER)"

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, *, card: str | None = None, max_shard_size: str = "2GB",
        dtype: torch.dtype | str | None = None, refer: Mapping[str, str] | None = None, push_to_hub: bool = False,
        repo_id: str | None = None,
    ) -> str | None:  # fmt: skip
        """Writes the folder, each file complete or not there; ``card`` is the text of its README.md.

        ``dtype``: of the weights in the file: "float16" for half the size, "int8" for a quarter
        (`difflate.store.weights`); default: as they are. ``refer``: parts that are not stored but named, since they are
        a bundled model or one in a folder beside this one, unchanged: {"coder": "hyperprior-small"}.
        ``push_to_hub``: also uploads it, whole, to ``repo_id`` (default: the folder's name), and gives the address of
        what was uploaded. Raises DifflateError; ConfigError and ModelError for what cannot be referred to.
        """
        folder = Path(save_directory)
        dtype = saved_dtype(dtype)
        referred = {part: self._reference(part, name, folder) for part, name in (refer or {}).items()}
        self.card = card or self.card
        try:
            self._save_weights(folder, max_shard_size, dtype, tuple(referred))
            entries = self._save_beside(folder, tuple(referred))
        except (OSError, SafetensorError) as error:
            raise DifflateError(f"{folder}: cannot be written ({error}); choose another folder") from error
        if dtype == torch.int8:
            entries |= {FORMAT: INT8}
        digests = {path.name: digest_of(path) for path in weight_files(folder)}
        config = {**self.config_dict(), **entries, **referred, DIGESTS: digests}
        atomic_write(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
        atomic_write(folder / CARD, (self.card or self._plain_card()).encode())
        return self.push_to_hub(repo_id or folder.name) if push_to_hub else None

    def push_to_hub(
        self, repo_id: str, *, commit_message: str = "A model of Difflate", private: bool | None = None,
        token: str | None = None, branch: str | None = None, create_pr: bool | None = None,
    ) -> str:  # fmt: skip
        """Uploads the model's folder to a Hugging Face repository, which is made if it is not there; its address.

        The options are those of `huggingface_hub.HfApi`.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as name:
            self.save_pretrained(name)
            return api.upload_folder(
                repo_id=repo_id, folder_path=name, commit_message=commit_message, revision=branch, create_pr=create_pr
            )

    def _plain_card(self) -> str:
        return (
            "---\nlibrary_name: difflate\nlicense: apache-2.0\n---\n"
            f"# A model of Difflate: {self.kind}\n\n    {self.usage}\n"
        )

    def _save_beside(self, folder: Path, referred: Sequence[str]) -> dict[str, Any]:
        """Writes what a kind of model has beside its weights; gives further entries of config.json.

        ``referred``: parts that the folder does not hold.
        """
        return {}

    def names_beside(self, referred: Sequence[str] = ()) -> Set[str]:
        """Names of weights that a folder in 8 bits leaves to what `_save_beside` writes; `_load_beside` fills them."""
        return frozenset()

    def same_beside(self, other: Any) -> bool:
        """Whether ``other``, a model of the same settings, has the same beside its weights."""
        return True

    def _reference(self, part: str, name: str, folder: Path) -> dict[str, Any]:
        """The entry of config.json by which ``part`` is the model ``name``, once they were found to be the same."""
        ours = getattr(self, part, None)
        if not isinstance(ours, FolderModel):
            raise ConfigError(f"`refer` (={part}={name}): a {self.kind} model has no part {part!r} that is a model")
        unlike = {}
        for found in named(name, folder):
            theirs = type(ours).from_pretrained(found)
            unlike[found] = differs(ours, found, ours.names_beside()) if ours.same_settings(theirs) else CONFIG
            if unlike[found] is None and not ours.same_beside(theirs):
                unlike[found] = ", ".join(ours.files_beside)
            if unlike[found] is None:
                return reference_to(name, found)
        found, what = next(iter(unlike.items()))
        raise ModelError(f"{part} is not the model in {found} ({what}); save it whole, without refer")

    def same_settings(self, other: "FolderModel") -> bool:
        """Whether the two have one config.json, but for what is made from weights."""
        return json.dumps(self.config_dict()) == json.dumps(other.config_dict())

    def _save_weights(
        self, folder: Path, max_shard_size: str, dtype: torch.dtype | None, referred: Sequence[str]
    ) -> None:
        from huggingface_hub import save_torch_state_dict

        folder.mkdir(parents=True, exist_ok=True)
        beside = self.names_beside(referred) if dtype == torch.int8 else frozenset()
        state = {
            name: value
            for name, value in self.state_dict().items()
            if name.split(".")[0] not in referred and name not in beside
        }
        state = pack(state, dtype)
        with tempfile.TemporaryDirectory(dir=folder, prefix=TEMPORARY) as name:
            save_torch_state_dict(state, name, max_shard_size=max_shard_size)
            written = sorted(Path(name).iterdir())
            for path in weight_files(Path(name)) if dtype == torch.int8 else ():
                deflate_file(path)
            for path in written:
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
                path.chmod(file_mode(folder / path.name))  # safetensors writes for the owner alone
                path.replace(folder / path.name)
        for path in [*weight_files(folder), folder / _INDEX]:
            if path.name not in {p.name for p in written}:
                path.unlink(missing_ok=True)  # of a save with other shards

    def arguments(self) -> dict[str, Any]:
        """What the constructor makes another model of this shape from."""
        return {key: getattr(self, key) for key in self._argument_names()}

    def config_dict(self) -> dict[str, Any]:
        """What config.json holds."""
        given = self.arguments()
        return {_KIND: self.kind, **{k: asdict(v) if is_dataclass(v) else v for k, v in given.items()}}  # type: ignore

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, cache_dir: str | Path | None = None,
        force_download: bool = False, local_files_only: bool = False, token: str | bool | None = None,
    ) -> Self:  # fmt: skip
        """The model in a folder, or in a Hugging Face repository, which is fetched unless ``local_files_only``.

        The options are those of `huggingface_hub.snapshot_download`. Raises ModelError if a file is missing, damaged,
        or not of this kind.
        """
        folder = Path(name)
        try:
            if not folder.is_dir():
                from huggingface_hub import snapshot_download  # slow to import, and a folder needs none of it

                fetched = snapshot_download(
                    str(name), revision=revision, cache_dir=cache_dir, force_download=force_download, token=token,
                    local_files_only=local_files_only, allow_patterns=MODEL_FILES,
                )  # fmt: skip
                folder = Path(fetched)
            return cls._from_folder(folder)
        except ConfigError as error:
            raise ModelError(f"{folder / CONFIG}: {error}; get the folder again") from error
        except (SafetensorError, OSError, TypeError, AttributeError, LookupError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{name}: cannot be loaded ({reason}); get the folder again") from error

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The model in a folder. Raises ModelError if a file is missing, damaged, or not of this kind."""
        return cls.from_pretrained(folder)

    @classmethod
    def _from_folder(cls, folder: Path) -> Self:
        config = read_config(folder)
        if config.get(_KIND) != cls.kind:
            raise ModelError(f"{folder}: kind (={config.get(_KIND)}) must be {cls.kind}; name a folder of that kind")
        arguments = cls._arguments_in(folder, config)
        parts = {part: resolve(part, entry, folder) for part, entry in references(config).items()}
        stored = sum(count_numbers(place, cls.files_beside) for place in (folder, *parts.values()))
        try:
            with Unfilled(_SPARE_NUMBERS + 2 * stored):
                model = cls(**arguments)
        except LimitExceeded as error:
            raise ModelError(f"{folder}: the weights do not fit {CONFIG} ({error}); get the folder again") from error
        beside = model.names_beside(tuple(parts))
        load_weights(model, folder, config.get(FORMAT), lambda name: name.split(".")[0] not in parts, beside)
        for file, digest in (config.get(DIGESTS) or {}).items():
            if not (folder / file).is_file() or digest_of(folder / file) != digest:
                raise ModelError(f"{folder}: {file} is not what the model was saved with; get the folder again")
        for part, place in parts.items():
            model._take_part(part, place, folder)
        model._load_beside(folder, tuple(parts))
        card = folder / CARD
        model.card = card.read_text("utf-8", "replace") if card.is_file() else None
        return model.eval()

    @classmethod
    def _arguments_in(cls, folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
        """What the config.json of ``folder`` gives the constructor."""
        hints = get_type_hints(cls.__init__)
        return {key: _decode_argument(hints[key], config[key]) for key in cls._argument_names() if key in config}

    def _take_part(self, part: str, place: Path, folder: Path) -> None:
        """Puts the model in ``place`` in the place of ``part``."""
        ours = getattr(self, part, None)
        if not isinstance(ours, FolderModel):
            raise ModelError(f"{folder / CONFIG}: {part} is no part of a {self.kind} model; get the folder again")
        theirs = type(ours)._from_folder(place)
        if not ours.same_settings(theirs):
            raise ModelError(f"{folder}: {CONFIG} does not fit its {part} in {place}; get the folder again")
        setattr(self, part, theirs)

    def _load_beside(self, folder: Path, referred: Sequence[str]) -> None:
        """Reads what `_save_beside` has written."""

    @classmethod
    def _argument_names(cls) -> list[str]:
        return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]


def _decode_argument(hint: Any, value: Any) -> Any:
    """``value`` of config.json as a constructor takes it: a dataclass where ``hint`` says so, without unknown keys."""
    kinds = get_args(hint) or (hint,)
    kind = next((kind for kind in kinds if is_dataclass(kind)), None)
    if kind is None or (value is None and type(None) in kinds):
        return value
    known = {field.name for field in fields(kind)}
    return kind(**{key: entry for key, entry in value.items() if key in known})  # type: ignore[operator]


def digest_of(path: Path) -> str:
    """Of a file, as config.json has it under `DIGESTS`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
