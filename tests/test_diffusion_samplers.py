"""Samplers against what is known of Gaussian data, and the promises that all of them make."""

import math
from functools import partial
from typing import get_args

import pytest
import torch

from difflate.diffusion import (
    SAMPLERS,
    Cosine,
    Flow,
    Karras,
    LinearBeta,
    Process,
    Scaling,
    Target,
    ddim,
    ddpm,
    dpmpp_2m,
    euler,
    guided,
    heun,
    times,
)
from difflate.errors import ConfigError

SCALINGS, TARGETS = get_args(Scaling), get_args(Target)
MEAN, STD = 0.7, 0.5
ALL = {**SAMPLERS, "ddim-0.5": partial(ddim, eta=0.5)}
DETERMINISTIC = {"ddim": ddim, "euler": euler, "heun": heun, "dpmpp_2m": dpmpp_2m}


def gaussian(process):
    """The exact model of data N(MEAN, STD²); needs the condition logsnr."""

    def model(x, logsnr):
        logsnr = logsnr[0]  # a sampler has one for all items
        a, b = process.scale(logsnr)
        if process.scaling == "ve":
            x = x * (1 + b**2).sqrt()  # undoes network_input
        x0 = MEAN + STD**2 * a / (a**2 * STD**2 + b**2) * (x - a * MEAN)
        return process.target_of(x0, (x - a * x0) / b, logsnr)

    return model


def known(scaling="vp", target="v", schedule=None):
    process = Process(schedule or Cosine(), scaling, target, condition="logsnr")
    return process, gaussian(process)


def last(steps):
    *_, step = steps
    return step


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


# Truth on Gaussian data


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_order_of_convergence(name, order, scaling):
    """Errors against the exact flow, (x - a·MEAN)/√(a²·STD² + b²) constant, as the steps are halved twice."""
    process, model = known(scaling)
    begin, end = 0.95, 0.05
    (a, a_end), (b, b_end) = process.scale(process.logsnr(torch.tensor([begin, end], dtype=torch.float64)))
    x = torch.tensor([[-1.5], [0.3], [2.0]], dtype=torch.float64) * b
    root = ((a_end**2 * STD**2 + b_end**2) / (a**2 * STD**2 + b**2)).sqrt()
    exact = a_end * MEAN + root * (x - a * MEAN)
    errors = []
    for n in (40, 80, 160):
        grid = [begin + (end - begin) * i / n for i in range(n + 1)]
        errors.append((last(DETERMINISTIC[name](process, model, x, grid)).x - exact).abs().max().item())
    measured = [math.log2(errors[0] / errors[1]), math.log2(errors[1] / errors[2])]
    assert measured == pytest.approx([order, order], abs=0.15)


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("schedule", [Cosine(), LinearBeta(), Karras(), Flow()], ids=lambda s: type(s).__name__)
def test_deterministic_samplers_reproduce_mean_and_variance(name, schedule):
    """They are affine in x: two points tell both, from the noise's own mean and variance at t = 1."""
    scaling = {Karras: "ve", Flow: "flow"}.get(type(schedule), "vp")
    process, model = known(scaling, schedule=schedule)
    a, b = process.scale(process.logsnr(torch.tensor(1.0, dtype=torch.float64)))
    mean, std = a * MEAN, (a**2 * STD**2 + b**2).sqrt()
    x = torch.stack([mean, mean + std]).view(2, 1)
    low, high = last(DETERMINISTIC[name](process, model, x, 400)).x.flatten().tolist()
    tolerance = 0.01 if name in ("ddim", "euler") else 5e-4
    assert low == pytest.approx(MEAN, abs=tolerance)
    assert high - low == pytest.approx(STD, abs=tolerance)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("name", ["ddpm", "ddim-0.5"])
def test_stochastic_samplers_reproduce_mean_and_variance(name, scaling):
    process, model = known(scaling)
    generator = torch.Generator().manual_seed(0)
    x = last(ALL[name](process, model, process.start((20_000, 1), generator), 200, generator=generator)).x
    assert x.mean().item() == pytest.approx(MEAN, abs=0.015)
    assert x.std().item() == pytest.approx(STD, abs=0.015)


@pytest.mark.parametrize("name", ALL)
def test_every_scaling_and_target_is_the_same_sampler(name):
    finals = []
    for scaling in SCALINGS:
        for target in TARGETS:
            process, model = known(scaling, target)
            x = process.start((2, 3), torch.Generator().manual_seed(0)).double()
            generator = torch.Generator().manual_seed(1)
            finals.append(last(ALL[name](process, model, x, 12, generator=generator)).x)
    for final in finals[1:]:
        torch.testing.assert_close(final, finals[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("target", ["x0", "v", "flow"])
def test_noise_alone_is_a_start(name, target):
    """Zero SNR: 50 steps come as near to the truth as from a schedule that stops short of it."""
    process, model = known("flow", target, Flow())
    noise = torch.randn(8192, 1, generator=torch.Generator().manual_seed(0))
    x = last(ALL[name](process, model, noise, 50, generator=torch.Generator().manual_seed(1))).x
    assert x.mean().item() == pytest.approx(MEAN, abs=0.03)
    assert x.std().item() == pytest.approx(STD, abs=0.03)


# Samplers against each other


@pytest.mark.parametrize("scaling", SCALINGS)
def test_eta_1_is_ddpm(scaling):
    process, model = known(scaling)
    x = process.start((4, 3), torch.Generator().manual_seed(0)).double()
    runs = (f(process, model, x, 20, generator=torch.Generator().manual_seed(1)) for f in (ddpm, partial(ddim, eta=1)))
    for by_posterior, by_eta in zip(*runs, strict=True):
        torch.testing.assert_close(by_posterior.x, by_eta.x, rtol=0, atol=1e-10)


def test_ddpm_is_the_printed_posterior():
    """Ho et al. 2020, Eq. 6 and 7, with the β of the table."""
    process = Process(LinearBeta(), "vp", "x0")
    beta = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), (1 - beta).cumprod(0)])
    x, x0 = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for n in (1000, 500, 2):
        b, now, before = beta[n - 1], alpha_bar[n], alpha_bar[n - 1]
        mean = before.sqrt() * b / (1 - now) * x0 + (1 - b).sqrt() * (1 - before) / (1 - now) * x
        std = ((1 - before) / (1 - now) * b).sqrt()
        z = torch.randn(1, 64, generator=torch.Generator().manual_seed(1)).double()
        steps = ddpm(process, lambda *_: x0, x[None], [n / 1000, (n - 1) / 1000], generator=generators(1))
        torch.testing.assert_close(last(steps).x[0], mean + std * z[0], rtol=0, atol=1e-9)


def test_euler_is_ddim_without_noise():
    process, model = known("ve", schedule=Karras())
    x = process.start((2, 3), torch.Generator().manual_seed(0)).double()
    for a, b in zip(euler(process, model, x, 9), ddim(process, model, x, 9), strict=True):
        torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-12)


def test_euler_and_heun_are_straight_on_a_straight_flow():
    """One point of data: X moves on a line, which either follows in one step from noise alone."""
    process = Process(Flow(), "flow", "flow", condition="t")
    x = torch.randn(1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sampler in (euler, heun):
        step = last(sampler(process, lambda x, t: (x - 0.3) / t.view(-1, 1), x, [1, 0.25]))
        torch.testing.assert_close(step.x, 0.75 * 0.3 + 0.25 * x)


# What a sampler yields


@pytest.mark.parametrize("name", ALL)
def test_every_step_is_yielded(name):
    process, model = known()
    x = process.start((2, 3, 4, 4), torch.Generator().manual_seed(0))
    steps = list(ALL[name](process, model, x, 5, generator=torch.Generator().manual_seed(0)))
    assert [step.index for step in steps] == [0, 1, 2, 3, 4]
    assert [step.t for step in steps] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0])
    assert all(step.x.shape == step.x0.shape == (2, 3, 4, 4) for step in steps)
    assert all(step.x.dtype == torch.float32 for step in steps)
    torch.testing.assert_close(steps[-1].x, steps[-1].x0)  # time 0 is clean
    first = process.split(x, model(x, torch.full((2,), -15.0)), torch.tensor(-15.0))[0]
    torch.testing.assert_close(steps[0].x0, first)


def test_a_sampler_can_be_left_early_and_counts_its_evaluations():
    process, exact = known()
    calls = []

    def model(x, logsnr):
        calls.append(logsnr[0].item())
        return exact(x, logsnr)

    x = process.start((1, 2), torch.Generator().manual_seed(0))
    next(ddim(process, model, x, 1000))
    assert calls == pytest.approx([-15])
    calls.clear()
    list(heun(process, model, x, 10))
    assert len(calls) == 19  # none at the clean end


def test_sampling_is_without_gradients_and_leaves_their_mode():
    process, exact = known()
    scale = torch.ones((), requires_grad=True)
    for step in ddim(process, lambda x, logsnr: scale * exact(x, logsnr), process.start((1, 2)), 3):
        assert not step.x.requires_grad
        assert torch.is_grad_enabled()


def test_times():
    assert times(4) == [1, 0.75, 0.5, 0.25, 0]
    assert times([0.9, 0.3]) == [0.9, 0.3]
    assert times(torch.tensor([1.0, 0.5])) == [1, 0.5]


@pytest.mark.parametrize("bad", [0, -1, [], [1], [0, 1], [1, 1, 0], [1.5, 0], [1, -0.1], [1, math.nan, 0]])
def test_wrong_times(bad):
    process, model = known()
    with pytest.raises(ConfigError, match="`steps` "):
        ddim(process, model, torch.zeros(1, 2), bad)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_wrong_eta(eta):
    process, model = known()
    with pytest.raises(ConfigError, match="must be from 0 to 1"):
        ddim(process, model, torch.zeros(1, 2), eta=eta)


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_eps_model_cannot_start_at_zero_snr(name):
    """Said when the sampler is called, not when it is iterated."""
    process, model = known("flow", "eps", Flow())
    with pytest.raises(ConfigError) as error:
        SAMPLERS[name](process, model, torch.zeros(1, 2))
    assert str(error.value).startswith("`target` (='eps') cannot start at `t` (=1), where logSNR is -inf")
    assert last(SAMPLERS[name](process, model, torch.zeros(1, 2), [0.99, 0.5, 0])).x.isfinite().all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_ve_cannot_start_at_zero_snr(name):
    process, model = known("ve", "v", Flow())
    with pytest.raises(ConfigError, match=r"`scaling` \(='ve'\) cannot start at `t` \(=1\), where logSNR is -inf"):
        SAMPLERS[name](process, model, torch.zeros(1, 2))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("target", TARGETS)
def test_finite_in_float32_from_logsnr_minus_20_to_20(name, scaling, target):
    """Also for a model that knows nothing."""
    process = Process(Cosine(-20, 20), scaling, target)
    x = process.start((2, 8), torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    for step in ALL[name](process, lambda x, t: x.tanh(), x, [1, 0.999, 0.5, 0.001, 1e-9], generator=generator):
        assert step.x.isfinite().all()
        assert step.x0.isfinite().all()


def test_a_16_bit_model_leaves_the_state_in_float32():
    process, exact = known()
    seen = []

    def model(x, logsnr):
        seen.append(logsnr.dtype)
        return exact(x, logsnr).bfloat16()

    step = last(dpmpp_2m(process, model, process.start((2, 8)), 4))
    assert step.x.dtype == torch.float32
    assert set(seen) == {torch.float32}


# Clipping, self-conditioning, one item and its batch


@pytest.mark.parametrize("name", ALL)
def test_clipping(name):
    process, model = known()
    x = process.start((64, 4), torch.Generator().manual_seed(0))
    steps = list(ALL[name](process, model, x, 8, clip=0.5, generator=torch.Generator().manual_seed(0)))
    assert all(step.x0.abs().max() <= 0.5 for step in steps)
    assert steps[-1].x.abs().max() == 0.5


@pytest.mark.parametrize("name", SAMPLERS)
def test_self_conditioning_gives_the_last_x0(name):
    process, exact = known()
    given = []

    def model(x, logsnr, x0):
        given.append(x0)
        return exact(x, logsnr)

    x = process.start((2, 4), torch.Generator().manual_seed(0))
    steps = list(SAMPLERS[name](process, model, x, 4, self_condition=True))
    assert given[0].abs().max() == 0
    per_step = 2 if name == "heun" else 1
    for index in range(3):
        assert torch.equal(given[index * per_step + 1], steps[index].x0)


@pytest.mark.parametrize("name", ALL)
def test_an_item_does_not_depend_on_its_batch(name):
    """Bit for bit, with everything on: guidance per item with rescale, clipping, self-conditioning."""
    process = Process(Cosine(), "vp", "v")
    weights = {11: 1.5, 12: 3.0, 13: 0.5}

    def sample(*seeds):
        noise = generators(*seeds)
        model = guided(
            lambda x, t, x0: 0.3 * x + 0.2 * x0 - t.view(-1, 1, 1, 1),
            lambda x, t, x0: 0.1 * x * x - 0.3 * x0,
            torch.tensor([weights[seed] for seed in seeds]),
            rescale=0.7,
        )
        x = process.start((len(seeds), 3, 8, 8), noise)
        x = last(ALL[name](process, model, x, 6, generator=noise, clip=1, self_condition=True)).x
        return dict(zip(seeds, x, strict=True))

    together = sample(11, 12, 13)
    assert not torch.equal(together[11], together[12])
    for others in (sample(13, 11, 12), sample(12, 11), sample(11), sample(13)):
        for seed, image in others.items():
            assert torch.equal(image, together[seed])


def test_one_generator_for_each_item_or_one():
    process, model = known()
    with pytest.raises(ConfigError, match=r"`generator` \(=2 of them\) must be one or as many as items \(=3\)"):
        process.start((3, 2), generators(1, 2))
    x = process.start((2, 2), torch.Generator().manual_seed(0))
    again = process.start((2, 2), torch.Generator().manual_seed(0))
    assert torch.equal(x, again)
    torch.manual_seed(0)
    globally = last(ddpm(process, model, x, 3)).x
    torch.manual_seed(0)
    assert torch.equal(last(ddpm(process, model, x, 3)).x, globally)
