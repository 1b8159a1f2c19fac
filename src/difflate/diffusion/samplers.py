"""Samplers: generators that yield every step from noise to data.

All have one signature and take every scaling and target, since each is a rule for (x0, eps, a, b) alone. They check
their settings when they are called, and compute, without gradients, as they are iterated:

    for step in dpmpp_2m(process, model, process.start((4, 3, 64, 64)), steps=20):
        progress(step.index, step.x0)
    image = step.x

The arguments that they share:

    process         the five choices
    model           (x, noise condition) -> target
    x               (B, …) noisy at the first time, as from `Process.start`
    steps           how many, equally long in t, from 1 to 0; or the times themselves, falling
    generator       one for the batch, or one per item: then an item's result does not depend on the batch
    clip            keep x0 within ± this
    self_condition  the model takes its last x0 (at first zeros) as its third argument
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from difflate.diffusion.draws import Generators, normal
from difflate.diffusion.guidance import Model, denoise
from difflate.diffusion.process import Process
from difflate.errors import ConfigError


@dataclass(frozen=True)
class Step:
    """What a sampler yields."""

    index: int
    """Number of the step, from 0."""
    t: float
    """The time that ``x`` is at now."""
    x: Tensor
    """(B, …) noisy; at t = 0, clean."""
    x0: Tensor
    """(B, …) the prediction that the step followed, at the time before."""


@dataclass(frozen=True)
class _Point:
    """One time of a sampler, in float64."""

    t: float
    logsnr: float
    a: float
    b: float


Update = Callable[[_Point, _Point, Tensor, Tensor, Tensor], Tensor]
"""A function from (here, there, x, x0, eps) to x there."""


class Sampler(Protocol):
    """The one signature; `ddim` has η besides. A deterministic one has no use for the generator."""

    def __call__(
        self,
        process: Process,
        model: Model,
        x: Tensor,
        steps: int | Sequence[float] = 50,
        *,
        generator: Generators = None,
        clip: float | None = None,
        self_condition: bool = False,
    ) -> Iterator[Step]: ...


def ddpm(
    process: Process,
    model: Model,
    x: Tensor,
    steps: int | Sequence[float] = 50,
    *,
    generator: Generators = None,
    clip: float | None = None,
    self_condition: bool = False,
) -> Iterator[Step]:
    """Ancestral sampling from the posterior (Ho et al. 2020, Algorithm 2)."""

    def update(here: _Point, there: _Point, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        mean, std = process.posterior(x, x0, _scalar(here.logsnr), _scalar(there.logsnr))
        return mean if there.b == 0 else mean + std * normal(x.shape, generator, x.device).to(x.dtype)

    return _run(process, _Denoiser(process, model, clip, self_condition), x, steps, update)


def ddim(
    process: Process,
    model: Model,
    x: Tensor,
    steps: int | Sequence[float] = 50,
    *,
    eta: float = 0.0,
    generator: Generators = None,
    clip: float | None = None,
    self_condition: bool = False,
) -> Iterator[Step]:
    """Between the deterministic η = 0 and ancestral η = 1 (Song et al. 2021, Eq. 12 and 16).

    x' = a'·x0 + √(b'² - s²)·eps + s·z with s = η·b'·√(1 - e^(l - l')).
    """
    if not 0 <= eta <= 1:
        raise ConfigError(f"`eta` (={eta}) must be from 0 to 1")

    def update(here: _Point, there: _Point, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        share = eta**2 * -math.expm1(here.logsnr - there.logsnr)  # of the variance b'² that is drawn anew
        x = there.a * x0 + there.b * math.sqrt(1 - share) * eps
        if share == 0 or there.b == 0:
            return x
        return x + there.b * math.sqrt(share) * normal(x.shape, generator, x.device).to(x.dtype)

    return _run(process, _Denoiser(process, model, clip, self_condition), x, steps, update)


def euler(
    process: Process,
    model: Model,
    x: Tensor,
    steps: int | Sequence[float] = 50,
    *,
    generator: Generators = None,
    clip: float | None = None,
    self_condition: bool = False,
) -> Iterator[Step]:
    """Euler's method on the probability-flow ODE, dX/du = eps - x0 in X = x/(a + b), u = b/(a + b).

    X + (u' - u)·(eps - x0) is (1 - u')·x0 + u'·eps: the step of DDIM with η = 0, also if the ODE is written in x/a and
    σ = b/a (Karras et al. 2022). In u it is finite from noise alone to clean.
    """

    def update(here: _Point, there: _Point, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        return there.a * x0 + there.b * eps

    return _run(process, _Denoiser(process, model, clip, self_condition), x, steps, update)


def heun(
    process: Process,
    model: Model,
    x: Tensor,
    steps: int | Sequence[float] = 50,
    *,
    generator: Generators = None,
    clip: float | None = None,
    self_condition: bool = False,
) -> Iterator[Step]:
    """Heun's method on the ODE of `euler`, second order (Karras et al. 2022, Algorithm 1, which steps in σ for u).

    Two evaluations of the model a step, one in the step that ends clean: there eps means nothing.
    """
    denoiser = _Denoiser(process, model, clip, self_condition)

    def update(here: _Point, there: _Point, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        x_euler = there.a * x0 + there.b * eps
        if there.b == 0:
            return x_euler
        x0_there, eps_there = denoiser(x_euler, there.t)
        # to X + (u' - u)·(f + f')/2, f = eps - x0; a' + b' brings X back to x
        half = (there.b / (there.a + there.b) - here.b / (here.a + here.b)) / 2 * (there.a + there.b)
        return x_euler + half * ((eps_there - x0_there) - (eps - x0))

    return _run(process, denoiser, x, steps, update)


def dpmpp_2m(
    process: Process,
    model: Model,
    x: Tensor,
    steps: int | Sequence[float] = 50,
    *,
    generator: Generators = None,
    clip: float | None = None,
    self_condition: bool = False,
) -> Iterator[Step]:
    """DPM-Solver++ of second order with two steps' x0 (Lu et al. 2022, Algorithm 2).

    x' = (b'/b)·x + a'·(1 - e^-h)·D with h = (l' - l)/2, D = x0 + (x0 - x0_prev)·h/(2·h_prev). The first step, and one
    that ends clean, have D = x0.
    """
    previous: tuple[Tensor, float] | None = None

    def update(here: _Point, there: _Point, x: Tensor, x0: Tensor, eps: Tensor) -> Tensor:
        nonlocal previous
        h = (there.logsnr - here.logsnr) / 2
        D = x0
        if previous is not None and math.isfinite(h):
            x0_prev, h_prev = previous
            D = x0 + h / (2 * h_prev) * (x0 - x0_prev)
        previous = x0, h
        return there.b / here.b * x - there.a * math.expm1(-h) * D

    return _run(process, _Denoiser(process, model, clip, self_condition), x, steps, update)


def times(steps: int | Sequence[float]) -> list[float]:
    """The times that a sampler visits, one more than its steps: equally spaced from 1 to 0, or as given."""
    if isinstance(steps, int):
        if steps < 1:
            raise ConfigError(f"`steps` (={steps}) must be at least 1")
        return [1 - i / steps for i in range(steps)] + [0.0]
    values = [float(t) for t in steps]
    falling = all(s > t for s, t in pairwise(values))
    if len(values) < 2 or not falling or not 0 <= values[-1] < values[0] <= 1:
        raise ConfigError(f"`steps` (={values}) must be a number or two or more falling times from 1 to 0")
    return values


SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m}


class _Denoiser:
    """(x, t) -> (x0, eps), which remembers x0 for self-conditioning."""

    def __init__(self, process: Process, model: Model, clip: float | None, self_condition: bool):
        self.process, self.model, self.clip, self.self_condition = process, model, clip, self_condition
        self.x0: Tensor | None = None

    def __call__(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        extra: tuple[Tensor, ...] = ()
        if self.self_condition:
            extra = (torch.zeros_like(x) if self.x0 is None else self.x0,)
        self.x0, eps = denoise(self.process, self.model, x, _scalar(t), *extra, clip=self.clip)
        return self.x0, eps


def _run(
    process: Process, denoiser: _Denoiser, x: Tensor, steps: int | Sequence[float], update: Update
) -> Iterator[Step]:
    """Checks at once, as a generator would not before its first step; then the steps."""
    points = [_point(process, t) for t in times(steps)]
    first = points[0]
    if process.target == "eps" and first.a == 0:
        raise ConfigError(
            f"`target` (='eps') cannot start at `t` (={first.t:g}), where logSNR is {first.logsnr:g}: noise alone does "
            "not tell x0; start at a smaller t or train with target v, flow or x0"
        )
    if not math.isfinite(first.b):
        raise ConfigError(
            f"`scaling` (='ve') cannot start at `t` (={first.t:g}), where logSNR is {first.logsnr:g} and the noise has "
            "no finite size; start at a smaller t or take another schedule or scaling"
        )
    return _iterate(denoiser, x, points, update)


@torch.no_grad()
def _iterate(denoiser: _Denoiser, x: Tensor, points: list[_Point], update: Update) -> Iterator[Step]:
    for index, (here, there) in enumerate(pairwise(points)):
        x0, eps = denoiser(x, here.t)
        x = update(here, there, x, x0, eps)
        yield Step(index, there.t, x, x0)


def _point(process: Process, t: float) -> _Point:
    """Time 0 is clean, also where the schedule stops a little short of infinite SNR."""
    logsnr = _scalar(math.inf) if t == 0 else process.logsnr(_scalar(t))
    a, b = process.scale(logsnr)
    return _Point(t, float(logsnr), float(a), float(b))


def _scalar(value: float) -> Tensor:
    """() float64 on the CPU: exact, and it leaves the dtype and device of what it multiplies."""
    return torch.tensor(value, dtype=torch.float64)
