"""The context model of a video autoencoder's indices, fitted once its networks are trained, on clips like theirs."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from difflate.data.crops import Samples
from difflate.errors import FormatError
from difflate.models.video_autoencoder import VideoAutoencoder
from difflate.train.index_context import fit_clips
from difflate.train.recipe import clips_of

_LATENT_FRAMES = 8
"""Of a clip that the context model learns from: most latent frames of a file have one before them."""
_REPORTED_VIEWS = 64


def finish_clip_indices(autoencoder: VideoAutoencoder, settings: Any, *, seed: int, progress: bool = False) -> str:
    """Fits the context model of the trained ``autoencoder`` to clips of ``settings``, those of the recipe; gives a line
    of its card, "" for a latent without indices."""
    sizes, context = autoencoder.between.sizes, settings.context
    if sizes is None:
        return ""
    autoencoder.eval().between.put_in_order()
    stride, frames = autoencoder.stride_px, _LATENT_FRAMES * autoencoder.folding.ratio
    data = clips_of(replace(settings, in_memory=False), context.view_px // stride * stride, frames, seed)
    views = context.views if context.steps else min(context.views, _REPORTED_VIEWS)
    numbers = tqdm(range(views), desc="indices", disable=not progress, unit="clip")
    held = data.held_back
    fitted, found = fit_clips(
        autoencoder.context,
        sizes,
        _grids(autoencoder, data.trained_on, numbers),
        _grids(autoencoder, held, range(len(held))) if held is not None else (),
        context,
        seed=seed,
        progress=progress,
    )
    autoencoder.context = fitted
    return f"\nIndices: {found}.\n"


def _grids(autoencoder: VideoAutoencoder, samples: Samples, numbers: Any) -> Iterator[np.ndarray]:
    """Indices (T', P, h, w) uint16 of the clips of these ``numbers``."""
    device = next(autoencoder.parameters()).device
    for number in numbers:
        try:
            pixels = samples.read(number).pixels
        except FormatError:
            continue  # it was said in the training
        images = pixels[None].to(device).float() / 127.5 - 1
        yield autoencoder.coded(images)[0].movedim(1, 0).to(torch.int32).cpu().numpy().astype(np.uint16)
