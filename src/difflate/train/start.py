"""Trainings that start from the weights of a trained model."""

import logging
from pathlib import Path
from typing import TypeVar

from difflate.errors import ConfigError, ModelError
from difflate.store.folders import FolderModel
from difflate.store.hub import model_folder

log = logging.getLogger(__name__)

Model = TypeVar("Model", bound=FolderModel)


def take_weights(model: Model, name: str, key: str) -> tuple[Path, Model]:
    """(folder, the model in it): of the folder ``name``, or bundled under that name; ``model`` has its weights now.

    Raises ConfigError if there is none, with the ``key`` that named it, and ModelError for one of another shape.
    """
    folder = model_folder(name)
    if folder is None:
        raise ConfigError(f"{key} (={name}): no such folder; name the folder of a model")
    source = type(model).from_pretrained(folder)
    try:
        model.load_state_dict(source.state_dict())
    except RuntimeError as error:
        raise ModelError(f"{folder}: is a network of another shape than the one to train; change `network`") from error
    return folder, source


def take_fitting(model: FolderModel, source: type[FolderModel], name: str, key: str) -> None:
    """Gives ``model`` the weights that it shares, by their names and shapes, with the model of the class ``source`` in
    the folder ``name``, or bundled under that name. Of kernels that see more channels here, the first are taken and the
    rest are 0.

    Raises ConfigError if there is no such model, or nothing of it fits.
    """
    folder = model_folder(name)
    if folder is None:
        raise ConfigError(f"{key} (={name}): no such folder; name the folder of a model")
    theirs = source.from_pretrained(folder).state_dict()
    ours = model.state_dict()
    taken = 0
    for weight, value in ours.items():
        given = theirs.get(weight)
        if given is None or given.ndim != value.ndim or given.dtype != value.dtype:
            continue
        if given.shape == value.shape:
            value.copy_(given)
        elif given.ndim == 4 and given.shape[0] == value.shape[0] and given.shape[2:] == value.shape[2:]:
            shared = min(given.shape[1], value.shape[1])
            value.zero_()
            value[:, :shared].copy_(given[:, :shared])
        else:
            continue
        taken += 1
    if not taken:
        raise ConfigError(f"{key} (={name}): none of its weights fit this model; name one with the same network")
    log.info("%d of %d weights are those of %s", taken, len(ours), folder.name)
