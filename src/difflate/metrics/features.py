"""What networks see in images: the features that sets of images are compared by, an ``(N, D)`` matrix for each set."""

import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from difflate.errors import ConfigError
from difflate.extras import require
from difflate.metrics.backbones import BACKBONES, load_features
from difflate.nn.pretrained import IMAGENET_MEAN, IMAGENET_STD

INCEPTION_LAYER = "2048"
"""The layer of the Inception network, by the name of torch-fidelity: after the last pooling."""
BATCH_PX = 2**18
"""Pixels that a network looks at at once: VGG16's first stage takes 512 bytes for each."""


def inception() -> nn.Module:
    """Images ``(B, 3, H, W)`` uint8 -> ``(B, 2048)`` float32: the Inception network of 2015 that FID was defined with.

    The weights are taken from the cache of torch.hub, where torch-fidelity puts them; nothing is downloaded. Images
    are enlarged as in the original implementation. Raises ConfigError if torchmetrics, torch-fidelity or the weights
    are missing.
    """
    fidelity = require("torch_fidelity.feature_extractor_inceptionv3", "eval")
    network = require("torchmetrics.image.fid", "eval").NoTrainInceptionV3
    weights = _read_weights(fidelity.URL_INCEPTION_V3)
    # torch-fidelity unpickles whatever file it is given (weights_only=False). It is given one that was written right
    # here, from the tensors that a load with weights_only=True found.
    file = io.BytesIO()
    torch.save(weights, file)
    file.seek(0)
    return network("inception-v3-compat", [INCEPTION_LAYER], file, antialias=False)


def _read_weights(url: str) -> dict[str, Tensor]:
    """The tensors of the file that torch.hub would keep for ``url``, whose name ends in the start of its SHA-256."""
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: the weights of the Inception network, which FID and KID need, are not there; "
            f"download {url} to that place"
        ) from error
    if not hashlib.sha256(data).hexdigest().startswith(path.stem.rpartition("-")[2]):
        raise ConfigError(f"{path}: damaged, or another file than its name says; download {url} to that place again")
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{path}: holds other things than weights, which are not read; download {url} again"
        ) from error


class Vgg16Features(nn.Module):
    """Images ``(B, 3, H, W)`` uint8 -> ``(B, 512)`` float32: VGG16's conv5_3 behind its ReLU, the mean over the image.

    In the images' own size. Made by `vgg16`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: nn.Sequential):
        super().__init__()
        self.features = features
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN, dtype=torch.float32)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD, dtype=torch.float32)[:, None, None])
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Raises ConfigError as `maps`."""
        return self.maps(images).mean((2, 3))

    def maps(self, images: Tensor) -> Tensor:
        """(B, 512, H // 16, W // 16) float32: before the mean.

        Raises ConfigError for images with a side below 16 px, of which nothing is left behind four poolings.
        """
        least = BACKBONES["vgg"].min_side_px
        if min(images.shape[2:]) < least:
            size = f"{images.shape[3]}x{images.shape[2]}"
            raise ConfigError(f"images of {size} px are too small for VGG16; it needs {least} px a side")
        return self.features((images.float() / 255 - self.mean) / self.std)


def vgg16() -> Vgg16Features:
    """The network of the distances in VGG16 features, on the CPU. Raises ConfigError as `backbones.load_features`."""
    return Vgg16Features(load_features("vgg", "this comparison"))


def features_of(
    images: Tensor, network: nn.Module, batch: int | None = None, progress: Callable[[int], object] | None = None
) -> Tensor:
    """(N, D) float32 on the CPU: what ``network`` makes of ``images: (N, 3, H, W)`` uint8, on the network's device.

    ``batch``: images at a time; None: 64, fewer of large ones. ``progress`` is called with the number of images of
    each batch.
    """
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    batch = batch or max(1, min(64, BATCH_PX // images[0, 0].numel()))
    parts = []
    with torch.inference_mode():
        for some in images.split(batch):
            parts.append(network(some.to(device)).float().cpu())
            if progress is not None:
                progress(len(some))
    return torch.cat(parts)
