"""Fréchet and kernel distances: how far two sets of images are from each other in the features of a network.

In those of the Inception network they are FID (Heusel et al. 2017) and KID (Bińkowski et al. 2018). Both are computed
by torchmetrics, of features that `difflate.metrics.features` extracts. docs/metrics.md has the protocol.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from difflate.errors import ConfigError
from difflate.extras import require
from difflate.seeds import Stream, torch_generator

KERNEL_SUBSETS = 100
KERNEL_SUBSET = 1000
"""Images of a subset; fewer if a set has fewer."""


@dataclass(frozen=True)
class KernelDistance:
    """A squared maximum mean discrepancy; of Inception features the kernel Inception distance."""

    mean: float
    """Mean over the subsets; unbiased, so that it can be below 0."""
    std: float
    """Standard deviation over the subsets; 0 if there is one."""
    subsets: int
    subset_images: int


def frechet_distance(samples: Tensor, reference: Tensor) -> float:
    """The Fréchet distance of two normal distributions with the means and covariances of the features, in float64.

    ``samples: (N, D)``, ``reference: (M, D)``. Raises ConfigError if a set has fewer than 2 images.
    """
    _check(samples, reference)
    metric = require("torchmetrics.image.fid", "eval").FrechetInceptionDistance(_Given(samples.shape[1]))
    metric.update(reference.double(), real=True)
    metric.update(samples.double(), real=False)
    return float(metric.compute())


def kernel_distance(samples: Tensor, reference: Tensor, seed: int = 0) -> KernelDistance:
    """The squared maximum mean discrepancy under the kernel (x·y / D + 1)³, without bias.

    ``samples: (N, D)``, ``reference: (M, D)``. The mean of 100 random subsets of 1000 images of each set, or of as many
    as the smaller one has; a single subset if that is all of both. Raises ConfigError if a set has fewer than 2 images.
    """
    _check(samples, reference)
    size = min(len(samples), len(reference), KERNEL_SUBSET)
    subsets = 1 if size == max(len(samples), len(reference)) else KERNEL_SUBSETS
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
    return KernelDistance(float(mean), float(std), subsets, size)


def _check(samples: Tensor, reference: Tensor) -> None:
    if min(len(samples), len(reference)) < 2:
        count = f"{len(samples)} and {len(reference)}"
        raise ConfigError(f"Fréchet and kernel distances need 2 images or more in each set, not {count}")


class _Given(nn.Identity):
    """In place of a network: torchmetrics gets features that are there already."""

    def __init__(self, count: int):
        super().__init__()
        self.num_features = count  # otherwise the metric shows the module an image, to count
