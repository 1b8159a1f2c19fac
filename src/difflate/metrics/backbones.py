"""The networks of torchvision that metrics look through, read from its cache as tensors only; nothing is downloaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from difflate.errors import ConfigError
from difflate.extras import require
from difflate.nn.pretrained import read_tensors, torchvision_file

Net = Literal["alex", "vgg"]


@dataclass(frozen=True)
class Backbone:
    """A network of torchvision, and where metrics look into it."""

    title: str
    model: str
    """The function of torchvision.models that makes it."""
    weights: str
    """The enum of torchvision.models that names the weights the metrics were calibrated with."""
    layers: tuple[int, ...]
    """Indices in its ``features`` of the last ReLU of each of the five stages."""
    channels: tuple[int, ...]
    """How many features there are in each."""
    min_side_px: int
    """What leaves one feature in the last stage."""


BACKBONES: dict[str, Backbone] = {
    "alex": Backbone("AlexNet", "alexnet", "AlexNet_Weights", (1, 4, 7, 9, 11), (64, 192, 384, 256, 256), 31),
    "vgg": Backbone("VGG16", "vgg16", "VGG16_Weights", (3, 8, 15, 22, 29), (64, 128, 256, 512, 512), 16),
}


def load_features(net: Net, metric: str) -> nn.Sequential:
    """The layers of the backbone up to the last that is looked at, in float32 on the CPU, for ``metric`` (its name).

    The weights are taken from the cache of torch.hub, where torchvision puts them. Raises ConfigError if torchvision
    or the weights are missing, or if the file holds something else.
    """
    backbone, (path, url) = BACKBONES[net], weights_file(net)
    advice = f"download {url} to that place"
    if not path.is_file():
        raise ConfigError(f"{path}: the weights of {backbone.title}, which {metric} needs, are not there; {advice}")
    models = require("torchvision.models", "eval")
    with torch.device("meta"):  # neither memory nor random numbers for what is overwritten, or for the classifier
        features = getattr(models, backbone.model)(weights=None).features[: backbone.layers[-1] + 1]
    wanted = {f"features.{key}": tensor.shape for key, tensor in features.state_dict().items()}
    weights = read_tensors(path, wanted, f"{advice} again")
    features.load_state_dict({key.removeprefix("features."): tensor for key, tensor in weights.items()}, assign=True)
    return features


def weights_file(net: Net) -> tuple[Path, str]:
    """(where torchvision keeps the weights of the backbone, their address). Raises ConfigError without torchvision."""
    return torchvision_file(BACKBONES[net].weights, "eval")


def packaged_tensors(name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """`read_tensors` of the file ``name`` that torchmetrics has among its functions of images."""
    package = Path(cast(str, require("torchmetrics", "eval").__file__)).parent
    return read_tensors(package / "functional/image" / name, shapes, "install torchmetrics 1.9")


def batch_of(pixels: np.ndarray, like: Tensor) -> Tensor:
    """(1, 3, H, W) in [-1, 1], of the dtype and on the device of ``like``, of ``pixels: (1 or 3, H, W)`` uint8."""
    # copied, for the pixels of a Picture cannot be written to, of which torch warns
    return torch.tensor(pixels, device=like.device).expand(3, -1, -1)[None].to(like.dtype) / 127.5 - 1
