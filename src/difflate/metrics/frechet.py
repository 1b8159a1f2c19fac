"""FID and KID: how far two sets of images are from each other in the features of a network.

Fréchet Inception distance (Heusel et al. 2017) and kernel Inception distance (Bińkowski et al. 2018), both computed by
torchmetrics, of features that the network extracts once for both. docs/metrics.md has the protocol.
"""

import hashlib
import io
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from difflate.errors import ConfigError
from difflate.extras import require
from difflate.seeds import Stream, torch_generator

FEATURES = "2048"
"""The layer of the Inception network, by the name of torch-fidelity: after the last pooling."""
KID_SUBSETS = 100
KID_SUBSET = 1000
"""Images of a subset; fewer if a set has fewer."""


@dataclass(frozen=True)
class Kid:
    """A kernel Inception distance."""

    mean: float
    """Mean over the subsets; unbiased, so that it can be below 0."""
    std: float
    """Standard deviation over the subsets; 0 if there is one."""
    subsets: int
    subset_images: int


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
    return network("inception-v3-compat", [FEATURES], file, antialias=False)


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


def features_of(
    images: Tensor, network: nn.Module, batch: int = 64, progress: Callable[[int], object] | None = None
) -> Tensor:
    """(N, D) float32 on the CPU: what ``network`` makes of ``images: (N, 3, H, W)`` uint8, on the network's device.

    ``progress`` is called with the number of images of each batch.
    """
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    parts = []
    with torch.inference_mode():
        for some in images.split(batch):
            parts.append(network(some.to(device)).float().cpu())
            if progress is not None:
                progress(len(some))
    return torch.cat(parts)


def fid(samples: Tensor, reference: Tensor) -> float:
    """The Fréchet distance of two normal distributions with the means and covariances of the features, in float64.

    ``samples: (N, D)``, ``reference: (M, D)``. Raises ConfigError if a set has fewer than 2 images.
    """
    _check(samples, reference)
    metric = require("torchmetrics.image.fid", "eval").FrechetInceptionDistance(_Given(samples.shape[1]))
    metric.update(reference.double(), real=True)
    metric.update(samples.double(), real=False)
    return float(metric.compute())


def kid(samples: Tensor, reference: Tensor, seed: int = 0) -> Kid:
    """The squared maximum mean discrepancy under the kernel (x·y / D + 1)³, without bias.

    ``samples: (N, D)``, ``reference: (M, D)``. The mean of 100 random subsets of 1000 images of each set, or of as many
    as the smaller one has; a single subset if that is all of both. Raises ConfigError if a set has fewer than 2 images.
    """
    _check(samples, reference)
    size = min(len(samples), len(reference), KID_SUBSET)
    subsets = 1 if size == max(len(samples), len(reference)) else KID_SUBSETS
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all extracted features")
        cls = require("torchmetrics.image.kid", "eval").KernelInceptionDistance
        metric = cls(_Given(samples.shape[1]), subsets=subsets, subset_size=size)
    metric.update(reference.double(), real=True)
    metric.update(samples.double(), real=False)
    # the subsets are drawn from torch's global generator
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch_generator(seed, Stream.KERNEL_DISTANCE).get_state())
        mean, std = metric.compute()
    return Kid(float(mean), float(std), subsets, size)


def _check(samples: Tensor, reference: Tensor) -> None:
    if min(len(samples), len(reference)) < 2:
        raise ConfigError(f"FID and KID need 2 images or more in each set, not {len(samples)} and {len(reference)}")


class _Given(nn.Identity):
    """In place of a network: torchmetrics gets features that are there already."""

    def __init__(self, count: int):
        super().__init__()
        self.num_features = count  # otherwise the metric shows the module an image, to count
