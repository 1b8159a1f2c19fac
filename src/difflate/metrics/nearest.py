"""The nearest training image of each sample: whether a generator copies what it was trained on.

Images are compared by their VGG16 features if the weights are there, otherwise by their pixels at 32x32 px, mirrored
or not. Real images that the training has not seen show how near a neighbour is by chance. docs/metrics.md has the
protocol.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.data.items import Item, unreadable
from difflate.errors import ConfigError
from difflate.generate.grid import grid_scale, image_grid
from difflate.metrics.backbones import weights_file
from difflate.metrics.features import Vgg16Features, features_of, vgg16
from difflate.metrics.sets import ImageSet, read_block

GRID = 4
PIXELS_SIDE = 32
BLOCK = 256
"""Training images that are held at once: there may be very many."""
PAIRS = 64
"""Pairs of a picture."""


class Layout(nn.Module):
    """Images ``(B, 3, H, W)`` uint8 -> ``(B, 8192)`` float32 of length 1: VGG16's conv5_3, means over a grid of 4x4.

    Of length 1, for bland images have short features: otherwise the training image with the shortest is the nearest to
    all of them. And with a grid, for a copy is alike in the same places.
    """

    def __init__(self, network: Vgg16Features):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(F.adaptive_avg_pool2d(self.network.maps(images), GRID).flatten(1))


class Pixels(nn.Module):
    """Images ``(B, 3, H, W)`` uint8 -> ``(B, 3072)`` float32 in 0…1: their means at 32x32 px, divided by √3072.

    So the length of a difference is its root mean square.
    """

    def forward(self, images: Tensor) -> Tensor:
        small = F.interpolate(images.float() / 255, (PIXELS_SIDE, PIXELS_SIDE), mode="area").flatten(1)
        return small / small.shape[1] ** 0.5


def description() -> tuple[str, nn.Module]:
    """What images are compared by, in words, and the network that makes it. Raises ConfigError for damaged weights."""
    try:
        there = weights_file("vgg")[0].is_file()
    except ConfigError:  # no torchvision
        there = False
    return ("VGG16 features", Layout(vgg16())) if there else ("pixels at 32x32 px", Pixels())


@dataclass(frozen=True)
class Matches:
    """The nearest training image of each of N images."""

    items: list[Item]
    """The N images."""
    distances: Tensor
    """(N,) float64: Euclidean, of the descriptions."""
    numbers: Tensor
    """(N,) int64, among the training images that could be read."""
    mirrored: Tensor
    """(N,) bool: whether the mirrored image is nearer to it: a training with flips has seen both."""

    def to_json(self) -> dict[str, float]:
        return {
            "images": len(self.items),
            "median": float(self.distances.quantile(0.5)),
            "least": float(self.distances.min()),
        }


@dataclass(frozen=True)
class Search:
    """What a search among the training images found."""

    samples: Matches
    held_back: Matches | None
    training: list[Item]
    """The training images that could be read."""
    skipped: list[Item]

    def to_json(self) -> dict[str, Any]:
        """``training``, ``samples``, ``held_back`` (if there is one): how many, median, least; ``pairs``: a list."""
        made, sides = self.samples, {"samples": self.samples, "held_back": self.held_back}
        rows = zip(made.items, made.numbers.tolist(), made.mirrored.tolist(), made.distances.tolist(), strict=True)
        return {
            "training": {"images": len(self.training), "skipped": len(self.skipped)},
            **{side: found.to_json() for side, found in sides.items() if found is not None},
            "pairs": [
                {"sample": str(item), "training": str(self.training[i]), "mirrored": mirrored, "distance": distance}
                for item, i, mirrored, distance in rows
            ],
        }


def find_nearest(
    name: str | Path,
    samples: ImageSet,
    held_back: ImageSet | None,
    training: Sequence[Item],
    network: nn.Module,
    progress: Callable[[int], object] | None = None,
) -> Search:
    """The nearest of the ``training`` images, which are from ``name``, to each image of the sets, as ``network`` sees.

    Training images are read as the sets were, at their size, some at a time. ``progress`` is called with 1 for each.
    Raises ImageError if none can be read, and ConfigError for images that are too small for the network.
    """
    sets = [samples] if held_back is None else [samples, held_back]
    size = samples.images.shape[2]
    queries = [features_of(torch.cat([x.images, x.images.flip(3)]), network).double() for x in sets]
    least = [torch.full((len(query),), torch.inf, dtype=torch.float64) for query in queries]
    numbers = [torch.zeros(len(query), dtype=torch.int64) for query in queries]
    read: list[Item] = []
    skipped: list[Item] = []
    for start in range(0, len(training), BLOCK):
        block = read_block(training[start : start + BLOCK], size, progress)
        skipped += block.skipped
        if not block.items:
            continue
        seen = features_of(block.images, network).double()
        for query, best, number in zip(queries, least, numbers, strict=True):
            distances, nearest = torch.cdist(query, seen).min(1)
            nearer = distances < best
            best[nearer], number[nearer] = distances[nearer], nearest[nearer] + len(read)
        read += block.items
    if not read:
        raise unreadable(name, len(training))
    matches = [_either(x.items, *found) for x, *found in zip(sets, least, numbers, strict=True)]
    return Search(matches[0], matches[1] if held_back is not None else None, read, skipped)


def _either(items: list[Item], distances: Tensor, numbers: Tensor) -> Matches:
    """The nearer of each image and its mirrored one, which stand in the second half."""
    both, sides = distances.unflatten(0, (2, -1)), numbers.unflatten(0, (2, -1))
    mirrored = both[1] < both[0]
    return Matches(items, torch.where(mirrored, both[1], both[0]), torch.where(mirrored, sides[1], sides[0]), mirrored)


def pairs_picture(images: Tensor, found: Search) -> Tensor:
    """(3, H, W) uint8: the samples, each with its nearest training image to the right of it, the nearest pair first.

    ``images: (N, 3, S, S)`` uint8. Of more than 64 the nearest 64; training images are mirrored where that is nearer.
    """
    matches, size = found.samples, images.shape[2]
    pairs = []
    for i in matches.distances.argsort(stable=True)[:PAIRS].tolist():
        beside = read_block([found.training[int(matches.numbers[i])]], size).images[0]
        pairs.append(torch.cat([images[i], beside.flip(2) if matches.mirrored[i] else beside], dim=2))
    columns = max(1, round((len(pairs) / 2) ** 0.5))  # a pair is twice as wide as high
    return image_grid(torch.stack(pairs), columns, grid_scale(size, size))
