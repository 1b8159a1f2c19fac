"""The sliced Wasserstein distance between two sets of images."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from difflate.errors import ConfigError
from difflate.metrics import sliced
from difflate.metrics.sliced import level_sizes, pyramid_level, quantile_steps, sliced_wasserstein, wasserstein
from difflate.seeds import torch_generator
from distance_helpers import smooth
from lazy import Lazy

ndimage = Lazy("scipy.ndimage")
stats = Lazy("scipy.stats")

pytestmark = pytest.mark.usefixtures("one_thread", "few_directions")


def as_bytes(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.clip(values, 0, 255).round().astype(np.uint8))


def rises(values: list[float], by: float = 1.2) -> bool:
    return all(high > by * low for low, high in itertools.pairwise(values))


def test_identical_sets_have_no_distance_and_order_does_not_matter() -> None:
    a, b = smooth(20), smooth(20, seed=1)
    assert sliced_wasserstein(a, a.clone()) == {"32": 0, "16": 0, "mean": 0}
    forth, back = sliced_wasserstein(a, b), sliced_wasserstein(b, a)
    assert forth == back
    assert list(forth) == ["32", "16", "mean"]
    assert forth["mean"] == pytest.approx((forth["32"] + forth["16"]) / 2)
    assert min(forth.values()) > 0


def test_the_seed_decides() -> None:
    a, b = smooth(10), smooth(10, seed=1)
    first = sliced_wasserstein(a, b, seed=3)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert sliced_wasserstein(a, b, seed=3) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert sliced_wasserstein(a, b, seed=4) != first


def test_the_order_of_the_images_changes_the_places_of_the_patches_only() -> None:
    a, b = smooth(60), smooth(60, seed=1)
    order = torch.randperm(60, generator=torch_generator(0, 0))
    there, shuffled = sliced_wasserstein(a, b), sliced_wasserstein(a[order], b)
    assert shuffled["32"] == pytest.approx(there["32"], rel=0.25)
    assert sliced_wasserstein(a, a[order])["mean"] < 0.5 * there["mean"]
    # images of 7x7 px have a single place
    a, b = a[:, :, :7, :7].contiguous(), b[:, :, :7, :7].contiguous()
    assert sliced_wasserstein(a[order], b)["7"] == pytest.approx(sliced_wasserstein(a, b)["7"], rel=1e-5)


def test_blur_and_noise_are_seen_in_the_finest_level_first() -> None:
    random = np.random.default_rng(2)
    a = smooth(40)
    values = a.numpy().astype(float)
    blurred = [as_bytes(ndimage.gaussian_filter(values, (0, 0, sigma, sigma))) for sigma in (0.5, 1, 2)]
    noisy = [as_bytes(values + random.normal(0, sigma, values.shape)) for sigma in (2, 6, 18)]
    for changed in (blurred, noisy):
        distances = [sliced_wasserstein(images, a) for images in changed]
        assert rises([of["32"] for of in distances])
        assert rises([of["16"] for of in distances])
        assert all(of["32"] > 2 * of["16"] for of in distances)


def test_a_cast_on_some_images_is_seen_in_the_lowest_level_only() -> None:
    a = smooth(40)
    distances = []
    for cast in (10, 25, 50):
        changed = a.clone()
        changed[::2, 0] += cast
        changed[::2, 2] -= cast
        distances.append(sliced_wasserstein(changed, a))
    assert rises([of["16"] for of in distances])
    assert all(of["32"] == 0 for of in distances)  # a difference of neighbouring levels has no mean


def test_a_cast_or_a_contrast_that_all_images_share_is_not_seen() -> None:
    # as in the paper: each set is normalised by its own mean and standard deviation
    a = smooth(20)
    assert sliced_wasserstein(a + 50, a)["mean"] < 1e-3
    even = a // 2 * 2
    assert sliced_wasserstein(even // 2, even)["mean"] < 1e-3


def test_mixed_up_colours_are_seen() -> None:
    a = smooth(40)
    grey = a.float().mean(1, keepdim=True).round().byte().expand(-1, 3, -1, -1)
    distances = sliced_wasserstein(grey, a)
    floor = sliced_wasserstein(smooth(40, seed=9), a)
    assert all(distances[level] > 2 * floor[level] for level in distances)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_the_distance_on_a_line_is_that_of_scipy(n: int, m: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(3, n)).round(1), random.normal(0.5, 2, (3, m)).round(1)  # rounded: with ties
    expected = [stats.wasserstein_distance(x[i], y[i]) for i in range(3)]
    assert wasserstein(torch.from_numpy(x), torch.from_numpy(y)).numpy() == pytest.approx(expected, abs=1e-12)
    of_x, of_y, widths = quantile_steps(n, m, torch.device("cpu"))
    assert float(widths.sum()) == pytest.approx(1)
    assert of_x.unique().tolist() == list(range(n))
    assert of_y.unique().tolist() == list(range(m))


def reference_level(image: np.ndarray, level: int, last: bool) -> np.ndarray:
    """`pyramid_level` written again: (3, H, W) float64."""

    def blur(planes: np.ndarray) -> np.ndarray:
        kernel = np.array([1, 4, 6, 4, 1]) / 16
        return ndimage.correlate1d(ndimage.correlate1d(planes, kernel, 1, mode="mirror"), kernel, 2, mode="mirror")

    for _ in range(level):
        image = blur(image)[:, ::2, ::2]
    if last:
        return image
    spread = np.zeros_like(image)
    spread[:, ::2, ::2] = blur(image)[:, ::2, ::2]
    return image - 4 * blur(spread)


@pytest.mark.parametrize(("height", "width", "n", "m"), [(32, 32, 4, 4), (33, 47, 3, 5), (16, 90, 2, 2), (9, 8, 3, 1)])
def test_it_is_the_paper_written_again(
    height: int, width: int, n: int, m: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sliced, "DIRECTIONS", 6)
    sets = smooth(n, height, width), smooth(m, height, width, seed=1)
    sizes = level_sizes(height, width)
    expected = {}
    for level, (rows, columns) in enumerate(sizes):
        key = min(rows, columns)
        places = torch_generator(7, 10, key)
        tops = torch.randint(rows - 6, (max(n, m), 128), generator=places).numpy()
        lefts = torch.randint(columns - 6, (max(n, m), 128), generator=places).numpy()
        directions = torch.randn(6, 147, generator=torch_generator(7, 11, key)).double().numpy()
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        projected = []
        for images in sets:
            planes = [reference_level(x, level, level == len(sizes) - 1) for x in images.double().numpy()]
            assert planes[0].shape == (3, rows, columns)
            patches = np.array(
                [
                    plane[:, top : top + 7, left : left + 7]
                    for i, plane in enumerate(planes)
                    for top, left in zip(tops[i], lefts[i], strict=True)
                ]
            )
            patches -= patches.mean(axis=(0, 2, 3), keepdims=True)
            patches /= patches.std(axis=(0, 2, 3), keepdims=True)
            projected.append(patches.reshape(len(patches), -1) @ directions.T)
        distances = [stats.wasserstein_distance(projected[0][:, k], projected[1][:, k]) for k in range(6)]
        expected[str(key)] = 1000 * np.mean(distances)
    expected["mean"] = np.mean(list(expected.values()))
    assert sliced_wasserstein(*sets, seed=7) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (37, 50), (31, 31)])
def test_the_levels_add_up_to_the_image(height: int, width: int) -> None:
    image = smooth(2, height, width).float()
    low = pyramid_level(image, 1, last=True)
    assert low.shape[2:] == level_sizes(height, width)[1]
    spread = torch.zeros_like(image)
    spread[:, :, ::2, ::2] = low
    assert torch.allclose(pyramid_level(image, 0, last=False) + 4 * sliced._blur(spread), image, atol=1e-4)
    flat = torch.full((1, 3, height, width), 77.0)
    assert torch.equal(pyramid_level(flat, 0, last=False), 0 * flat)
    assert torch.equal(pyramid_level(flat, 1, last=True), torch.full_like(low[:1], 77))


def test_the_levels_of_sizes() -> None:
    assert [side for side, _ in level_sizes(128, 128)] == [128, 64, 32, 16]
    assert level_sizes(31, 100) == [(31, 100), (16, 50)]
    assert level_sizes(30, 100) == [(30, 100)]
    assert level_sizes(7, 7) == [(7, 7)]
    with pytest.raises(ConfigError, match="6x9 px are smaller than a patch of 7x7 px"):
        level_sizes(9, 6)


def test_parts_that_are_worked_on_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = smooth(11), smooth(14, seed=1)
    expected = sliced_wasserstein(a, b)
    monkeypatch.setattr(sliced, "_BATCH_PX", 3 * 32 * 32)
    monkeypatch.setattr(sliced, "_DESCRIPTOR_BYTES", 0)
    monkeypatch.setattr(sliced, "_PROJECTED_BYTES", 100 * 4 * 128 * 14)
    assert sliced_wasserstein(a, b) == pytest.approx(expected, rel=1e-5)


def test_flat_images_have_distances_too() -> None:
    greys = torch.arange(0, 250, 25).byte()[:, None, None, None].expand(-1, 3, 32, 32)
    distances = sliced_wasserstein(greys, greys // 5 * 5 // 2 + 60)
    assert distances["32"] == 0
    assert 0 <= distances["16"] < 100
    assert sliced_wasserstein(greys[:1], greys[4:5]) == {"32": 0, "16": 0, "mean": 0}
    assert sliced_wasserstein(smooth(10), greys)["32"] > 100


def test_what_is_no_set_of_images_is_told() -> None:
    a = smooth(2)
    with pytest.raises(ConfigError, match=r"b is torch.float32 \(2, 3, 32, 32\)"):
        sliced_wasserstein(a, a.float())
    for wrong in (a[:0], a[0], a[:, :1]):
        with pytest.raises(ConfigError, match="must be"):
            sliced_wasserstein(wrong, a)
    with pytest.raises(ConfigError, match=r"\(32, 32\), those of b \(30, 32\)"):
        sliced_wasserstein(a, a[:, :, :30])
    with pytest.raises(ConfigError, match=r"seed \(=-1\)"):
        sliced_wasserstein(a, a, seed=-1)
