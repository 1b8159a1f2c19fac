"""Schedules, scalings, targets, weights and noise conditions against their closed forms."""

import math
import statistics
from typing import get_args

import pytest
import torch

from difflate.diffusion import (
    EDM,
    P2,
    SCHEDULES,
    WEIGHTS,
    Condition,
    Constant,
    Cosine,
    Flow,
    Karras,
    LinearBeta,
    MinSNR,
    Process,
    Scaling,
    Sech,
    Shifted,
    Target,
    Truncated,
    factor,
)
from difflate.errors import ConfigError

SCALINGS, TARGETS = get_args(Scaling), get_args(Target)
LOGSNR = torch.linspace(-20, 20, 41, dtype=torch.float64)


def process(scaling="vp", target="v", schedule=None, **options):
    return Process(schedule or Cosine(), scaling, target, **options)


def pair(dtype, batch=41):
    """x0 and eps: (batch, 3, 4, 4)."""
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, batch, 3, 4, 4, generator=generator, dtype=torch.float64)
    return x0.to(dtype), eps.to(dtype)


# Schedules


def test_cosine_is_cos_squared_between_its_limits():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    wide = Cosine(-60, 60)(t[1:-1]).sigmoid()
    torch.testing.assert_close(wide, (math.pi / 2 * t[1:-1]).cos() ** 2, rtol=0, atol=1e-12)
    assert Cosine()(t)[[0, 50, 100]].tolist() == pytest.approx([15, 0, -15], abs=1e-9)
    assert Cosine(-10, 20)(t)[[0, 100]].tolist() == pytest.approx([20, -10], abs=1e-9)


def test_cosine_keeps_its_digits_in_float32():
    t = torch.linspace(0, 1, 1001)
    for limit in (15, 20, 30):
        exact = Cosine(-limit, limit)(t.double())
        torch.testing.assert_close(Cosine(-limit, limit)(t).double(), exact, rtol=0, atol=1e-3)


def test_linear_is_the_schedule_of_ddpm_at_each_of_its_steps():
    beta = [1e-4 + (2e-2 - 1e-4) * i / 999 for i in range(1000)]
    alpha_bar = torch.tensor([math.prod(1 - b for b in beta[:n]) for n in range(1, 1001)], dtype=torch.float64)
    logsnr = LinearBeta()(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    torch.testing.assert_close(logsnr.sigmoid(), alpha_bar, rtol=1e-11, atol=0)
    torch.testing.assert_close(logsnr, (alpha_bar / (1 - alpha_bar)).log(), rtol=0, atol=1e-10)
    assert LinearBeta()(torch.zeros(1)).item() == math.inf  # step 0 is clean


def test_linear_has_constant_beta_between_steps():
    halves = torch.arange(1, 2000, 2, dtype=torch.float64) / 2000
    minus_log = lambda t: -LinearBeta()(t).sigmoid().log()  # noqa: E731
    mean = (minus_log(halves - 0.0005) + minus_log(halves + 0.0005)) / 2
    torch.testing.assert_close(minus_log(halves), mean, rtol=0, atol=1e-12)


def test_linear_in_float32_and_with_other_numbers_of_steps():
    t = torch.arange(1, 1001) / 1000
    torch.testing.assert_close(LinearBeta()(t).double(), LinearBeta()(t.double()), rtol=0, atol=2e-4)
    t = torch.tensor([1 / 20_000, 1.0], dtype=torch.float64)
    first, last = LinearBeta(20_000, 5e-6, 1e-3)(t).sigmoid().tolist()
    assert first == pytest.approx(1 - 5e-6, abs=1e-12)
    assert last == pytest.approx(math.exp(-20_000 * (5e-6 + 1e-3) / 2), rel=1e-2)


def test_karras_is_the_printed_grid_of_sigmas():
    i, n = torch.arange(18, dtype=torch.float64), 18
    sigma = (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close((-Karras()(1 - i / (n - 1)) / 2).exp(), sigma, rtol=1e-12, atol=0)


def test_flow_with_the_flow_scaling_is_a_straight_line():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    a, b = process("flow", schedule=Flow()).scale(Flow()(t))
    torch.testing.assert_close(a, 1 - t, rtol=0, atol=1e-15)
    torch.testing.assert_close(b, t, rtol=0, atol=1e-15)
    assert Flow()(t)[[0, -1]].tolist() == [math.inf, -math.inf]


def test_shift():
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    torch.testing.assert_close(Shifted(Cosine(), 4)(t), Cosine()(t) - 2 * math.log(4))
    torch.testing.assert_close(Shifted(Flow(), 3)(t), Flow()(3 * t / (1 + 2 * t)))  # Esser et al. 2024, Eq. 23


@pytest.mark.parametrize("schedule", [*(make() for make in SCHEDULES.values()), Shifted(Cosine(), 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_schedules_fall(schedule, dtype):
    t = torch.linspace(0, 1, 257, dtype=dtype)
    logsnr = schedule(t)
    assert logsnr.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    assert (logsnr.diff() < 0).all()
    assert schedule(t[100]).shape == ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cosine(15, -15), "`logsnr_min` (=15) must be below `logsnr_max` (=-15)"),
        (lambda: LinearBeta(steps=0), "`steps` (=0) must be above 0"),
        (lambda: LinearBeta(beta_max=1.5), "`beta_max` (=1.5) must be below"),
        (lambda: Karras(sigma_min=0), "`sigma_min` (=0) must be above 0"),
        (lambda: Shifted(Cosine(), -1), "`shift` (=-1) must be above 0"),
        (lambda: MinSNR(-5), "`gamma` (=-5) must be above 0"),
        (lambda: Constant("noise"), "`on` (='noise') must be one of 'x0', 'eps', 'v', 'flow'"),
        (lambda: process("vx"), "`scaling` (='vx') must be one of 'vp', 've', 'flow'"),
        (lambda: process(target="z"), "`target` (='z') must be one of"),
        (lambda: process(condition="time"), "`condition` (='time') must be one of"),
        (lambda: process(N=0), "`N` (=0) must be above 0"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ConfigError) as error:
        make()
    assert message in str(error.value)


# Scalings and targets


def test_scalings_have_the_signal_to_noise_ratio_and_their_constraint():
    for scaling, constraint in {
        "vp": lambda a, b: a**2 + b**2,
        "ve": lambda a, b: a,
        "flow": lambda a, b: a + b,
    }.items():
        a, b = process(scaling).scale(LOGSNR)
        torch.testing.assert_close(2 * (a / b).log(), LOGSNR)
        torch.testing.assert_close(constraint(a, b), torch.ones_like(a))


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("target", TARGETS)
def test_round_trip(scaling, target):
    p = process(scaling, target)
    for dtype, logsnr in ((torch.float64, LOGSNR), (torch.float32, torch.linspace(-1, 1, len(LOGSNR)))):
        x0, eps = pair(dtype)
        x = p.noise(x0, eps, logsnr.to(dtype))
        x0_again, eps_again = p.split(x, p.target_of(x0, eps, logsnr.to(dtype)), logsnr.to(dtype))
        torch.testing.assert_close(x0_again, x0, rtol=0, atol=1e-6 if dtype == torch.float64 else 3e-6)
        torch.testing.assert_close(eps_again, eps, rtol=0, atol=1e-6 if dtype == torch.float64 else 3e-6)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("target", TARGETS)
def test_finite_in_float32_at_logsnr_20(scaling, target):
    p = process(scaling, target, weighting=Constant())
    logsnr, (x0, eps) = LOGSNR.float(), pair(torch.float32)
    x = p.noise(x0, eps, logsnr)
    y = p.target_of(x0, eps, logsnr)
    # a wrong prediction too: y of another image
    results = [x, y, *p.split(x, y, logsnr), *p.split(x, y.flip(0), logsnr), p.network_input(x, logsnr)]
    results += [*p.posterior(x, x0, logsnr, logsnr + 1), p.weight(logsnr)]
    assert all(result.isfinite().all() for result in results)
    assert all(result.dtype == torch.float32 for result in results)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_ends_are_exact(scaling):
    x0, eps = pair(torch.float32, 1)
    clean, noise = torch.tensor([math.inf]), torch.tensor([-math.inf])
    p = process(scaling, "v")
    assert torch.equal(p.noise(x0, eps, clean), x0)
    if scaling != "ve":
        assert torch.equal(p.noise(x0, eps, noise), eps)
        for target in ("x0", "v", "flow"):
            p = process(scaling, target)
            torch.testing.assert_close(p.split(eps, p.target_of(x0, eps, noise), noise)[0], x0)


def test_one_logsnr_for_all_items_leaves_the_dtype():
    for dtype in (torch.float32, torch.float64):
        x0, eps = pair(dtype, 2)
        one = torch.tensor(1.5, dtype=torch.float64)
        assert process().noise(x0, eps, one).dtype == dtype
        torch.testing.assert_close(process().noise(x0, eps, one), process().noise(x0, eps, one.repeat(2).to(dtype)))


def test_v_is_the_same_number_under_every_scaling():
    x0, eps = pair(torch.float64)
    alpha_bar = LOGSNR.sigmoid().view(-1, 1, 1, 1)
    v = alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x0
    for scaling in SCALINGS:
        torch.testing.assert_close(process(scaling, "v").target_of(x0, eps, LOGSNR), v, rtol=0, atol=1e-9)


def test_edm_at_unit_data_is_v_under_ve():
    """F of Karras et al. 2022, Table 1, with c_skip, c_out and c_in at σ_data = 1, has x0, eps and loss of v = -F."""
    p = process("ve", "v", weighting=EDM())
    x0, eps = pair(torch.float64)
    F = eps.flip(0)  # any network output
    sigma = (-LOGSNR / 2).exp().view(-1, 1, 1, 1)
    x = x0 + sigma * eps
    c_skip, c_out, c_in = 1 / (1 + sigma**2), sigma / (1 + sigma**2).sqrt(), 1 / (1 + sigma**2).sqrt()
    torch.testing.assert_close(p.network_input(x, LOGSNR), c_in * x)
    torch.testing.assert_close(p.split(x, -F, LOGSNR)[0], c_skip * x + c_out * F)
    assert p.weight(LOGSNR).tolist() == pytest.approx([1] * len(LOGSNR))  # EDM's effective weight on F is 1
    for scaling in ("vp", "flow"):
        assert process(scaling).network_input(x, LOGSNR) is x


@pytest.mark.parametrize("scaling", SCALINGS)
def test_posterior_is_bayes_rule(scaling):
    """From q(x_r | x0) and q(x_l | x_r), by the product of two Gaussians."""
    p, logsnr, logsnr_to = process(scaling), LOGSNR[:-1], LOGSNR[1:]
    x0, x = pair(torch.float64, len(logsnr))
    a, b, a_to, b_to = (s.view(-1, 1, 1, 1) for s in (*p.scale(logsnr), *p.scale(logsnr_to)))
    k, variance = a / a_to, b**2 - (a / a_to * b_to) ** 2  # x_l = k·x_r + N(0, variance)
    precision = 1 / b_to**2 + k**2 / variance
    mean, std = p.posterior(x, x0, logsnr, logsnr_to)
    torch.testing.assert_close(mean, (a_to * x0 / b_to**2 + k * x / variance) / precision)
    torch.testing.assert_close(std, precision.rsqrt())


# Weights


def test_weights_are_their_formulas():
    snr = LOGSNR.exp()
    formulas = {
        Constant(): torch.ones_like(snr),
        Constant("eps"): snr,
        Constant("v"): snr + 1,
        Constant("flow"): (1 + snr.sqrt()) ** 2,
        MinSNR(): snr.clamp(max=5),
        MinSNR(2): snr.clamp(max=2),
        P2(): snr / (1 + snr),
        P2(2, 0.5): snr / (2 + snr) ** 0.5,
        Sech(): 2 / (snr**0.5 + snr**-0.5),
        Sech(4): 2 / (snr**0.25 + snr**-0.25),
        Truncated(): snr.clamp(min=1),
        EDM(): snr + 1,
        EDM(0.5): snr + 4,
    }
    assert {type(weight) for weight in formulas} == set(WEIGHTS.values())
    for weight, expected in formulas.items():
        torch.testing.assert_close(weight(LOGSNR), expected)


@pytest.mark.parametrize("make", WEIGHTS.values(), ids=WEIGHTS)
def test_a_weighted_loss_is_the_same_number_for_every_target(make):
    x0, eps = pair(torch.float64)
    x0_guess = x0 + 0.1 * eps.flip(0)
    expected = make()(LOGSNR) * (x0_guess - x0).square().mean((1, 2, 3))
    for scaling in SCALINGS:
        for target in TARGETS:
            p = process(scaling, target, weighting=make())
            x = p.noise(x0, eps, LOGSNR)
            a, b = (s.view(-1, 1, 1, 1) for s in p.scale(LOGSNR))
            y, y_guess = (p.target_of(x0_, (x - a * x0_) / b, LOGSNR) for x0_ in (x0, x0_guess))
            loss = p.weight(LOGSNR) * (y_guess - y).square().mean((1, 2, 3))
            torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("target", TARGETS)
def test_factor_is_b_over_d_squared(scaling, target):
    p = process(scaling, target)
    (a, b), (p_, q) = p.scale(LOGSNR), p.coefficients(LOGSNR)
    torch.testing.assert_close(factor(target, LOGSNR), (b / (a * q - b * p_)) ** 2)


@pytest.mark.parametrize("make", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("target", TARGETS)
def test_weights_are_finite_at_the_ends(make, target):
    p = process(target=target, weighting=make())
    assert p.weight(torch.tensor([-math.inf, -100, 100, math.inf])).isfinite().all()


def test_without_a_weighting_the_target_error_counts_1():
    assert process(target="eps").weight(torch.zeros(2)).tolist() == [1, 1]
    on_own_target = process(target="eps", weighting=Constant("eps")).weight(LOGSNR)
    torch.testing.assert_close(on_own_target, torch.ones_like(LOGSNR))


# Noise conditions and times


def test_noise_conditions():
    t = torch.tensor([0.0, 0.1, 0.4, 1.0], dtype=torch.float64)
    conditions = {c: process(condition=c, N=4).noise_condition(t).tolist() for c in get_args(Condition)}
    assert conditions["t"] == [0, 0.1, 0.4, 1]
    assert conditions["logsnr"] == pytest.approx(Cosine()(t).tolist())
    assert conditions["sigma"] == pytest.approx((-Cosine()(t) / 2).exp().tolist())
    assert conditions["n/N"] == [0, 0, 0.5, 1]


def test_noise_conditions_are_finite_where_logsnr_is_not():
    ends = torch.tensor([0.0, 1.0])
    for condition in get_args(Condition):
        assert process(schedule=Flow(), condition=condition).noise_condition(ends).isfinite().all()


def test_logit_normal_times_are_what_their_distribution_says() -> None:
    """A tenth uniform, the others 1/(1 + e^-n), n ~ N(0, 1): against the mixture's distribution function."""
    u = (torch.arange(100_000, dtype=torch.float32) + 0.5) / 100_000
    times = process(times="logit-normal").training_times(u)
    assert 0 <= times.min() < times.max() <= 1
    for t in (0.01, 0.1, 0.3, 0.5, 0.8, 0.99):
        expected = 0.1 * t + 0.9 * statistics.NormalDist().cdf(math.log(t / (1 - t)))
        assert float((times <= t).float().mean()) == pytest.approx(expected, abs=1e-3)
    edges = process(times="logit-normal").training_times(torch.tensor([0.0, 0.05, 0.1, 0.55, 1 - 2**-24]))
    torch.testing.assert_close(edges[:4], torch.tensor([0.0, 0.5, 0.0, 0.5]), atol=1e-3, rtol=0)
    assert edges[4] > 0.98
    discrete = process(times="logit-normal", condition="n/N", N=4).training_times(u)
    assert set(discrete.tolist()) == {0.25, 0.5, 0.75, 1.0}


def test_times_to_train_at():
    t = process().draw_times(10_000, torch.Generator().manual_seed(0))
    assert t.min() >= 0
    assert t.max() < 1
    assert t.mean().item() == pytest.approx(0.5, abs=0.02)
    discrete = process(condition="n/N", N=4).draw_times(1000, torch.Generator().manual_seed(0))
    assert discrete.unique().tolist() == [0.25, 0.5, 0.75, 1]


def test_start_has_the_std_of_the_noise():
    generator = torch.Generator().manual_seed(0)
    assert process().start((4, 5000), generator).std().item() == pytest.approx(1, abs=0.03)
    wide = process("ve", schedule=Karras()).start((4, 5000), generator)
    assert wide.std().item() == pytest.approx(math.hypot(1, 80), rel=0.03)
    late = process("flow", schedule=Flow()).start((4, 5000), generator, t=0.5)
    assert late.std().item() == pytest.approx(math.hypot(0.5, 0.5), rel=0.03)
    with pytest.raises(
        ConfigError, match=r"`scaling` \(='ve'\) has no finite noise at `t` \(=1\), where logSNR is -inf"
    ):
        process("ve", schedule=Flow()).start((1, 2))
