"""Sets of images that are compared: which images of a folder, how they are read, and the distances between them."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from difflate.data.crops import Crops
from difflate.data.items import Item, common_side, hold_back, list_items, unreadable
from difflate.errors import ConfigError, ImageError
from difflate.metrics import features
from difflate.metrics.frechet import frechet_distance, kernel_distance
from difflate.metrics.sliced import PATCH_PX, sliced_wasserstein


@dataclass(frozen=True)
class Distance:
    """One distance between two sets of images."""

    measure: Callable[[Tensor, Tensor, int], Any]
    """(samples, reference, seed) -> what JSON takes; of the images, or of their features if it has a network."""
    network: str = ""
    """The function of `difflate.metrics.features` that makes it."""


def _frechet(samples: Tensor, reference: Tensor, seed: int) -> float:
    return frechet_distance(samples, reference)


def _kernel(samples: Tensor, reference: Tensor, seed: int) -> dict[str, float]:
    return dataclasses.asdict(kernel_distance(samples, reference, seed))


DISTANCES: Mapping[str, Distance] = {
    "swd": Distance(sliced_wasserstein),
    "fid": Distance(_frechet, "inception"),
    "kid": Distance(_kernel, "inception"),
    "frechet-vgg16": Distance(_frechet, "vgg16"),
    "kernel-vgg16": Distance(_kernel, "vgg16"),
}
"""By the names that the command line, tables and JSON have."""


@dataclass(frozen=True)
class Choice:
    """Which images are compared."""

    samples: list[Item]
    reference: list[Item]
    others: list[Item]
    """Images of the reference's source that are left over: real ones too, to say what the floor is."""
    training: list[Item]
    """Those that a generator was trained on: all that are not held back, or all."""


@dataclass(frozen=True)
class ImageSet:
    """Images that were read."""

    images: Tensor
    """(N, 3, S, S) uint8."""
    items: list[Item]
    """Where each is from."""
    skipped: list[Item]
    """Those that could not be read."""


def choose(
    samples: str | Path, reference: str | Path, holdback: int | None = None, max_images: int | None = None
) -> Choice:
    """The images of two sources, as `list_items` finds them.

    ``holdback``: the reference are only the images that a training with that ``holdback`` kept back. ``max_images``:
    at most as many samples and reference images, evenly spaced: the first ones may all lie in one folder, of one
    class. Raises ConfigError.
    """
    of_samples, of_reference, others = list_items([samples]), list_items([reference]), []
    training = of_reference
    if holdback is not None:
        training, of_reference = hold_back(of_reference, holdback)
        others = training
    if max_images is not None:
        _, of_samples = spread(of_samples, max_images)
        left_over, of_reference = spread(of_reference, max_images)
        others = others or left_over
    return Choice(of_samples, of_reference, others, training)


def spread(items: Sequence[Item], count: int) -> tuple[list[Item], list[Item]]:
    """(the others, ``count`` items, evenly spaced); all items if there are no more."""
    return hold_back(items, count) if count < len(items) else ([], list(items))


def check_size(name: str | Path, items: Sequence[Item], size: int | None = None) -> int:
    """``size``, or if it is None the side in px of all items that can be opened.

    Raises ConfigError if these are not squares of one size or smaller than a patch of 7 px, ImageError if none can be
    opened.
    """
    if size is not None:
        return size
    size = common_side(name, items)
    if size < PATCH_PX:
        raise ConfigError(f"{name}: images of {size}x{size} px are too small; give --size")
    return size


def read_images(
    name: str | Path, items: Sequence[Item], size: int, progress: Callable[[int], object] | None = None
) -> ImageSet:
    """`read_block` of ``items``, which are from ``name``. Raises ImageError if none can be read."""
    found = read_block(items, size, progress)
    if not found.items:
        raise unreadable(name, len(items))
    return found


def read_block(items: Sequence[Item], size: int, progress: Callable[[int], object] | None = None) -> ImageSet:
    """The images of ``items``, perhaps none: the short side scaled to ``size`` px, the middle of the other.

    ``progress`` is called with 1 for each.
    """
    pixels, read, skipped = [torch.empty(0, 3, size, size, dtype=torch.uint8)], [], []
    for item in items:
        try:
            pixels.append(Crops([item], size, short_side=size, augment=False).read(0).pixels[None])
            read.append(item)
        except ImageError:
            skipped.append(item)
        if progress is not None:
            progress(1)
    return ImageSet(torch.cat(pixels), read, skipped)


def load_networks(names: Iterable[str], device: torch.device) -> dict[str, nn.Module]:
    """The networks that the distances of these names look through, by their names. Raises ConfigError.

    Loaded before images are read, so that weights which are missing are told at once.
    """
    needed = dict.fromkeys(DISTANCES[name].network for name in names)
    return {name: getattr(features, name)().to(device) for name in needed if name}


def distances(
    sets: Sequence[Tensor],
    reference: Tensor,
    names: Sequence[str],
    networks: Mapping[str, nn.Module],
    device: torch.device,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> list[dict[str, Any]]:
    """The distance of each of ``sets`` from ``reference``, all (N, 3, S, S) uint8, by the ``names`` in `DISTANCES`.

    ``progress`` is called with the number of images that a network has looked at. Raises ConfigError for images that
    are too small, or too few.
    """
    values: list[dict[str, Any]] = [{} for _ in sets]
    for network in dict.fromkeys(DISTANCES[name].network for name in names):
        if network:
            look = networks[network]
            of_reference, *of_sets = (
                features.features_of(images, look, progress=progress) for images in (reference, *sets)
            )
        else:
            of_reference, of_sets = reference.to(device), sets
        for value, of_set in zip(values, of_sets, strict=True):
            for name in names:
                if DISTANCES[name].network == network:
                    value[name] = DISTANCES[name].measure(of_set if network else of_set.to(device), of_reference, seed)
    return values
