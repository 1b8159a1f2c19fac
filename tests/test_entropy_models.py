"""What training takes for the rate is what files take: Gaussian tables, the factorized prior, lower bounds."""

import numpy as np
import pytest
import torch

from difflate.entropy import SymbolReader, SymbolWriter
from difflate.entropy.gaussian import RUNGS, SCALE_MAX, SCALE_MIN, gaussian_tables, scale_index, scale_ladder
from difflate.errors import ModelError
from difflate.nn.entropy_models import FactorizedPrior, add_noise, gaussian_bits, lower_bound, round_through
from lazy import Lazy

special = Lazy("scipy.special")

TABLES = gaussian_tables()


def test_the_ladder_has_equal_ratios_from_end_to_end() -> None:
    ladder = scale_ladder()
    assert (len(ladder), ladder[0]) == (RUNGS, pytest.approx(SCALE_MIN))
    assert ladder[-1] == pytest.approx(SCALE_MAX)
    assert np.ptp(np.diff(np.log(ladder))) < 1e-12


def test_the_rung_of_a_scale_is_the_first_that_is_not_below_it() -> None:
    ladder = scale_ladder()
    assert scale_index(ladder).tolist() == list(range(RUNGS))
    assert scale_index(ladder[:-1] * 1.0001).tolist() == list(range(1, RUNGS))
    assert scale_index(np.array([0.0, 1e-9, 1e9])).tolist() == [0, 0, RUNGS - 1]


@pytest.mark.parametrize("rung", range(0, RUNGS, 9))
def test_the_tables_are_the_rounded_gaussian(rung: int) -> None:
    scale, low = scale_ladder()[rung], TABLES.low[rung]
    found = TABLES.frequencies[rung] / 2**24
    k = np.arange(low, -low + 1)
    expected = special.ndtr((k + 0.5) / scale) - special.ndtr((k - 0.5) / scale)
    expected *= 1 - found[-1]
    assert np.abs(found[:-1] - expected).max() < len(k) * 2e-7
    assert np.array_equal(found[:-1], found[:-1][::-1]) or np.abs(found[:-1] - found[:-1][::-1]).max() < 2**-20
    assert found[-1] == pytest.approx(2**-15, rel=0.01)  # the escape


def test_files_take_what_training_estimates() -> None:
    rng = np.random.default_rng(0)
    scales = np.exp(rng.uniform(np.log(0.05), np.log(200), 60_000))
    index = scale_index(scales)
    on_ladder = scale_ladder()[index]
    symbols = np.rint(rng.normal(size=scales.size) * on_ladder).astype(np.int64)
    writer = SymbolWriter()
    writer.write(symbols, TABLES, index)
    data = writer.finish()
    assert np.array_equal(SymbolReader(data).read(symbols.size, TABLES, index), symbols)
    estimate = gaussian_bits(torch.from_numpy(symbols), torch.from_numpy(on_ladder)).double().sum().item()
    assert 8 * len(data) == pytest.approx(estimate, rel=1e-3)
    # a scale between two rungs is coded with the one above: what that costs
    between = gaussian_bits(
        torch.from_numpy(np.rint(rng.normal(size=scales.size) * scales)), torch.from_numpy(scales)
    ).double().sum().item()  # fmt: skip
    assert between < estimate < 1.03 * between


def test_values_far_outside_are_escaped() -> None:
    symbols, index = np.array([2**30, -(2**30), 7, 0]), np.array([0, 5, 0, 63])
    writer = SymbolWriter()
    writer.write(symbols, TABLES, index)
    assert SymbolReader(writer.finish()).read(4, TABLES, index).tolist() == symbols.tolist()


@pytest.mark.parametrize("scale", [0.11, 0.5, 3.0, 80.0])
def test_gaussian_bits_against_scipy(scale: float) -> None:
    y = torch.linspace(-8 * scale, 8 * scale, 101, dtype=torch.float64)
    near, far = ((offset - y.abs().numpy()) / scale for offset in (0.5, -0.5))
    mass = special.ndtr(near) - special.ndtr(far)
    expected = -np.log2(np.maximum(mass, 1e-9))
    torch.testing.assert_close(
        gaussian_bits(y, torch.tensor(scale)).double(), torch.from_numpy(expected), atol=2e-3, rtol=1e-3
    )


def test_gradients_stay_finite_and_useful_at_the_ends() -> None:
    y = torch.tensor([0.0, 1e6, -1e6, 0.4, 3.0], requires_grad=True)
    scale = torch.tensor([1e-9, 0.11, 300.0, -5.0, 1e-3], requires_grad=True)
    gaussian_bits(y, scale).sum().backward()
    assert y.grad is not None
    assert scale.grad is not None
    assert y.grad.isfinite().all()
    assert scale.grad.isfinite().all()
    assert scale.grad[4] < 0  # a scale below the bound, of a value that wants a larger one, can still grow


def test_lower_bound_lets_a_gradient_raise_what_is_below() -> None:
    x = torch.tensor([0.5, 0.5, 2.0, 2.0], requires_grad=True)
    out = lower_bound(x, 1.0)
    assert out.tolist() == [1.0, 1.0, 2.0, 2.0]
    out.backward(torch.tensor([1.0, -1.0, 1.0, -1.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, -1.0, 1.0, -1.0]


def test_noise_and_rounding() -> None:
    x = torch.linspace(-3, 3, 10_001, requires_grad=True)
    moved = add_noise(x, torch.Generator().manual_seed(0)) - x
    assert moved.abs().max() <= 0.5
    assert moved.var().item() == pytest.approx(1 / 12, rel=0.05)
    y = round_through(x)
    assert torch.equal(y.detach(), x.detach().round())
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones_like(x))


def _samples(rng: np.random.Generator, count: int) -> torch.Tensor:
    """(count, 3, 1, 1): a wide Gaussian off the centre, a Laplacian, a mixture of two peaks."""
    peaks = np.where(rng.random(count) < 0.3, -12, 9) + rng.normal(size=count)
    columns = [rng.normal(40, 15, count), rng.laplace(0, 2, count), peaks]
    return torch.from_numpy(np.stack(columns, 1)).float()[:, :, None, None]


def test_the_factorized_prior_learns_any_distribution_and_files_take_what_it_says() -> None:
    rng = np.random.default_rng(1)
    torch.manual_seed(0)
    prior = FactorizedPrior(3)
    optimizer = torch.optim.Adam(prior.parameters(), 2e-2)
    for _ in range(450):
        optimizer.zero_grad()
        prior.bits(add_noise(_samples(rng, 256))).mean().backward()
        optimizer.step()
    symbols = _samples(rng, 20_000).round()
    bits = prior.bits(symbols)
    for channel in range(3):
        _, counts = np.unique(symbols[:, channel].numpy(), return_counts=True)
        entropy = -(counts / len(symbols) * np.log2(counts / len(symbols))).sum()
        assert bits[:, channel].mean().item() < entropy + 0.06
    flat = symbols.flatten().numpy().astype(np.int64)
    index = np.tile(np.arange(3), 20_000)
    writer = SymbolWriter()
    writer.write(flat, prior.tables(), index)
    data = writer.finish()
    assert 8 * len(data) == pytest.approx(bits.double().sum().item(), rel=2e-3)
    assert np.array_equal(SymbolReader(data).read(flat.size, prior.tables(), index), flat)


def test_the_prior_is_a_distribution() -> None:
    torch.manual_seed(3)
    prior = FactorizedPrior(4)
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        z = torch.arange(-600.0, 601.0)[:, None].expand(-1, 4)
        mass = 2 ** -prior.bits(z).double()
    assert torch.allclose(mass.sum(0), torch.ones(4, dtype=torch.float64), atol=1e-4)


def test_a_prior_that_reaches_too_far_is_told() -> None:
    with pytest.raises(ModelError, match="channel 0 of the prior reaches beyond 4"):
        FactorizedPrior(2, reach=100.0).tables(limit=4)
