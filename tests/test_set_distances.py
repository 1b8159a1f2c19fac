"""Distances between two sets of images: sliced Wasserstein, FID, KID, and the command that prints them."""

import hashlib
import io
import itertools
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from difflate.cli.main import main
from difflate.data.items import hold_back, list_items
from difflate.errors import ConfigError
from difflate.metrics import frechet, sliced
from difflate.metrics.frechet import features_of, fid, kid
from difflate.metrics.sliced import level_sizes, pyramid_level, quantile_steps, sliced_wasserstein, wasserstein
from difflate.seeds import torch_generator

ndimage = pytest.importorskip("scipy.ndimage")
linalg = pytest.importorskip("scipy.linalg")
stats = pytest.importorskip("scipy.stats")


def smooth(count: int, height: int = 32, width: int = 32, seed: int = 0) -> Tensor:
    """(N, 3, H, W) uint8 within 60…195, with structure at all scales."""
    random = np.random.default_rng(seed)
    total = np.zeros((count, 3, height, width))
    for sigma in (0, 1, 2, 4, 8):
        layer = ndimage.gaussian_filter(random.normal(size=total.shape), (0, 0, sigma, sigma))
        total += layer / layer.std() * (1 + sigma)
    return torch.from_numpy(np.clip(128 + total / total.std() * 30, 60, 195).round().astype(np.uint8))


def as_bytes(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.clip(values, 0, 255).round().astype(np.uint8))


def rises(values: list[float], by: float = 1.2) -> bool:
    return all(high > by * low for low, high in itertools.pairwise(values))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for each other take longer than the work does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def few_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests take a tenth of the time."""
    monkeypatch.setattr(sliced, "DIRECTIONS", 40)


# Sliced Wasserstein


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
        found = [sliced_wasserstein(images, a) for images in changed]
        assert rises([of["32"] for of in found])
        assert rises([of["16"] for of in found])
        assert all(of["32"] > 2 * of["16"] for of in found)


def test_a_cast_on_some_images_is_seen_in_the_lowest_level_only() -> None:
    a = smooth(40)
    found = []
    for cast in (10, 25, 50):
        changed = a.clone()
        changed[::2, 0] += cast
        changed[::2, 2] -= cast
        found.append(sliced_wasserstein(changed, a))
    assert rises([of["16"] for of in found])
    assert all(of["32"] == 0 for of in found)  # a difference of neighbouring levels has no mean


def test_a_cast_or_a_contrast_that_all_images_share_is_not_seen() -> None:
    # as in the paper: each set is normalised by its own mean and standard deviation
    a = smooth(20)
    assert sliced_wasserstein(a + 50, a)["mean"] < 1e-3
    even = a // 2 * 2
    assert sliced_wasserstein(even // 2, even)["mean"] < 1e-3


def test_mixed_up_colours_are_seen() -> None:
    a = smooth(40)
    grey = a.float().mean(1, keepdim=True).round().byte().expand(-1, 3, -1, -1)
    found = sliced_wasserstein(grey, a)
    floor = sliced_wasserstein(smooth(40, seed=9), a)
    assert all(found[level] > 2 * floor[level] for level in found)


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
    found = sliced_wasserstein(greys, greys // 5 * 5 // 2 + 60)
    assert found["32"] == 0
    assert 0 <= found["16"] < 100
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


# FID and KID


class Small(nn.Module):
    """Images -> (B, 5), in place of the Inception network."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 5, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(5, 12, generator=torch_generator(1, 0)))

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return self.linear(nn.functional.adaptive_avg_pool2d(images.float() / 64 - 2, 2).flatten(1))


def test_features_do_not_depend_on_the_batch() -> None:
    images, network, counts = smooth(11), Small(), []
    features = features_of(images, network, batch=4, progress=counts.append)
    assert (features.shape, features.dtype, features.requires_grad) == ((11, 5), torch.float32, False)
    assert counts == [4, 4, 3]
    assert torch.allclose(features, network(images), atol=1e-5)


def test_fid_is_the_frechet_distance() -> None:
    pytest.importorskip("torchmetrics")
    network = Small()
    first, second = (features_of(x, network) for x in (smooth(50), smooth(70, seed=1) + 3))
    x, y = first.double().numpy(), second.double().numpy()
    root = linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert fid(first, second) == pytest.approx(expected, rel=1e-8)
    assert fid(second, first) == pytest.approx(expected, rel=1e-8)
    shift = torch.tensor([1.0, 0, -2, 0, 0.5])
    assert fid(first + shift, first) == pytest.approx(5.25, abs=1e-4)


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Eq. 4 of Bińkowski et al. 2018, written with loops over pairs."""

    def kernel(u: np.ndarray, v: np.ndarray) -> float:
        return float(u @ v / len(u) + 1) ** 3

    within = [np.mean([kernel(u, v) for i, u in enumerate(z) for j, v in enumerate(z) if i != j]) for z in (x, y)]
    return float(sum(within) - 2 * np.mean([kernel(u, v) for u in x for v in y]))


def test_kid_is_the_discrepancy() -> None:
    pytest.importorskip("torchmetrics")
    network = Small()
    first, second = (features_of(x, network) for x in (smooth(20), smooth(20, seed=1)))
    expected = squared_mmd(first.double().numpy(), second.double().numpy())
    found = kid(first, second)
    assert (found.std, found.subsets, found.subset_images) == (0, 1, 20)
    assert found.mean == pytest.approx(expected, rel=1e-8)


def test_kid_of_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchmetrics")
    monkeypatch.setattr(frechet, "KID_SUBSET", 10)
    monkeypatch.setattr(frechet, "KID_SUBSETS", 3)
    network = Small()
    first, second = (features_of(x, network) for x in (smooth(14), smooth(19, seed=1)))
    generator = torch_generator(8, 9)
    values = []
    for _ in range(3):  # of the reference first
        y, x = (z[torch.randperm(len(z), generator=generator)[:10]].double().numpy() for z in (second, first))
        values.append(squared_mmd(x, y))
    state = torch.get_rng_state()
    found = kid(first, second, seed=8)
    assert torch.equal(torch.get_rng_state(), state)
    assert (found.subsets, found.subset_images) == (3, 10)
    assert (found.mean, found.std) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values)))


def test_a_single_image_has_no_covariance() -> None:
    for metric in (fid, kid):
        with pytest.raises(ConfigError, match="not 1 and 4"):
            metric(torch.zeros(1, 3), torch.zeros(4, 3))


# The weights of the Inception network


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Path]:
    """``weights(data) -> path``: puts a file in the place of the weights, under a name that has its hash."""
    pytest.importorskip("torchmetrics")
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def put(data: bytes) -> Path:
        name = f"weights-{hashlib.sha256(data).hexdigest()[:8]}.pth"
        monkeypatch.setattr(fidelity, "URL_INCEPTION_V3", f"https://example.org/{name}")
        path = tmp_path / "hub" / "checkpoints" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        return path

    return put


@pytest.mark.usefixtures("weights")
def test_missing_weights_are_told_and_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*args: object, **options: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(ConfigError) as error:
        frechet.inception()
    name = "weights-inception-2015-12-05-6726825d.pth"
    assert str(error.value).startswith(f"{tmp_path}/hub/checkpoints/{name}: the weights")
    assert f"download https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{name}" in str(error.value)


class Harmful:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    "write",
    [lambda thing: pickle.dumps(thing, 2), lambda thing: saved({"fc.weight": thing}), lambda thing: b"PK\3\4 cut"],
)
def test_weights_cannot_name_code(
    write: Callable[[object], bytes], weights: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights(write(Harmful()))
    with pytest.raises(ConfigError, match="other things than weights"):
        frechet.inception()
    assert not (tmp_path / "harm").exists()


def test_altered_weights_are_told(weights: Callable[[bytes], Path]) -> None:
    path = weights(saved({"fc.weight": torch.zeros(3)}))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ConfigError, match="damaged, or another file"):
        frechet.inception()


def test_the_inception_network_is_that_of_torch_fidelity(
    weights: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with monkeypatch.context() as patch:  # the network as it is initialised, for want of weights
        patch.setattr(module, "load_state_dict_from_url", lambda *args, **options: None)
        patch.setattr(nn.Module, "load_state_dict", lambda *args: None)
        original = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    weights(saved(original.state_dict()))
    images = smooth(3)
    network = frechet.inception()
    assert not network.training
    features = features_of(images, network, batch=2)
    assert features.shape == (3, 2048)
    assert torch.allclose(features, original(images)[0], rtol=1e-4, atol=1e-4 * float(features.abs().max()))


def saved(state: dict[str, object]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


# The command

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run(*words) -> (exit code, stdout, stderr)``, beside the folders ``made`` (6 images) and ``real`` (12)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    write(smooth(6), "made")
    write(smooth(12, 60, 40, seed=1), "real")

    def call(*words: str) -> tuple[int, str, str]:
        try:
            code = main(["distance", *words])
        except SystemExit as exit:
            code = exit.code
        out, err = capfd.readouterr()
        assert isinstance(code, int)
        return code, out, err

    return call


def write(images: Tensor, folder: str) -> None:
    Path(folder).mkdir(exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(f"{folder}/{i:02d}.png")


def scaled(*names: str) -> Tensor:
    """What the command makes of images of 40x60 px."""
    images = [
        Image.open(f"real/{name}.png").resize((32, 32), Image.Resampling.LANCZOS, (0, 10, 40, 50)) for name in names
    ]
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])


def test_the_command_prints_a_table(run: Run) -> None:
    code, out, err = run("made", "real")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "32x32 px, seed 0"
    assert lines[2] == "| set | images | swd 32 px | swd 16 px | swd |"
    assert lines[4].startswith("| samples | 6 / 12 | ")
    assert len(lines) == 5
    same = run("made", "made")[1]
    assert same.splitlines()[4] == "| samples | 6 / 6 | 0.00 | 0.00 | 0.00 |"


def test_json_and_what_is_held_back(run: Run) -> None:
    code, out, err = run("made", "real", "--holdback", "3", "--seed", "5", "--floor", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["size"], found["seed"]) == (32, 5)
    assert found["samples"] == {"path": "made", "images": 6, "skipped": 0}
    assert found["reference"] == {"path": "real", "images": 3, "skipped": 0}
    reference = scaled("00", "04", "08")
    assert [Path(item.path).stem for item in hold_back(list_items(["real"]), 3)[1]] == ["00", "04", "08"]
    assert found["swd"] == pytest.approx(sliced_wasserstein(smooth(6), reference, seed=5))
    floor = found["floor"]
    assert (floor["images"], floor["skipped"]) == (6, 0)
    # evenly spaced of the nine that are left
    expected = sliced_wasserstein(scaled("01", "02", "05", "06", "09", "10"), reference, seed=5)
    assert floor["swd"] == pytest.approx(expected)


def test_max_images_are_evenly_spaced(run: Run) -> None:
    found = json.loads(run("made", "real", "--max-images", "4", "--floor", "--json")[1])
    assert (found["samples"]["images"], found["reference"]["images"], found["floor"]["images"]) == (4, 4, 4)
    expected = sliced_wasserstein(smooth(6)[[0, 1, 3, 4]], scaled("00", "03", "06", "09"))
    assert found["swd"] == pytest.approx(expected)


def test_unreadable_images_are_counted(run: Run) -> None:
    Path("made/03a.png").write_text("Dear Sir\n")
    Path("made/note.txt").write_text("not looked at\n")
    Path("made/99.png").write_bytes(Path("made/00.png").read_bytes()[:90])
    code, out, err = run("made", "real", "--size", "32", "--json")
    assert code == 0
    assert err == "difflate: made: 2 of 8 images cannot be read and are left out; the first is made/03a.png\n"
    found = json.loads(out)
    assert found["samples"] == {"path": "made", "images": 6, "skipped": 2}
    assert found["swd"] == json.loads(run("made", "real", "--json")[1])["swd"]


def test_fid_and_kid_are_printed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchmetrics")
    monkeypatch.setattr(frechet, "inception", Small)
    words = ("made", "real", "--metrics", "kid,fid", "--max-images", "6")
    found = json.loads(run(*words, "--floor", "--json")[1])
    assert "swd" not in found
    network, reference = Small(), scaled("00", "02", "04", "06", "08", "10")
    first, second = features_of(smooth(6), network), features_of(reference, network)
    assert found["fid"] == pytest.approx(fid(first, second))
    assert found["kid"]["mean"] == pytest.approx(kid(first, second).mean)
    assert set(found["kid"]) == {"mean", "std", "subsets", "subset_images"}
    other = features_of(scaled("01", "03", "05", "07", "09", "11"), network)
    assert found["floor"]["fid"] == pytest.approx(fid(other, second))
    lines = run(*words)[1].splitlines()
    assert lines[2] == "| set | images | fid | kid |"
    assert f"| {found['fid']:.3f} | {found['kid']['mean']:.5f} ± 0.00000 |" in lines[4]


@pytest.mark.parametrize(
    ("code", "words", "message"),
    [
        (2, ["made"], "the following arguments are required: REFERENCE"),
        (2, ["made", "none"], "none: no such file or folder"),
        (2, ["made", "empty"], "empty: no images in this folder"),
        (2, ["made", "real", "--metrics", "swd,ssim"], "--metrics: 'ssim' is not one of swd, fid, kid"),
        (2, ["made", "real", "--metrics", ""], "--metrics: '' is not one of"),
        (2, ["made", "real", "--holdback", "12"], "holdback (=12) must be below the number of images (=12)"),
        (2, ["made", "real", "--holdback", "0"], "--holdback (=0) must be at least 1"),
        (2, ["made", "real", "--max-images", "0"], "--max-images (=0) must be at least 1"),
        (2, ["made", "real", "--size", "6"], "--size (=6) must be at least 7"),
        (2, ["made", "real", "--seed", "-1"], "--seed (=-1) must be at least 0"),
        (2, ["made", "real", "--floor"], "--floor: no image of real is left over; give --holdback N or --max-images N"),
        (2, ["made", "real", "--device", "abacus"], "--device (=abacus) cannot be used"),
        (2, ["made", "real", "--metrics", "fid"], "weights of the Inception network, which FID and KID need, are not"),
        (2, ["real", "made"], "real: not squares of one size (40x60); give --size"),
        (2, ["mixed", "made"], "mixed: not squares of one size (10x10, 12x12, 14x14, …); give --size"),
        (2, ["tiny", "made"], "tiny: images of 6x6 px are too small; give --size"),
        (3, ["broken", "real"], "broken: none of its 2 images can be read"),
        (3, ["made", "broken"], "broken: none of its 2 images can be read"),
    ],
)
def test_errors_are_one_line(
    run: Run, code: int, words: list[str], message: str, request: pytest.FixtureRequest
) -> None:
    if "fid" in words:
        request.getfixturevalue("weights")
    Path("empty").mkdir()
    for side in (10, 12, 14, 16):
        write(smooth(1, side, side), "one")
        Path("mixed").mkdir(exist_ok=True)
        Path("one/00.png").rename(f"mixed/{side}.png")
    write(smooth(2, 6, 6), "tiny")
    Path("broken").mkdir()
    for name in ("a.png", "b.jpg"):
        Path("broken", name).write_text("Dear Sir\n")
    ended, out, err = run(*words)
    assert (ended, out) == (code, "")
    assert err.startswith("difflate: ")
    assert err.count("\n") == 1
    assert message in err
