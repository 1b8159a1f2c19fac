"""Weights that others have trained, read as tensors only: those in the cache of torchvision, those in packages."""

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from difflate.errors import ConfigError
from difflate.extras import require

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Of R, G and B in 0…1, which is subtracted from what torchvision's networks see."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""What it is then divided by."""


def torchvision_file(weights: str, extra: str) -> tuple[Path, str]:
    """(where torchvision keeps them, their address) of the ImageNet weights that torchvision.models calls ``weights``.

    Raises ConfigError, with the ``extra`` to install, without torchvision.
    """
    url: str = getattr(require("torchvision.models", extra), weights).IMAGENET1K_V1.url
    return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2]), url


def read_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]], advice: str) -> dict[str, Tensor]:
    """The tensors named in ``shapes``, as float32, from a file that may hold more, in that order.

    Raises ConfigError with ``advice`` for a file without them.
    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); {advice}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: damaged, or holds other things than weights; {advice}") from error
    for key, shape in shapes.items():
        tensor = held.get(key) if isinstance(held, dict) else None
        if not isinstance(tensor, Tensor) or tensor.shape != shape or not tensor.isfinite().all():
            raise ConfigError(f"{path}: has no weights {key} of the shape {tuple(shape)}; {advice}")
    return {key: held[key].float() for key in shapes}
