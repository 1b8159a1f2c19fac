"""MS-SSIM as a loss, and integers chosen with their bits in mind."""

import numpy as np
import pytest
import torch

from coder_helpers import photo
from difflate import metrics
from difflate.entropy.gaussian import BIT_PRICE, gaussian_tables, rounding_offsets, scale_index
from difflate.entropy.hyperprior import _round_thriftily
from difflate.media.picture import Picture
from difflate.train.structure import ms_ssim


def as_images(grey: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.repeat(grey, 3, axis=0))[None].float() / 127.5 - 1


def test_ms_ssim_is_that_of_the_metrics() -> None:
    clean = photo(200, 210, 150, 300)[1:2]
    rng = np.random.default_rng(0)
    noisy = np.clip(clean + rng.normal(0, 12, clean.shape), 0, 255).astype(np.uint8)
    expected = metrics.ms_ssim(Picture(clean), Picture(noisy))
    assert float(ms_ssim(as_images(clean), as_images(noisy))) == pytest.approx(expected, abs=2e-4)
    assert float(ms_ssim(as_images(clean), as_images(clean))) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (11, 11), (64, 40), (192, 192)])
def test_ms_ssim_has_gradients_at_any_size(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = (torch.rand(2, 3, *size) * 2 - 1).requires_grad_()
    value = ms_ssim(x, -x.detach())  # as unlike as can be
    assert value.shape == (2,)
    value.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_an_image_counts_for_itself() -> None:
    torch.manual_seed(0)
    x, y = torch.rand(2, 3, 96, 96), torch.rand(2, 3, 96, 96)
    torch.testing.assert_close(ms_ssim(x, y), torch.cat([ms_ssim(x[:1], y[:1]), ms_ssim(x[1:], y[1:])]))


def test_rounding_with_the_bits_in_mind_is_the_best_of_two_neighbours() -> None:
    """Of the nearest integer and the one below it in size, the one with the least squared error plus price of bits."""
    tables = gaussian_tables()
    rng = np.random.default_rng(0)
    for scale in (0.11, 0.3, 0.8, 2.0, 9.0):
        rung = int(scale_index(np.array(scale)))
        values = rng.normal(0, 1.5 * scale, 400)
        values = values[np.abs(values) < 7]
        chosen = _round_thriftily(values, np.full(values.shape, rung))
        bits = -np.log2(tables.frequencies[rung] / 2.0**24)

        def cost(value: float, n: float, bits: np.ndarray = bits, low: int = tables.low[rung]) -> float:
            place = int(n) - low
            inside = 0 <= place < len(bits) - 1
            return (value - n) ** 2 + BIT_PRICE * (bits[place] if inside else np.inf)

        for value, n in zip(values, chosen, strict=True):
            nearest = np.rint(value)
            assert n in (nearest, nearest - np.sign(value))
            best = min(cost(value, nearest), cost(value, nearest - np.sign(value)))
            if np.isfinite(best):
                assert cost(value, n) <= best + 1e-3


def test_offsets_never_undo_an_integer() -> None:
    offsets = rounding_offsets()
    assert offsets.shape == (64, 9)
    assert (offsets >= 0).all()
    assert (offsets < 0.5).all()
    assert (offsets[:, 0] == 0).all()
