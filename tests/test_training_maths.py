"""Closed forms of the training: learning rate, moving average, loss."""

import math

import pytest
import torch
from torch import nn

from difflate.diffusion import Cosine, MinSNR, Process
from difflate.errors import ConfigError
from difflate.seeds import torch_generator
from difflate.train.average import Average, exponent
from difflate.train.diffusion_loss import diffusion_loss
from difflate.train.draws import Draws
from difflate.train.learning_rate import learning_rate
from difflate.train.structure import psnr_db


@pytest.mark.parametrize(
    ("decay", "step", "done", "expected"),
    [
        ("constant", 0, 0.0, 0.1),
        ("constant", 9, 0.5, 1.0),
        ("linear", 100, 0.25, 0.75),
        ("cosine", 100, 0.5, 0.5),
        ("cosine", 100, 1.0, 0.0),
        ("inverse-sqrt", 100, 0.5, 1.0),
        ("inverse-sqrt", 800, 0.9, 0.5),
    ],
)
def test_learning_rate(decay, step: int, done: float, expected: float) -> None:
    rate = learning_rate(2.0, step, 10, decay, done, decay_steps=200)
    assert rate == pytest.approx(2 * expected, abs=1e-12)


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.2])
def test_the_average_has_the_profile_and_the_width_asked_for(sigma_rel: float) -> None:
    """Weights that are 1 at step k alone show what the average makes of step k: t^γ, with that standard deviation."""
    gamma, steps = exponent(sigma_rel), 400
    trained = nn.Linear(steps, 1, bias=False)
    average = Average(trained, sigma_rel)
    for step in range(1, steps + 1):
        with torch.no_grad():
            trained.weight.zero_()
            trained.weight[0, step - 1] = 1
        average.update(step)
    profile = average.tensors["weight"][0].double()
    t = torch.arange(1, steps + 1, dtype=torch.float64)
    assert profile.sum() == pytest.approx(1, abs=1e-5)
    ideal = t**gamma / (t**gamma).sum()
    assert (profile - ideal).abs().max() < 0.05 * ideal.max()
    mean = (profile * t).sum()
    assert ((profile * (t - mean) ** 2).sum().sqrt() / steps).item() == pytest.approx(sigma_rel, rel=0.03)


def test_the_first_step_forgets_the_start() -> None:
    trained = nn.Linear(2, 2)
    average = Average(trained, 0.1)
    torch.nn.init.ones_(trained.weight)
    average.update(1)
    assert torch.equal(average.tensors["weight"], trained.weight)


def test_the_average_takes_the_place_of_the_weights_and_gives_it_back() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average = Average(model, 0.1)
    with torch.no_grad():
        for value in model.state_dict().values():
            value += 1
    after = {name: value.clone() for name, value in model.state_dict().items()}
    with average.swap_in():
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, after[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("sigma_rel", [-0.1, 0.28, 3.0])
def test_widths_that_no_profile_has(sigma_rel: float) -> None:
    with pytest.raises(ConfigError, match="ema"):
        exponent(sigma_rel)


def test_psnr_is_that_of_8_bit_levels() -> None:
    images = torch.zeros(2, 3, 4, 4)
    off = torch.tensor([1.0, 10.0])[:, None, None, None] / 127.5
    expected = (20 * math.log10(255) + 20 * math.log10(25.5)) / 2
    assert psnr_db(images + off, images).item() == pytest.approx(expected, abs=1e-3)


def test_the_loss_is_the_weighted_error_of_the_target() -> None:
    """A network that answers zeros has the squared target as its error, whose mean over noise is known."""
    process = Process(Cosine(), target="v", weighting=MinSNR())
    x0 = torch.full((4096, 1, 2, 2), 0.5)
    draws = Draws(0, torch.arange(4096), 4096)
    losses = diffusion_loss(process, lambda x, condition: torch.zeros_like(x), x0, draws)
    t = process.training_times(draws.uniform())
    a, b = process.scale(process.logsnr(t))
    expected = process.weight(process.logsnr(t)) * (a**2 + 0.25 * b**2)  # v = a·eps - b·x0
    assert losses.mean().item() == pytest.approx(expected.mean().item(), rel=0.03)


def test_the_loss_of_the_exact_answer_is_zero() -> None:
    process = Process(Cosine(), target="eps")
    x0 = torch.randn(64, 3, 4, 4, generator=torch_generator(1, 0)).clamp(-1, 1)

    def knows(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a, b = (s.view(-1, 1, 1, 1) for s in process.scale(process.logsnr(t)))
        return (x - a * x0) / b

    losses = diffusion_loss(process, knows, x0, Draws(0, torch.arange(64), 64))
    assert losses[1:].max() < 1e-4  # at the first time, nearly clean, x tells little of eps
    assert math.isfinite(losses.sum().item())


def test_self_conditioning_gives_the_network_its_own_x0_half_of_the_time() -> None:
    process = Process(Cosine(), target="x0")
    given = []

    def network(x: torch.Tensor, t: torch.Tensor, x0_prev: torch.Tensor) -> torch.Tensor:
        given.append(float(x0_prev.abs().max()))
        return torch.full_like(x, 0.25)

    for step in range(40):
        numbers = torch.arange(step * 2, step * 2 + 2)
        diffusion_loss(process, network, torch.zeros(2, 1, 2, 2), Draws(5, numbers, 2), self_conditioned=True)
    own = given.count(0.25)
    assert 10 <= own <= 30
    assert len(given) == 40 + own  # one pass more where it is given its own
