"""Trainings that start from the weights of a trained model."""

from pathlib import Path
from typing import TypeVar

from difflate.errors import ConfigError, ModelError
from difflate.store.folders import FolderModel
from difflate.store.hub import model_folder

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
