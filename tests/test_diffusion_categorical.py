"""The categorical reverse process against its equations and its limits."""

import math

import pytest
import torch

from difflate.diffusion import (
    Cosine,
    IndexSpace,
    LinearBeta,
    Process,
    ddpm,
    dpmpp_2m,
    eps_z,
    expected_codewords,
    gumbel,
    gumbel_softmax,
    sampled_x0,
)
from difflate.errors import ConfigError

SPACE = IndexSpace((4, 256, 7))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def indices(batch=2):
    return torch.stack([torch.randint(0, k, (batch, 5, 6), generator=seeded(k)) for k in SPACE.sizes], dim=1)


# Index space


def test_indices_have_places_from_minus_1_to_1():
    k = torch.tensor([[[[0]], [[0]], [[0]]], [[[3]], [[255]], [[6]]], [[[1]], [[51]], [[3]]]])
    assert SPACE.scale(k)[:, :, 0, 0].tolist() == [[-1, -1, -1], [1, 1, 1], pytest.approx([-1 / 3, -0.6, 0])]


def test_indices_come_back_from_the_nearest_place():
    k = indices()
    z = SPACE.scale(k)
    assert z.dtype == torch.float32
    assert torch.equal(SPACE.indices(z), k)
    assert torch.equal(SPACE.indices(z + 0.9 / 255), k)  # half of the smallest distance, nearly
    assert SPACE.indices(torch.full((1, 3, 1, 1), 9.0)).flatten().tolist() == [3, 255, 6]
    assert SPACE.indices(torch.full((1, 3, 1, 1), -9.0)).flatten().tolist() == [0, 0, 0]


def test_the_expected_index_of_hard_one_hots_is_the_index():
    k = indices()
    hard = [torch.nn.functional.one_hot(k[:, c], size).movedim(-1, 1).double() for c, size in enumerate(SPACE.sizes)]
    torch.testing.assert_close(SPACE.soft(hard), SPACE.scale(k).double(), rtol=0, atol=1e-6)
    uniform = [torch.full_like(h, 1 / h.shape[1]) for h in hard]
    torch.testing.assert_close(SPACE.soft(uniform), torch.zeros(2, 3, 5, 6, dtype=torch.float64))


def test_the_expected_index_is_not_rounded_by_autocast():
    z_bar = [random(2, k, 4, 4).softmax(1).float() for k in SPACE.sizes]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(SPACE.soft(z_bar), SPACE.soft(z_bar).float())
        torch.testing.assert_close(SPACE.soft(z_bar).double(), SPACE.soft([z.double() for z in z_bar]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IndexSpace(()), "`sizes` (=()) must be one or more codebook sizes"),
        (lambda: IndexSpace((4, 1)), "`sizes` (=(4, 1)) must be one or more codebook sizes of at least 2"),
        (lambda: SPACE.split(torch.zeros(1, 9, 2, 2)), "`logits` (=9 channels) must have the sum of `sizes`"),
        (lambda: SPACE.scale(torch.zeros(1, 2, 2, 2)), "the latent (=2 channels) must have one for each of `sizes`"),
        (lambda: SPACE.sample(torch.zeros(1, 267, 2, 2), gamma=-0.1), "`gamma` (=-0.1) must not be negative"),
        (lambda: SPACE.sample(torch.zeros(1, 267, 2, 2), gamma=math.nan), "`gamma` (=nan) must not be negative"),
        (lambda: gumbel_softmax(torch.zeros(1, 4), tau=0), "`tau` (=0) must be above 0"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ConfigError) as error:
        make()
    assert message in str(error.value)


# Eq. 20 and 21


def test_gumbel_noise_has_its_mean_and_variance():
    g = gumbel((200_000,), seeded())
    assert g.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert g.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)
    assert g.isfinite().all()


def test_gumbel_noise_is_finite_where_the_uniform_is_0(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))
    assert gumbel((2, 3)).isfinite().all()


def test_the_indices_around_a_number():
    """Gaussian weights of what stands in the closed form; their expected place is the number, away from the ends."""
    space, sigma = IndexSpace((33, 5)), 0.1
    z = torch.tensor([[0.1, -0.5], [0.25, 1.0]])[..., None]
    wide, narrow = space.posterior(z, sigma)
    assert wide.shape == (2, 33, 1)
    assert narrow.shape == (2, 5, 1)
    weights = torch.tensor([math.exp(-((-0.5 - p) ** 2) / (2 * sigma**2)) for p in (-1, -0.5, 0, 0.5, 1)])
    torch.testing.assert_close(narrow[0, :, 0], weights / weights.sum())
    torch.testing.assert_close((wide[:, :, 0] * torch.linspace(-1, 1, 33)).sum(1), z[:, 0, 0], rtol=0, atol=1e-4)
    with pytest.raises(ConfigError, match="`sigma`"):
        space.posterior(z, 0.0)


def test_gumbel_softmax_is_eq_20():
    logits = random(2, 7, 5, 6)
    noise = gumbel(logits.movedim(1, -1).shape, seeded(1)).movedim(-1, 1)
    for tau in (0.5, 1.0, 2.2):
        expected = ((logits + noise) / tau).exp()
        expected = expected / expected.sum(1, keepdim=True)
        torch.testing.assert_close(gumbel_softmax(logits, tau, seeded(1)), expected)


def test_limits_of_tau():
    logits = random(2, 7, 5, 6).float()
    winner = (logits + gumbel(logits.movedim(1, -1).shape, seeded(1)).movedim(-1, 1)).argmax(1)
    for tau in (1e-6, 1e-38):  # where z/τ overflows
        hard = gumbel_softmax(logits, tau, seeded(1))
        torch.testing.assert_close(hard, torch.nn.functional.one_hot(winner, 7).movedim(-1, 1).float())
    torch.testing.assert_close(gumbel_softmax(logits, 1e6), torch.full_like(logits, 1 / 7), rtol=0, atol=1e-4)


def test_gumbel_softmax_wins_as_often_as_softmax_says():
    logits = torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1).expand(1, 3, 50_000)
    wins = gumbel_softmax(logits, 0.5, seeded()).argmax(1)[0].bincount(minlength=3) / 50_000
    torch.testing.assert_close(wins, torch.tensor([0.0, 1.0, 2.0]).softmax(0), rtol=0, atol=0.01)


def test_expected_codewords_are_eq_21():
    """Codebooks of different sizes and lengths; a hard one-hot gives its codeword, not the logits' product."""
    z_bar = [random(2, k, 5, 6, seed=k).softmax(1) for k in SPACE.sizes]
    books = [random(k, n, seed=n) for k, n in zip(SPACE.sizes, (16, 64, 3), strict=True)]
    words = expected_codewords(z_bar, books)
    assert [tuple(w.shape) for w in words] == [(2, 16, 5, 6), (2, 64, 5, 6), (2, 3, 5, 6)]
    for z, book, word in zip(z_bar, books, words, strict=True):
        torch.testing.assert_close(word[1, :, 2, 3], z[1, :, 2, 3] @ book)
    hard = gumbel_softmax(random(2, 4, 5, 6), 1e-9, seeded(1))
    torch.testing.assert_close(expected_codewords([hard], books[:1])[0], books[0][hard.argmax(1)].movedim(-1, 1))


def test_gradients_reach_the_logits():
    books = [random(3, 2, seed=1), random(4, 3, seed=2)]
    space = IndexSpace((3, 4))

    def loss(logits):
        z_bar = [gumbel_softmax(part, 1.3, seeded()) for part in space.split(logits)]
        z_t, logsnr = random(2, 2, 2, seed=3), torch.tensor([-1.0, 2.0], dtype=torch.float64)
        return (*expected_codewords(z_bar, books), eps_z(z_t, space.soft(z_bar), logsnr))

    assert torch.autograd.gradcheck(loss, (random(2, 7, 2).requires_grad_(),))


# Eq. 24


def test_eps_z_is_eq_24_with_the_table_of_ddpm():
    alpha_bar = (1 - torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)).cumprod(0)[[0, 499, 999]].view(-1, 1, 1, 1)
    a_t, b_t = 1 / alpha_bar.sqrt(), (1 / alpha_bar - 1).sqrt()
    z_t, z0 = random(3, 3, 5, 6), random(3, 3, 5, 6, seed=1)
    logsnr = LinearBeta()(torch.tensor([0.001, 0.5, 1.0], dtype=torch.float64))
    torch.testing.assert_close(eps_z(z_t, z0, logsnr), (a_t * z_t - z0) / b_t)


def test_eps_z_is_the_noise_when_z0_is_right_and_split_of_any_z0():
    process = Process(Cosine(), "vp", "x0")
    logsnr = torch.tensor([-10.0, 0.0, 10.0], dtype=torch.float64)
    z0, eps, other = random(3, 3, 5, 6), random(3, 3, 5, 6, seed=1), random(3, 3, 5, 6, seed=2)
    z_t = process.noise(z0, eps, logsnr)
    torch.testing.assert_close(eps_z(z_t, z0, logsnr), eps)
    torch.testing.assert_close(eps_z(z_t, other, logsnr), process.split(z_t, other, logsnr)[1])


# Eq. 25 and Algorithm 2


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_indices_are_drawn_from_eq_25(gamma):
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0, -1.0]).view(1, 5, 1).expand(1, 5, 50_000)
    space = IndexSpace((3, 2))
    drawn = space.sample(logits, gamma, seeded())
    for channel, part in enumerate((logits[0, :3, 0], logits[0, 3:, 0])):
        share = drawn[0, channel].bincount(minlength=len(part)) / 50_000
        torch.testing.assert_close(share, (part / gamma).softmax(0), rtol=0, atol=0.01)


def test_limit_of_gamma():
    logits = random(2, 267, 5, 6).float()
    best = torch.stack([part.argmax(1) for part in SPACE.split(logits)], dim=1)
    for gamma in (0, 1e-8, 1e-40):
        assert torch.equal(SPACE.sample(logits, gamma, seeded()), best)
    assert not torch.equal(SPACE.sample(logits, 1.0, seeded()), best)


def sure_of(k):
    """A network that knows the indices."""
    hot = torch.cat([torch.nn.functional.one_hot(k[:, c], s).movedim(-1, 1) for c, s in enumerate(SPACE.sizes)], dim=1)
    return lambda x, t, *_: 100.0 * hot


def test_the_reverse_step_is_the_posterior_of_ddpm_with_the_drawn_z0():
    process, logits = Process(LinearBeta(), "vp", "x0"), random(2, 267, 5, 6).float()
    z_t = random(2, 3, 5, 6, seed=1).float()
    model = sampled_x0(lambda x, t: logits, SPACE, 1.0, seeded(2))
    step = next(ddpm(process, model, z_t, [0.5, 0.499], generator=seeded(3)))
    z0 = SPACE.scale(SPACE.sample(logits, 1.0, seeded(2)))
    assert torch.equal(step.x0, z0)
    here, there = LinearBeta()(torch.tensor([0.5, 0.499], dtype=torch.float64))
    mean, std = process.posterior(z_t, z0, here, there)
    torch.testing.assert_close(step.x, mean + std * torch.randn(z_t.shape, generator=seeded(3)))


@pytest.mark.parametrize("sampler", [ddpm, dpmpp_2m])
def test_sampling_ends_on_indices(sampler):
    process, k = Process(LinearBeta(), "vp", "x0"), indices()
    x = process.start((2, 3, 5, 6), seeded())
    *_, step = sampler(process, sampled_x0(sure_of(k), SPACE, 1.0, seeded(1)), x, 10, generator=seeded(2))
    assert torch.equal(SPACE.indices(step.x), k)
    network = lambda x, t: torch.zeros(2, 267, 5, 6)  # noqa: E731 (unsure: still indices, not places between)
    *_, step = sampler(process, sampled_x0(network, SPACE, 1.0, seeded(1)), x, 10, generator=seeded(2))
    torch.testing.assert_close(SPACE.scale(SPACE.indices(step.x)), step.x, rtol=0, atol=1e-6)


def test_self_conditioning_passes_the_last_drawn_z0():
    process, given = Process(LinearBeta(), "vp", "x0"), []

    def network(x, t, z0):
        given.append(z0)
        return torch.zeros(1, 267, 5, 6)

    model = sampled_x0(network, SPACE, 1.0, seeded())
    steps = list(ddpm(process, model, torch.zeros(1, 3, 5, 6), 4, self_condition=True, generator=seeded()))
    assert given[0].abs().max() == 0
    assert all(torch.equal(z0, step.x0) for z0, step in zip(given[1:], steps[:-1], strict=True))


def test_an_item_does_not_depend_on_its_batch():
    process = Process(LinearBeta(), "vp", "x0")

    def sample(*seeds):
        noise = [seeded(seed) for seed in seeds]
        network = lambda x, t: x.repeat(1, 89, 1, 1)  # noqa: E731
        x = process.start((len(seeds), 3, 8, 8), noise)
        *_, step = ddpm(process, sampled_x0(network, SPACE, 0.8, noise), x, 5, generator=noise)
        return dict(zip(seeds, SPACE.indices(step.x), strict=True))

    together = sample(1, 2, 3)
    for others in (sample(3, 1), sample(2)):
        assert all(torch.equal(image, together[seed]) for seed, image in others.items())
