"""Images out of noise."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from difflate.diffusion import SAMPLERS, Step
from difflate.errors import ConfigError, LimitExceeded
from difflate.generate.pixel import PixelDiffusion
from difflate.grid import to_uint8
from difflate.seeds import check_seed, torch_generator

_MAX_STEPS, _MAX_COUNT = 1000, 10**7
_MAX_PIXELS = 2**24
"""Of a batch: a network's activations take a few hundred times as many bytes."""
_STREAM = 4


def sample(
    model: PixelDiffusion,
    count: int,
    *,
    steps: int = 30,
    sampler: str = "dpmpp_2m",
    seed: int = 0,
    classes: Sequence[str] = (),
    guidance: float = 1.0,
    batch: int = 64,
    first: int = 0,
) -> Iterator[Tensor]:
    """Images first … first + count - 1 of ``seed``, (B, 3, H, W) uint8 with B at most ``batch``, as they are made.

    Each image has noise of its own from ``seed`` and its number, so it does not depend on ``batch`` or on the others.
    ``classes``: taken in turn; none: all in turn. Raises ConfigError.
    """
    if sampler not in SAMPLERS:
        raise ConfigError(f"sampler (={sampler}) must be one of {', '.join(SAMPLERS)}")
    if not 1 <= steps <= _MAX_STEPS:
        raise ConfigError(f"steps (={steps}) must be from 1 to {_MAX_STEPS}")
    if not 1 <= count <= _MAX_COUNT or batch < 1:
        raise ConfigError(f"count (={count}) must be from 1 to {_MAX_COUNT}, and batch (={batch}) at least 1")
    check_seed(seed)
    if min(batch, count) * model.image_px**2 > _MAX_PIXELS:
        raise LimitExceeded(
            f"batch (={batch}) images of {model.image_px} x {model.image_px} px are more than {_MAX_PIXELS} pixels at "
            "once; make it smaller"
        )
    labels = model.labels_of(classes, first + count)
    model.guided_model(None, guidance)  # raises now, not at the first image
    numbers = range(first, first + count)
    return _batches(
        model, [numbers[i : i + batch] for i in range(0, count, batch)], steps, sampler, seed, labels, guidance
    )


def _batches(
    model: PixelDiffusion, parts: Sequence[range], steps: int, sampler: str, seed: int, labels: Tensor | None,
    guidance: float,
) -> Iterator[Tensor]:  # fmt: skip
    for part in parts:
        *_, last = trajectory(
            model, part, steps, sampler, seed, None if labels is None else labels[list(part)], guidance
        )
        yield to_uint8(last.x).cpu()


def trajectory(
    model: PixelDiffusion, numbers: Sequence[int], steps: int, sampler: str, seed: int, labels: Tensor | None = None,
    guidance: float = 1.0,
) -> Iterator[Step]:  # fmt: skip
    """All steps of the images ``numbers`` of ``seed``, made together: x and x0 are (B, 3, H, W) float32."""
    process = model.process.build()
    device = next(model.parameters()).device
    generators = [torch_generator(seed, _STREAM, number) for number in numbers]
    x = process.start((len(numbers), *model.shape), generators, device=device)
    return SAMPLERS[sampler](
        process, model.guided_model(labels, guidance), x, steps,
        generator=generators, clip=1.0, self_condition=model.network.self_condition,
    )  # fmt: skip
