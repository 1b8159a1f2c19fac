"""Consistency and direct distillation against what is known of Gaussian data."""

import copy
import itertools
import math
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from difflate.diffusion import (
    Cosine,
    Flow,
    Karras,
    LinearBeta,
    Process,
    Scaling,
    Target,
    consistency,
    consistency_pair,
    ddim,
    ddim_step,
    distillation_pair,
    expand,
    few_steps,
    pseudo_huber,
    times,
)
from difflate.errors import ConfigError

MEAN, STD = 0.7, 0.5


def item_scale(process, logsnr, x):
    return (expand(s, x) for s in process.scale(logsnr))


def model_of(process, x0_of):
    """The model whose x0 is ``x0_of(x, a, b)``; needs the condition logsnr."""

    def model(x: Tensor, logsnr: Tensor, *extra: Tensor) -> Tensor:
        a, b = item_scale(process, logsnr, x)
        if process.scaling == "ve":
            x = x * (1 + b**2).sqrt()  # undoes network_input
        x0 = x0_of(x, a, b)
        return process.target_of(x0, (x - a * x0) / b, logsnr)

    return model


def denoised(x, a, b):
    return MEAN + STD**2 * a / (a**2 * STD**2 + b**2) * (x - a * MEAN)


def ode_end(x, a, b):
    """(x - a·μ)/√(a²s² + b²) is the same all along the ODE, and at its end x0 = μ + s times that."""
    return MEAN + STD * (x - a * MEAN) / (a**2 * STD**2 + b**2).sqrt()


def known(scaling: Scaling = "vp", target: Target = "v", schedule=None, data: int = 512):
    """(process, exact denoiser, exact consistency function, x0, eps)."""
    process = Process(schedule or Cosine(), scaling, target, condition="logsnr")
    generator = torch.Generator().manual_seed(0)
    x0 = MEAN + STD * torch.randn(data, 4, generator=generator)
    return (
        process,
        model_of(process, denoised),
        model_of(process, ode_end),
        x0,
        torch.randn(data, 4, generator=generator),
    )


def neighbours(steps: int, count: int) -> tuple[Tensor, Tensor]:
    grid = torch.tensor(times(steps))
    place = torch.arange(count) % steps
    return grid[place], grid[place + 1]


@pytest.mark.parametrize("target", get_args(Target))
@pytest.mark.parametrize("scaling", get_args(Scaling))
def test_a_step_with_a_time_for_each_item_is_that_of_ddim(scaling: Scaling, target: Target) -> None:
    process, model, _, x0, eps = known(scaling, target, data=3)
    begins, ends = torch.tensor([0.9, 0.5, 0.2]), torch.tensor([0.7, 0.3, 0.0])
    x = process.noise(x0, eps, process.logsnr(begins))
    there, guess = ddim_step(process, model, x, begins, ends, clip=1.0)
    for i in range(3):
        (step,) = ddim(process, model, x[i : i + 1], [float(begins[i]), float(ends[i])], clip=1.0)
        torch.testing.assert_close(there[i : i + 1], step.x, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(guess[i : i + 1], step.x0, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("schedule", [Cosine(), Karras(), LinearBeta(), Flow()])
@pytest.mark.parametrize("target", get_args(Target))
@pytest.mark.parametrize("scaling", get_args(Scaling))
def test_the_consistency_function_is_the_identity_at_time_0(scaling: Scaling, target: Target, schedule) -> None:
    process, _, truth, x0, _ = known(scaling, target, schedule, data=8)
    f = consistency(process, truth, x0, torch.zeros(8))
    assert torch.equal(f, x0)


@pytest.mark.parametrize("target", ["v", "eps", "flow"])
def test_at_the_smallest_noise_any_network_is_nearly_the_identity(target: Target) -> None:
    """The skip comes with the target; 2/255 is one level of 8 bits."""
    process = Process(Cosine(), target=target, condition="logsnr")
    x = torch.linspace(-1, 1, 64)[:, None]
    wild = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    (x0, _) = process.split(x, wild, torch.tensor(15.0))
    assert (x0 - x).abs().max() < 2 / 255 / 2


@pytest.mark.parametrize("target", get_args(Target))
@pytest.mark.parametrize("scaling", get_args(Scaling))
def test_the_truth_costs_nothing_as_steps_grow_many(scaling: Scaling, target: Target) -> None:
    """One DDIM step is right up to the square of its length."""
    process, teacher, truth, x0, eps = known(scaling, target)
    found = []
    for steps in (25, 50, 100):
        t, r = neighbours(steps, len(x0))
        x = process.noise(x0, eps, process.logsnr(t))
        pair = consistency_pair(process, truth, truth, teacher, x, t, r)
        # nearly clean and nearly noise alone the relative step in σ is large, whatever the number of steps
        middle = (t > 0.2) & (t < 0.8)
        found.append((pair.found - pair.wanted)[middle].abs().mean().item())
    assert found[-1] < 1e-3
    for coarse, fine in itertools.pairwise(found):
        assert 1.8 < math.log2(coarse / fine) < 2.2


def test_the_gradient_points_to_the_truth() -> None:
    """A student that is off by δ in all of x0 gets the gradient of its sign."""
    process, teacher, truth, x0, eps = known()
    t, r = neighbours(100, len(x0))
    x = process.noise(x0, eps, process.logsnr(t))
    for offset in (-0.3, -0.05, 0.05, 0.3):
        delta = torch.tensor(offset, requires_grad=True)
        student = model_of(process, lambda x, a, b: ode_end(x, a, b) + delta)  # noqa: B023
        for pair in (
            consistency_pair(process, student, truth, teacher, x, t, r),
            distillation_pair(process, student, teacher, process.start(x.shape), steps=1, teacher_steps=100),
        ):
            (slope,) = torch.autograd.grad(pseudo_huber(pair.found, pair.wanted).mean(), delta)
            assert slope.sign() == math.copysign(1, offset)
            assert not pair.wanted.requires_grad


def test_pseudo_huber() -> None:
    """Quadratic near 0, a distance far away, and as published but for √D."""
    x, y = torch.randn(2, 5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    d = 3 * 8 * 8
    c = 0.00054 * math.sqrt(d)
    published = ((x - y).flatten(1).norm(dim=1) ** 2 + c**2).sqrt() - c
    torch.testing.assert_close(pseudo_huber(x, y), published / math.sqrt(d))
    assert pseudo_huber(x, x).abs().max() == 0
    small = pseudo_huber(torch.full((1, 4), 1e-3, dtype=torch.float64), torch.zeros(1, 4), c=1.0)
    assert small.item() == pytest.approx(5e-7, rel=1e-3)
    with pytest.raises(ConfigError, match="`c`"):
        pseudo_huber(x, y, 0.0)


class PerTime(nn.Module):
    """x0 = scale·x + offset, with two numbers for each time of a grid: it can say all that Gaussian data asks."""

    def __init__(self, process: Process, steps: int):
        super().__init__()
        self.process, self.grid = process, torch.tensor(times(steps)[:-1])
        self.scale, self.offset = nn.Parameter(torch.zeros(steps)), nn.Parameter(torch.zeros(steps))

    def forward(self, x: Tensor, logsnr: Tensor) -> Tensor:
        place = (self.process.logsnr(self.grid) - logsnr[:, None]).abs().argmin(1)
        a, b = item_scale(self.process, logsnr, x)
        x0 = self.scale[place][:, None] * x + self.offset[place][:, None]
        return self.process.target_of(x0, (x - a * x0) / b, logsnr)


def test_consistency_training_finds_where_the_ode_ends() -> None:
    """Of a student that begins as its teacher."""
    steps, count = 24, 800
    process, teacher, truth, _, _ = known()
    student = PerTime(process, steps)
    a, b = process.scale(process.logsnr(student.grid))
    with torch.no_grad():
        student.scale.copy_(STD**2 * a / (a**2 * STD**2 + b**2))
        student.offset.copy_(MEAN - student.scale * a * MEAN)
    averaged = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.Adam(student.parameters())
    generator = torch.Generator().manual_seed(0)
    t, r = neighbours(steps, 16 * steps)
    for step in range(count):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / count)
        x0 = MEAN + STD * torch.randn(len(t), 4, generator=generator)
        x = process.noise(x0, torch.randn(x0.shape, generator=generator), process.logsnr(t))
        pair = consistency_pair(process, student, averaged, teacher, x, t, r)
        optimizer.zero_grad()
        pseudo_huber(pair.found, pair.wanted).mean().backward()
        optimizer.step()
        for mean, value in zip(averaged.parameters(), student.parameters(), strict=True):
            mean.lerp_(value.detach(), 0.1)  # the student itself in its place runs away
    noise, begin = process.start((2000, 1), generator), torch.ones(2000)
    found, before = (consistency(process, model, noise, begin).detach() for model in (student, teacher))
    *_, end = ddim(process, teacher, noise, steps)
    torch.testing.assert_close(found, end.x, rtol=0, atol=1e-3)  # all of the teacher's own steps
    exact = consistency(process, truth, noise, begin)
    assert (found - exact).abs().mean() < 0.03 < 0.3 < (before - exact).abs().mean()


@pytest.mark.parametrize("steps", [1, 2])
def test_the_distilled_student_ends_where_the_teacher_does(steps: int) -> None:
    process, teacher, truth, _, _ = known()
    student = PerTime(process, steps)
    optimizer = torch.optim.LBFGS(student.parameters(), max_iter=100)
    noise = process.start((256, 1), torch.Generator().manual_seed(0))

    def loss() -> Tensor:
        optimizer.zero_grad()
        pair = distillation_pair(process, student, teacher, noise, steps=steps, teacher_steps=64)
        value = (pair.found - pair.wanted).square().mean()
        value.backward()
        return value

    optimizer.step(loss)
    assert loss() < 1e-6
    fresh = process.start((1000, 1), torch.Generator().manual_seed(1))
    *_, end = ddim(process, teacher, fresh, 64)
    *_, few = ddim(process, student, fresh, steps)  # as a sampler runs it
    torch.testing.assert_close(few.x, end.x, rtol=0, atol=5e-3)
    exact = consistency(process, truth, fresh, torch.ones(len(fresh)))
    torch.testing.assert_close(few.x, exact, rtol=0, atol=0.05)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_few_steps_are_those_of_ddim_with_a_gradient(steps: int) -> None:
    process, teacher, _, _, _ = known()
    noise = process.start((32, 2), torch.Generator().manual_seed(0)).requires_grad_()
    end = few_steps(process, teacher, noise, steps)
    *_, last = ddim(process, teacher, noise.detach(), steps)
    torch.testing.assert_close(end.detach(), last.x, rtol=1e-4, atol=1e-5)
    (slope,) = torch.autograd.grad(end.sum(), noise)
    assert slope.abs().min() > 0 if steps > 1 else slope.isfinite().all()


def test_a_teacher_that_sees_its_own_answer_is_given_it() -> None:
    process, teacher, truth, x0, eps = known(data=4)
    seen = []

    def self_conditioned(x: Tensor, condition: Tensor, x0_prev: Tensor) -> Tensor:
        seen.append(x0_prev)
        return teacher(x, condition)

    t, r = neighbours(8, 4)
    x = process.noise(x0, eps, process.logsnr(t))
    consistency_pair(process, truth, truth, self_conditioned, x, t, r, self_conditioned=True)
    assert seen[0].abs().max() == 0
    torch.testing.assert_close(seen[1], consistency(process, teacher, x, t))
