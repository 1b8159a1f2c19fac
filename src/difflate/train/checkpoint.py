"""Checkpoints: one safetensors file each, complete or not there."""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from difflate.errors import DifflateError, ModelError
from difflate.files import atomic_path

log = logging.getLogger(__name__)

_NAME = re.compile(r"step-(\d{8,})\.safetensors")


@dataclass
class Progress:
    """What a training knows of itself beside its tensors."""

    step: int = 0
    """Steps that are done."""
    seconds: float = 0.0
    """Seconds spent on them, over all sittings."""
    skipped: int = 0
    """Images that could not be read."""
    validations: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """(step, values on held-back images, with averaged weights)."""
    finished_minutes: float = 0.0
    """The largest `max_minutes` that it was finished for."""


def latest(folder: Path) -> Path | None:
    """The newest checkpoint in ``folder``."""
    paths = _all(folder)
    return paths[-1] if paths else None


def latest_readable(folder: Path) -> tuple[Path, Progress, dict[str, Any]] | None:
    """(path, progress, settings) of the newest checkpoint in ``folder`` that is whole; None: there are none at all.

    One that is cut short is passed over with a warning. Raises ModelError if all are.
    """
    error = None
    for path in reversed(_all(folder)):
        try:
            progress, settings = read_head(path)
        except ModelError as damage:
            error = error or damage
            log.warning("%s; the checkpoint before it is looked for", str(damage).rpartition(";")[0])
            continue
        return path, progress, settings
    if error is not None:
        raise error
    return None


def save(
    folder: Path,
    keep: int,
    progress: Progress,
    settings: dict[str, Any],
    optimizers: dict[str, torch.optim.Optimizer],
    **states: dict[str, Tensor],
) -> Path:
    """Writes a checkpoint of named ``states`` and ``optimizers``, then removes all but the ``keep`` newest."""
    tensors = {f"{name}.{key}": value for name, state in states.items() for key, value in state.items()}
    for name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    path = folder / f"step-{progress.step:08d}.safetensors"
    metadata = {"progress": json.dumps(asdict(progress)), "settings": json.dumps(settings)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            save_file(tensors, str(temporary), metadata)
        for old in _all(folder)[:-keep]:
            old.unlink()
    except (OSError, SafetensorError) as error:
        raise DifflateError(f"{path}: cannot be written ({error}); make room or choose another out") from error
    return path


def remove_all(folder: Path) -> None:
    """Removes the checkpoints of ``folder``."""
    for path in _all(folder):
        path.unlink(missing_ok=True)


def read_head(path: Path) -> tuple[Progress, dict[str, Any]]:
    """(progress, settings) of a checkpoint. Raises ModelError if it is damaged."""
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata()
        return Progress(**json.loads(metadata["progress"])), json.loads(metadata["settings"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _damage_error(path, error) from error


def restore(
    path: Path, optimizers: dict[str, torch.optim.Optimizer], **loaders: Callable[[dict[str, Tensor]], object]
) -> None:
    """Gives each of ``loaders`` the state of its name in a checkpoint, and ``optimizers`` theirs.

    Raises ModelError if it is damaged or of other modules.
    """
    try:
        with safe_open(str(path), "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, load in loaders.items():
            load(_below(tensors, f"{name}."))
        for name, optimizer in optimizers.items():
            _restore_optimizer(optimizer, _below(tensors, f"{name}."))
    except (SafetensorError, OSError, RuntimeError, KeyError, ValueError, IndexError) as error:
        raise _damage_error(path, error) from error


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        like = parameters[int(index)]
        if value.shape == like.shape:  # in the parameter's own memory format, as the optimizer makes it
            value = torch.empty_like(like, dtype=value.dtype, device=like.device).copy_(value)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _below(tensors: dict[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*.safetensors") if _NAME.fullmatch(path.name))


def _damage_error(path: Path, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())[:200]
    return ModelError(
        f"{path}: is damaged or of another network ({reason}); remove it to go on from the one before, if there is one"
    )
