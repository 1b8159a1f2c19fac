"""The context model of a trained autoencoder's indices, fitted to what its networks make of images."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from difflate.data.crops import Samples
from difflate.data.loader import batches_of
from difflate.entropy import SymbolWriter
from difflate.errors import ConfigError, ImageError
from difflate.models.autoencoder import Autoencoder
from difflate.train.context import train_context

log = logging.getLogger(__name__)
_BATCH = 8


@dataclass(frozen=True)
class ContextSettings:
    """The context model that a file's indices are coded with; fitted once the networks are trained."""

    steps: int = 2000
    """Steps of its training."""
    minutes: float | None = None
    """Ends it after so many minutes, its schedule shortened to fit."""
    crops: int = 2000
    """Crops of the images that it learns from."""
    crop_px: int = 256
    """Side of them: large ones, as files are of whole images."""

    def __post_init__(self) -> None:
        for key in ("steps", "crops", "crop_px"):
            if getattr(self, key) < 1:
                raise ConfigError(f"context.{key} (={getattr(self, key)}) must be at least 1")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigError(f"context.minutes (={self.minutes}) must be above 0, or null for no limit")


@dataclass(frozen=True)
class Coding:
    """What indices of images take."""

    images: int
    site_bits: float
    """Bits of a site, in real streams of the coder."""
    fixed_bits: int
    """Bits of a site at the fixed rate."""
    used: list[float] = field(default_factory=list)
    """Share of the indices of each plane that occur."""

    def __str__(self) -> str:
        used = ", ".join(f"{100 * share:.0f}" for share in self.used)
        return (
            f"{self.site_bits:.2f} bits a site for {self.fixed_bits} at the fixed rate "
            f"({100 * (1 - self.site_bits / self.fixed_bits):.0f} % saved); of the indices of each plane {used} % occur"
        )


def fit_context(
    autoencoder: Autoencoder, trained_on: Samples, held_back: Samples | None, settings: ContextSettings, seed: int,
    progress: bool = False,
) -> str:  # fmt: skip
    """Puts the indices of ``autoencoder``, which is trained, in order, and fits its `context` to those of crops.

    Gives what a card says of it; of an autoencoder without indices, which needs none, that is nothing. Raises
    ImageError if no image can be read.
    """
    if autoencoder.between.sizes is None:
        return ""
    autoencoder.eval()
    autoencoder.between.put_in_order()
    grids = list(grids_of(autoencoder, trained_on, settings.crops))
    if not grids:
        raise ImageError("none of the images for the context model can be read; name others with images=FOLDER")
    with tqdm(total=settings.steps, desc="context model", disable=not progress, unit="step") as bar:

        def report(step: int, bits: float) -> None:
            bar.update(step - bar.n)
            bar.set_postfix_str(f"{bits:.2f} bits/site", refresh=False)
            if step % 100 == 0:
                log.info("context model step %d: %.2f bits a site", step, bits)

        autoencoder.context = train_context(
            grids, autoencoder.plane_bits, step_count=settings.steps, seed=seed, report=report,
            max_minutes=settings.minutes,
        )  # fmt: skip
    if held_back is None:
        return f"\nContext model of the indices: fitted to {len(grids)} crops.\n"
    found = coding_of(autoencoder, list(grids_of(autoencoder, held_back, len(held_back))))
    log.info("context model: %s", found)
    return f"\nIndices of {found.images} crops that were held back: {found}.\n"


def grids_of(autoencoder: Autoencoder, samples: Samples, count: int) -> Iterator[np.ndarray]:
    """(C, h, w) uint16 indices of the first ``count`` of ``samples`` that can be read."""
    numbers = (list(range(start, min(start + _BATCH, count))) for start in range(0, count, _BATCH))
    device = next(autoencoder.parameters()).device
    for batch in batches_of(samples, numbers, 0, device):
        if len(batch.numbers):
            found: Tensor = autoencoder.coded(batch.images(device))
            yield from found.cpu().numpy().astype(np.uint16)


def coding_of(autoencoder: Autoencoder, grids: list[np.ndarray]) -> Coding:
    """What ``grids``, (C, h, w) each, take with the context model of ``autoencoder``."""
    written = 0
    for grid in grids:
        writer = SymbolWriter()
        autoencoder.context.encode(grid, writer)
        written += len(writer.finish())
    sites = sum(grid[0].size for grid in grids)
    seen = [torch.from_numpy(np.concatenate([grid[plane].ravel() for grid in grids]).astype(np.int64))
            for plane in range(len(grids[0]))]  # fmt: skip
    used = [len(plane.unique()) / size for plane, size in zip(seen, autoencoder.between.sizes or (), strict=True)]
    return Coding(len(grids), 8 * written / sites, sum(autoencoder.plane_bits), used)
