"""What the studio does with a generator: images out of noise, and the steps on the way."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from difflate.errors import ConfigError, ModelError
from difflate.generate import SampleOptions, load_generator, trace, trajectory
from difflate.generate.grid import image_grid
from difflate.models.generator import Generator
from difflate.store.hub import bundled_models
from difflate.studio.watching import streamed

MAX_IMAGES, MOMENTS = 16, 11


@dataclass(frozen=True)
class Drawn:
    """Images on their way out of noise."""

    t: float
    """The time of the diffusion process; at 0 they are done."""
    grid: Tensor
    """(3, H, W) uint8, the images in a square."""


def generators() -> list[str]:
    """The names of the bundled generators."""
    return list(bundled_models("generator"))


@functools.cache
def loaded_generator(name: str, device: str = "cpu") -> Generator:
    """The bundled generator of that name, with the refiner that is bundled for its codec, if there is one.

    Raises ConfigError, ModelError.
    """
    try:
        model = load_generator(name, refine=True)
    except (ConfigError, ModelError):
        model = load_generator(name)
    return model.to(device)


def draw(name: str, count: int, *, seed: int = 0, steps: int | None = None, device: str = "cpu") -> Iterator[Drawn]:
    """``count`` images of the generator ``name`` at `MOMENTS` of their steps, the last the images themselves.

    Raises ConfigError, ModelError.
    """
    if not 1 <= count <= MAX_IMAGES:
        raise ConfigError(f"images (={count}) must be from 1 to {MAX_IMAGES}")
    options = SampleOptions(steps=steps, seed=seed)

    def work(tell: Callable[[Drawn], None]) -> None:
        model = loaded_generator(name, device)
        made = trajectory(model, range(count), options)
        for t, images in trace(made, model, MOMENTS, steps or model.steps):
            tell(Drawn(t, image_grid(images)))

    return streamed(work)
