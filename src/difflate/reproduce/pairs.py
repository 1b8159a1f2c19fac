"""Restored images beside their originals, paired by name: what tables measure, and whether the pairs belong together.

The thesis' mean squared errors and PSNRs are those of pairs that do not: 6 to 7 dB for everything, JPEG at quality 50
included (Rampas 2024, Tables 1 to 4). So here each table also has the PSNR of pairs that are shifted by one image.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difflate.data.items import Item
from difflate.errors import ConfigError, VerificationFailed
from difflate.evaluate.measures import comparisons
from difflate.media.picture import Picture
from difflate.metrics.distortion import psnr
from difflate.metrics.sets import distances, load_networks

Images = Mapping[str, np.ndarray]
"""(3, H, W) uint8 by the name of the image's file."""

DISTANCES = ("frechet-vgg16", "swd")
PAIR_PROTOCOL = {
    "psnr, ssim, ms_ssim, lpips, dists": "means over the images, as in difflate eval; lpips with AlexNet; "
    "ms_ssim is null below 176 px",
    "mse": "mean squared error of samples in 0...1",
    "frechet-vgg16, swd": "of all restored images from all originals, as in difflate distance",
    "psnr_shifted": "dB; each restored image beside the original after its own: what mispaired images give",
    "paired": "whether psnr is above psnr_shifted, so that restored images have something of their originals",
}


def by_name(items: Sequence[Item], images: Iterable[Tensor]) -> dict[str, np.ndarray]:
    """``images``, each (3, H, W) uint8, by the names of the files. Raises ConfigError if two have one name."""
    found = {str(item): pixels.numpy() for item, pixels in zip(items, images, strict=True)}
    if len(found) < len(items):
        raise ConfigError("an image is named twice; name each folder once")
    return found


def measure_sets(
    originals: Images, sets: Sequence[Images], measures: Sequence[str] = ("ssim", "ms_ssim", "lpips", "dists")
) -> list[dict[str, Any]]:
    """What each of ``sets`` is beside ``originals``: a row of the keys of `PAIR_PROTOCOL`, and the number of images.

    ``measures``: keys of `difflate.evaluate.measures.MEASURES`. Raises ConfigError if weights are missing or there are
    fewer than 2 images, VerificationFailed if a set does not have the names of the originals.
    """
    if len(originals) < 2:
        raise ConfigError(f"images (={len(originals)}) must be 2 or more; name more folders")
    functions = comparisons({"lpips": "alex"} if "lpips" in measures else {})
    if "dists" in measures:
        functions |= comparisons({"dists": None})
    networks = load_networks(DISTANCES, torch.device("cpu"))
    rows = []
    for restored in sets:
        row = paired(originals, restored)
        for key in measures:
            values = [functions[key](Picture(originals[name]), Picture(restored[name])) for name in originals]
            kept = [value for value in values if value is not None]
            row[key] = statistics.fmean(kept) if kept else None
        rows.append(row)
    stacked = [torch.from_numpy(np.stack([images[name] for name in originals])) for images in (originals, *sets)]
    found = distances(stacked[1:], stacked[0], DISTANCES, networks, torch.device("cpu"))
    for row, value in zip(rows, found, strict=True):
        row |= {"frechet-vgg16": value["frechet-vgg16"], "swd": value["swd"]["mean"]}
    return rows


def paired(originals: Images, restored: Images) -> dict[str, Any]:
    """``images``, ``mse``, ``psnr``, ``psnr_shifted`` and ``paired`` of images of the same names.

    Raises VerificationFailed if the names differ.
    """
    if originals.keys() != restored.keys():
        lacking = sorted(originals.keys() ^ restored.keys())
        raise VerificationFailed(f"{lacking[0]}: is among the originals or the restored images only; pair them by name")
    names = list(originals)
    true_db = [psnr(Picture(originals[name]), Picture(restored[name])) for name in names]
    beside = [*names[1:], names[0]]
    shifted_db = [
        psnr(Picture(originals[other]), Picture(restored[name])) for name, other in zip(names, beside, strict=True)
    ]
    finite = [value for value in true_db if math.isfinite(value)]
    true, shifted = (statistics.fmean(values) if values else math.inf for values in (finite, shifted_db))
    return {
        "images": len(names),
        "mse": statistics.fmean(10 ** (-value / 10) for value in true_db),
        "psnr": true if math.isfinite(true) else None,
        "psnr_shifted": shifted,
        "paired": true > shifted,
    }
