"""Random weights in place of those of torchvision's networks, for the tests of what looks through them."""

from pathlib import Path

import torch
from torch import Tensor

from difflate.metrics.backbones import BACKBONES
from difflate.seeds import torch_generator
from lazy import Lazy

models = Lazy("torchvision.models")

NETS = ("alex", "vgg")


def weights_path(net: str) -> Path:
    """Where torchvision keeps them."""
    url = getattr(models, BACKBONES[net].weights).IMAGENET1K_V1.url
    return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])


def stand_in(net: str) -> dict[str, Tensor]:
    """Random weights of the backbone's features, without the classifier, that keep the size of activations."""
    with torch.device("meta"):
        features = getattr(models, BACKBONES[net].model)(weights=None).features
    generator = torch_generator(3, 0)
    weights = {}
    for key, tensor in features.state_dict().items():
        spread = (2 / tensor[0].numel()) ** 0.5 if tensor.ndim == 4 else 0.1
        weights[f"features.{key}"] = spread * torch.randn(tensor.shape, generator=generator)
    return weights


def smooth_batch(count: int = 2, height: int = 40, width: int = 47, seed: int = 0) -> Tensor:
    """(count, 3, height, width) float32 in [-1, 1], smooth."""
    small = torch.rand(count, 3, 5, 6, generator=torch_generator(seed, 0))
    return 2 * torch.nn.functional.interpolate(small, (height, width), mode="bilinear") - 1
