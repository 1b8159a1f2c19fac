"""FID and KID between two sets of images, and the weights of the Inception network that they need."""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from difflate.errors import ConfigError
from difflate.metrics import frechet
from difflate.metrics.features import features_of, inception
from difflate.metrics.frechet import frechet_distance, kernel_distance
from difflate.seeds import torch_generator
from distance_helpers import Small, smooth
from lazy import Lazy

linalg = Lazy("scipy.linalg")

pytestmark = pytest.mark.usefixtures("one_thread")


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
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-8)
    shift = torch.tensor([1.0, 0, -2, 0, 0.5])
    assert frechet_distance(first + shift, first) == pytest.approx(5.25, abs=1e-4)


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
    distance = kernel_distance(first, second)
    assert (distance.std, distance.subsets, distance.subset_images) == (0, 1, 20)
    assert distance.mean == pytest.approx(expected, rel=1e-8)


def test_kid_of_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchmetrics")
    monkeypatch.setattr(frechet, "KERNEL_SUBSET", 10)
    monkeypatch.setattr(frechet, "KERNEL_SUBSETS", 3)
    network = Small()
    first, second = (features_of(x, network) for x in (smooth(14), smooth(19, seed=1)))
    generator = torch_generator(8, 9)
    values = []
    for _ in range(3):  # of the reference first
        y, x = (z[torch.randperm(len(z), generator=generator)[:10]].double().numpy() for z in (second, first))
        values.append(squared_mmd(x, y))
    state = torch.get_rng_state()
    distance = kernel_distance(first, second, seed=8)
    assert torch.equal(torch.get_rng_state(), state)
    assert (distance.subsets, distance.subset_images) == (3, 10)
    assert (distance.mean, distance.std) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values)))


def test_a_single_image_has_no_covariance() -> None:
    for metric in (frechet_distance, kernel_distance):
        with pytest.raises(ConfigError, match="not 1 and 4"):
            metric(torch.zeros(1, 3), torch.zeros(4, 3))


# The weights of the Inception network


@pytest.mark.usefixtures("weights")
def test_missing_weights_are_told_and_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*args: object, **options: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(ConfigError) as error:
        inception()
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
        inception()
    assert not (tmp_path / "harm").exists()


def test_altered_weights_are_told(weights: Callable[[bytes], Path]) -> None:
    path = weights(saved({"fc.weight": torch.zeros(3)}))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ConfigError, match="damaged, or another file"):
        inception()


def test_the_inception_network_is_that_of_torch_fidelity(
    weights: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with monkeypatch.context() as patch:  # the network as it is initialised, for want of weights
        patch.setattr(module, "load_state_dict_from_url", lambda *args, **options: None)
        patch.setattr(nn.Module, "load_state_dict", lambda *args: None)
        original = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    weights(saved(original.state_dict()))
    images = smooth(1)
    network = inception()
    assert not network.training
    features = features_of(images, network)
    assert features.shape == (1, 2048)
    assert torch.allclose(features, original(images)[0], rtol=1e-4, atol=1e-4 * float(features.abs().max()))


def saved(state: dict[str, object]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()
