"""The context model of an autoencoder's indices: fitted once its networks are trained, on the images they saw."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from difflate.data.items import Item, hold_back, list_items
from difflate.entropy import ContextModel, SymbolWriter
from difflate.errors import ConfigError, DifflateError
from difflate.media.alpha import over_white
from difflate.media.picture import open_image
from difflate.models.autoencoder import Autoencoder
from difflate.models.autoencoder_space import FiniteSpace
from difflate.quantize.usage import code_usage
from difflate.seeds import Stream, numpy_generator
from difflate.train.context import train_context_shown

log = logging.getLogger(__name__)

_SITES_PER_STEP = 8000
_LEAST_SITES, _BITS_OF_BYTE = 4, 8
_REPORTED_VIEWS = 64
"""Images that are counted where no context model is fitted."""


@dataclass(frozen=True)
class ContextSettings:
    """How the context model is fitted."""

    views: int = 2000
    """Images that it learns from, one after the other and again, each time a random part of it."""
    view_px: int = 768
    """Longest side of a part."""
    steps: int = 2000
    """0: none is fitted, all indices stay as likely."""
    minutes: float | None = None
    """Ends the training after so many minutes, its schedule shortened to fit."""

    def __post_init__(self) -> None:
        for key, least in (("views", 1), ("view_px", 64), ("steps", 0)):
            if getattr(self, key) < least:
                raise ConfigError(f"context.{key} (={getattr(self, key)}) must be at least {least}")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigError(f"context.minutes (={self.minutes}) must be above 0, or null for no limit")


@dataclass(frozen=True)
class IndexReport:
    """How indices are used, and what they take."""

    sites: int
    """Sites of the latent that were counted."""
    entropies: list[float]
    """Bits of each plane by the frequencies of its indices alone."""
    used: int
    """How many of all combinations of a site's indices were seen."""
    combinations: int
    fixed_bits: int
    """Bits of a site at the fixed rate."""
    coded_bits: float | None
    """Bits of a site as files have them, of images or clips that were held back; None: there are none."""

    def __str__(self) -> str:
        planes = ", ".join(f"{bits:.2f}" for bits in self.entropies)
        share = 100 * self.used / min(self.combinations, self.sites)
        coded = "" if self.coded_bits is None else f"{self.coded_bits:.2f} bits a site in files of what was held back, "
        return (
            f"{coded}{self.fixed_bits} at the fixed rate; by frequencies {sum(self.entropies):.2f} ({planes}); "
            f"{self.used} of {self.combinations} codes used in {self.sites} sites ({share:.0f} % of what could be)"
        )


def finish_indices(
    autoencoder: Autoencoder, name: str, images: Sequence[str], holdback: int, settings: ContextSettings, *, seed: int,
    progress: bool = False,
) -> str:  # fmt: skip
    """`fit_context` of the trained ``autoencoder`` to the ``images`` of its training, as a line of its card; "" for one
    without indices. ``name``: for errors; ``holdback``: how many images the training held back."""
    if autoencoder.between.sizes is None:
        return ""
    autoencoder.eval().between.put_in_order()
    space = FiniteSpace(name, autoencoder)
    items, held_back = hold_back(list_items(images), holdback)
    return f"\nIndices: {fit_context(space, items, held_back, settings, seed=seed, progress=progress)}.\n"


def fit_context(
    space: FiniteSpace, items: Sequence[Item], held_back: Sequence[Item], settings: ContextSettings, *, seed: int,
    progress: bool = False,
) -> IndexReport:  # fmt: skip
    """Gives the autoencoder of ``space`` a context model that is fitted to indices of ``items``; says what it saves.

    Raises ConfigError if no image can be read and has at least four sites a side.
    """
    autoencoder = space.autoencoder
    views = settings.views if settings.steps else min(settings.views, _REPORTED_VIEWS)
    images = tqdm(
        _grids(space, items, settings, seed, views), total=views, desc="indices", disable=not progress, unit="image"
    )
    grids = [grid[None] for grid in images]
    if not grids:
        raise ConfigError(
            f"none of the {len(items)} images can be read and is large enough for a context model, "
            f"{_LEAST_SITES * space.stride_px} px a side"
        )
    held = [grid[None] for grid in _grids(space, held_back, settings, seed, len(held_back))] if held_back else []
    autoencoder.context, found = fit_clips(
        autoencoder.context, space.sizes, grids, held, settings, seed=seed, progress=progress
    )
    return found


def fit_clips(
    context: ContextModel, sizes: Sequence[int], clips: Iterable[np.ndarray], held_back: Iterable[np.ndarray],
    settings: ContextSettings, *, seed: int, progress: bool = False,
) -> tuple[ContextModel, IndexReport]:  # fmt: skip
    """A context model of the form of ``context``, which may look back, fitted to ``clips``; and what it saves. One that
    was fitted before is gone on from.

    ``clips``: arrays (T, P, h, w) of indices, at least one, images with T = 1; ``sizes``: how many indices each plane
    has; ``held_back``: what the coded bits are counted of, each clip one stream. With ``settings.steps`` 0 ``context``
    is kept. ``settings.views`` and ``settings.view_px`` are for who makes the clips.
    """
    clips, held_back = list(clips), list(held_back)
    if settings.steps:
        context = train_context_shown(
            clips, context.plane_bits, step_count=settings.steps, progress=progress, seed=seed,
            max_minutes=settings.minutes, sites_per_step=_SITES_PER_STEP, looks_back=context.looks_back,
            start=context if context.tensors["trunk.weight"].any() else None,
        )  # fmt: skip
    flat = np.concatenate([grid.reshape(len(grid), -1) for clip in clips for grid in clip], axis=1)
    usage = code_usage(torch.from_numpy(flat.astype(np.int64).T), sizes)
    coded = None
    if held_back:
        sites = sum(clip[:, 0].size for clip in held_back)
        coded = _BITS_OF_BYTE * sum(_coded_bytes(context, clip) for clip in held_back) / sites
    found = IndexReport(usage.sites, list(usage.plane_bits), usage.used, usage.possible, sum(context.plane_bits), coded)
    log.info("%s", found)
    return context, found


def _coded_bytes(context: ContextModel, clip: np.ndarray) -> int:
    writer = SymbolWriter()
    context.encode_sequence(clip, writer)
    return len(writer.finish())


def _grids(
    space: FiniteSpace, items: Sequence[Item], settings: ContextSettings, seed: int, views: int
) -> Iterator[np.ndarray]:
    """Indices (C, h, w) uint16 of parts of ``items``, at random places, half of them mirrored."""
    unreadable = 0
    for number in range(views):
        turn, place = divmod(number, len(items))
        item = items[numpy_generator(seed, Stream.ORDER, turn).permutation(len(items))[place]]
        try:
            pixels = over_white(open_image(item.source())).pixels
        except (DifflateError, OSError) as error:
            log.warning("skipped: %s: %s", item, error)
            unreadable += 1
            if unreadable == len(items):
                return
            continue
        rng = numpy_generator(seed, Stream.CROP, number)
        sides = [min(side, settings.view_px) // space.stride_px * space.stride_px for side in pixels.shape[1:]]
        if min(sides) < _LEAST_SITES * space.stride_px:
            continue
        top, left = (int(rng.integers(side - part + 1)) for side, part in zip(pixels.shape[1:], sides, strict=True))
        part = np.broadcast_to(pixels, (3, *pixels.shape[1:]))[:, top : top + sides[0], left : left + sides[1]]
        part = part[:, :, ::-1] if rng.random() < 0.5 else part
        yield space.to_latent(torch.from_numpy(part.copy())[None])[0].cpu().numpy().astype(np.uint16)
