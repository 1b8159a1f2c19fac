"""What a training has written into its folder, and removes."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from difflate.errors import ModelError
from difflate.files import TEMPORARY_FILES
from difflate.store.config import CARD, CONFIG
from difflate.store.folders import TEMPORARY
from difflate.store.weights import pack, unpack, weight_files
from difflate.train import checkpoint

CHECKPOINTS, PICTURES, LOG = "checkpoints", "pictures", "log"
"""Folders in `out`."""


def clear(out: Path) -> None:
    """Removes what a training has written into ``out``, and nothing else."""
    checkpoint.remove_all(out / CHECKPOINTS)
    own = [*(out / LOG).rglob("events.out.tfevents.*"), *(out / PICTURES).glob("step-*.png")]
    for path in [*own, *weight_files(out), out / CONFIG, out / CARD]:
        path.unlink(missing_ok=True)


def remove_unfinished(out: Path) -> None:
    """Removes what a training that was killed was writing."""
    for left in out.glob(f"{TEMPORARY}*"):
        shutil.rmtree(left)
    for folder in (out, out / CHECKPOINTS, out / PICTURES):
        for left in folder.glob(TEMPORARY_FILES):
            left.unlink()


def holds_model(out: Path, model: Any, dtype: torch.dtype) -> bool:
    """Whether the model folder ``out`` is complete and has the weights of ``model``, saved as ``dtype``.

    A kill between the last checkpoint and the model folder leaves an older model there, or none.
    """
    try:
        saved = type(model).from_pretrained(out)
    except (ModelError, SafetensorError):
        return False
    beside = model.names_beside() if dtype == torch.int8 else frozenset()
    theirs = {name: value for name, value in saved.state_dict().items() if name not in beside}
    state = {name: value.detach().cpu() for name, value in model.state_dict().items() if name not in beside}
    ours = unpack(pack(state, dtype))
    same = (torch.equal(theirs[name], value.to(theirs[name].dtype)) for name, value in ours.items())
    whole = (out / CARD).exists() and ours.keys() == theirs.keys() and all(same)
    return whole and (not beside or model.same_beside(saved))
