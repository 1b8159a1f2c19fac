"""Images out of noise."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from difflate.diffusion import SAMPLERS, Step
from difflate.errors import ConfigError, LimitExceeded
from difflate.generate.options import SampleOptions
from difflate.models.generator import Generator
from difflate.seeds import Stream, torch_generator

_MAX_COUNT = 10**7
_MAX_PIXELS = 2**24
"""Most pixels of a batch: a network's activations take a few hundred times as many bytes."""
_PREVIEW = 16


def sample(
    model: Generator,
    count: int,
    options: SampleOptions | None = None,
    *,
    batch: int = 64,
    first: int = 0,
    **changes: Any,
) -> Iterator[Tensor]:
    """Images first … first + count - 1 of a seed, (B, 3, H, W) uint8 with B at most ``batch``, as they are made.

    Each image has noise of its own from the seed and its number, so it does not depend on ``batch`` or on the others,
    but for how sums are rounded in batches of another size. ``options``, and ``changes`` of them by name, are those of
    `SampleOptions`: ``sample(model, 16, steps=30, seed=7)``. Raises ConfigError, LimitExceeded.
    """
    options = dataclasses.replace(options or SampleOptions(), **changes)
    if first < 0:
        raise ConfigError(f"first (={first}) must be at least 0")
    if not 1 <= count <= _MAX_COUNT or batch < 1:
        raise ConfigError(f"count (={count}) must be from 1 to {_MAX_COUNT}, and batch (={batch}) at least 1")
    numbers = range(first, first + count)
    trajectory(model, numbers[:batch], options)  # raises now, not at the first image
    return _images(model, [numbers[i : i + batch] for i in range(0, count, batch)], options)


def _images(model: Generator, parts: Sequence[range], options: SampleOptions) -> Iterator[Tensor]:
    for part in parts:
        *_, last = trajectory(model, part, options)
        yield model.images(last.x).cpu()


def preview(model: Generator) -> Tensor:
    """(16, 3, H, W) uint8 of seed 0, which a training shows."""
    batch = max(1, min(_PREVIEW, _MAX_PIXELS // model.image_px**2))
    return torch.cat(list(sample(model, _PREVIEW, batch=batch)))


def trace(steps: Iterator[Step], model: Generator, moments: int, count: int) -> Iterator[tuple[float, Tensor]]:
    """(t, (B, 3, H, W) uint8) of the ``count`` steps of a `trajectory`, ``moments`` of them, evenly spaced.

    What is shown is the noisy x itself, decoded, as in Figure 7 of Scribano et al. 2023; the last is the image.
    """
    shown = {round((i + 1) * count / moments) - 1 for i in range(moments)}
    return ((step.t, model.images(step.x).cpu()) for step in steps if step.index in shown)


def trajectory(
    model: Generator, numbers: Sequence[int], options: SampleOptions | None = None, **changes: Any
) -> Iterator[Step]:
    """All steps of the images ``numbers`` of a seed, made together: x and x0 are (B, C, H, W) float32.

    ``options`` and ``changes`` as `sample` takes them. Raises ConfigError, LimitExceeded.
    """
    options = dataclasses.replace(options or SampleOptions(), **changes)
    height, width = options.size or (model.image_px, model.image_px)
    shape = model.shape((height, width))
    if len(numbers) * height * width > _MAX_PIXELS:
        raise LimitExceeded(
            f"batch (={len(numbers)}) images of {width} x {height} px are more than {_MAX_PIXELS} pixels at once; make "
            "it smaller"
        )
    labels = model.labels_of(options.classes, max(numbers) + 1)
    generators = [torch_generator(options.seed, Stream.SAMPLE_NOISE, number) for number in numbers]
    # apart, so that the noise is the same at any temperature
    draws = [torch_generator(options.seed, Stream.SAMPLE_DRAWS, number) for number in numbers]
    labels = None if labels is None else labels[list(numbers)]
    denoiser = model.denoiser(labels, options.guidance, options.temperature, draws)
    process = model.process.build()
    x = process.start((len(numbers), *shape), generators, device=next(model.parameters()).device)
    return SAMPLERS[options.sampler or model.sampler](
        process,
        denoiser,
        x,
        options.steps or model.steps,
        generator=generators,
        clip=1.0,
        self_condition=model.self_conditioned,
    )
