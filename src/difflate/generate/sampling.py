"""Images out of noise."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from difflate.diffusion import SAMPLERS, Step
from difflate.errors import ConfigError, LimitExceeded
from difflate.models.generator import Generator
from difflate.seeds import Stream, check_seed, torch_generator

_MAX_STEPS, _MAX_COUNT = 1000, 10**7
_MAX_PIXELS = 2**24
"""Of a batch: a network's activations take a few hundred times as many bytes."""
_PREVIEW = 16


def sample(
    model: Generator,
    count: int,
    *,
    steps: int = 30,
    sampler: str | None = None,
    seed: int = 0,
    classes: Sequence[str] = (),
    guidance: float = 1.0,
    temperature: float | None = None,
    size: tuple[int, int] | None = None,
    batch: int = 64,
    first: int = 0,
) -> Iterator[Tensor]:
    """Images first … first + count - 1 of ``seed``, (B, 3, H, W) uint8 with B at most ``batch``, as they are made.

    Each image has noise of its own from ``seed`` and its number, so it does not depend on ``batch`` or on the others,
    but for how sums are rounded in batches of another size.
    ``sampler``: by default the model's own. ``classes``: taken in turn; none: all in turn. ``temperature``: γ of a
    categorical model. ``size``: (height, width) px, by default that of the images that the model was trained on.
    Raises ConfigError, LimitExceeded.
    """
    if first < 0:
        raise ConfigError(f"first (={first}) must be at least 0")
    if not 1 <= count <= _MAX_COUNT or batch < 1:
        raise ConfigError(f"count (={count}) must be from 1 to {_MAX_COUNT}, and batch (={batch}) at least 1")
    numbers = range(first, first + count)
    draw = partial(
        trajectory, model, steps=steps, sampler=sampler, seed=seed, classes=classes, guidance=guidance,
        temperature=temperature, size=size,
    )  # fmt: skip
    draw(numbers[:batch])  # raises now, not at the first image
    return _images(model, draw, [numbers[i : i + batch] for i in range(0, count, batch)])


def preview(model: Generator) -> Tensor:
    """(16, 3, H, W) uint8 of seed 0, which a training shows."""
    batch = max(1, min(_PREVIEW, _MAX_PIXELS // model.image_px**2))
    return torch.cat(list(sample(model, _PREVIEW, batch=batch)))


def _images(model: Generator, draw: Callable[[range], Iterator[Step]], parts: Sequence[range]) -> Iterator[Tensor]:
    for part in parts:
        *_, last = draw(part)
        yield model.images(last.x).cpu()


def trace(steps: Iterator[Step], model: Generator, moments: int, count: int) -> Iterator[tuple[float, Tensor]]:
    """(t, (B, 3, H, W) uint8) of the ``count`` steps of a `trajectory`, ``moments`` of them, evenly spaced.

    What is shown is the noisy x itself, decoded, as in Figure 7 of Scribano et al. 2023; the last is the image.
    """
    shown = {round((i + 1) * count / moments) - 1 for i in range(moments)}
    return ((step.t, model.images(step.x).cpu()) for step in steps if step.index in shown)


def trajectory(
    model: Generator,
    numbers: Sequence[int],
    *,
    steps: int = 30,
    sampler: str | None = None,
    seed: int = 0,
    classes: Sequence[str] = (),
    guidance: float = 1.0,
    temperature: float | None = None,
    size: tuple[int, int] | None = None,
) -> Iterator[Step]:
    """All steps of the images ``numbers`` of ``seed``, made together: x and x0 are (B, C, H, W) float32.

    The options are those of `sample`. Raises ConfigError, LimitExceeded.
    """
    sampler = sampler or model.sampler
    if sampler not in SAMPLERS:
        raise ConfigError(f"sampler (={sampler}) must be one of {', '.join(SAMPLERS)}")
    if not 1 <= steps <= _MAX_STEPS:
        raise ConfigError(f"steps (={steps}) must be from 1 to {_MAX_STEPS}")
    check_seed(seed)
    height, width = size or (model.image_px, model.image_px)
    shape = model.shape((height, width))
    if len(numbers) * height * width > _MAX_PIXELS:
        raise LimitExceeded(
            f"batch (={len(numbers)}) images of {width} x {height} px are more than {_MAX_PIXELS} pixels at once; make "
            "it smaller"
        )
    labels = model.labels_of(classes, max(numbers) + 1)
    generators = [torch_generator(seed, Stream.SAMPLE_NOISE, number) for number in numbers]
    # apart: the noise is that of any temperature
    draws = [torch_generator(seed, Stream.SAMPLE_DRAWS, number) for number in numbers]
    denoiser = model.denoiser(None if labels is None else labels[list(numbers)], guidance, temperature, draws)
    process = model.process.build()
    x = process.start((len(numbers), *shape), generators, device=next(model.parameters()).device)
    return SAMPLERS[sampler](
        process, denoiser, x, steps, generator=generators, clip=1.0, self_condition=model.self_conditioned
    )
