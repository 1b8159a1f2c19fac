"""DISTS, beside the network that torchmetrics has of it, and in evaluations."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from backbone_helpers import models, smooth_batch, stand_in, weights_path
from difflate.cli.main import main
from difflate.codecs import loading
from difflate.errors import ConfigError, VerificationFailed
from difflate.metrics.dists import Dists, L2Pooling, dists, dists_with, load_dists
from difflate.seeds import torch_generator
from fake_codecs import Coarse, save

SIDE = 17


@pytest.fixture(scope="module")
def network(stand_in_hub: Path) -> Dists:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.hub, "_hub_dir", str(stand_in_hub))
        return load_dists()


def features() -> nn.Sequential:
    """Those of VGG16, with the stand-in weights."""
    with torch.device("meta"):
        layers = models.vgg16(weights=None).features
    tensors = {key.removeprefix("features."): tensor for key, tensor in stand_in("vgg").items()}
    layers.load_state_dict(tensors, assign=True)
    return layers


@pytest.mark.parametrize(("height", "width"), [(SIDE, SIDE), (40, 47)])
def test_it_is_that_of_torchmetrics(height: int, width: int, network: Dists, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = pytest.importorskip("torchmetrics.functional.image.dists")
    monkeypatch.setattr(reference, "vgg16", lambda weights: SimpleNamespace(features=features()))
    x, y = (smooth_batch(2, height, width, seed) for seed in (0, 1))
    y = y + 0.1 * torch.randn(y.shape, generator=torch_generator(2, 0))
    distance = network(x, y)
    assert (distance.shape, distance.dtype) == ((2,), torch.float32)
    assert distance.min() > 0.01
    assert torch.allclose(distance, reference.DISTSNetwork()((x + 1) / 2, (y + 1) / 2), rtol=1e-4, atol=1e-6)


def test_identical_images_are_at_0_and_order_does_not_matter(network: Dists) -> None:
    x, y = smooth_batch(), smooth_batch(seed=1)
    assert torch.equal(network(x, x), torch.zeros(2))
    assert torch.allclose(network(x, y), network(y, x), rtol=1e-6)
    nearer = network(x, 0.9 * x + 0.1 * y)
    assert (nearer > 0).all()
    assert (nearer < network(x, y)).all()
    assert network(torch.ones(1, 3, 20, 20), -torch.ones(1, 3, 20, 20)) <= 1


def test_the_gradient_is_that_of_the_values(network: Dists) -> None:
    network = copy.deepcopy(network).double().train()
    assert not any(module.training for module in network.modules())
    assert not any(tensor.requires_grad for tensor in network.parameters())
    x, y = smooth_batch(1, 24, 24).double().requires_grad_(), smooth_batch(1, 24, 24, seed=1).double()
    (slope,) = torch.autograd.grad(network(x, y), x)
    with torch.no_grad():
        direction, step = smooth_batch(1, 24, 24, seed=2).double(), 1e-8  # below the pooling's epsilon
        difference = float(network(x + step * direction, y) - network(x - step * direction, y)) / (2 * step)
    assert abs(difference) > 1e-3
    assert float((slope * direction).sum()) == pytest.approx(difference, rel=1e-3)


def test_gradients_of_flat_images_are_finite(network: Dists) -> None:
    x = torch.zeros(1, 3, 20, 20, requires_grad=True)
    network(x, torch.full((1, 3, 20, 20), 0.3)).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_half_precision_is_near(network: Dists) -> None:
    x, y = smooth_batch(), smooth_batch(seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        distance = network(x, y)
    assert distance.dtype == torch.float32
    assert torch.allclose(distance, network(x, y), rtol=0.05)


def test_the_pooling_is_the_root_of_a_weighted_mean_of_squares() -> None:
    pool, x = L2Pooling(), torch.rand(2, 3, 9, 8, generator=torch_generator(0, 0))
    pooled = pool(x)
    assert pooled.shape == (2, 3, 5, 4)
    line = np.array([0.25, 0.5, 0.25])
    padded = np.pad(x.double().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for i, j in ((0, 0), (2, 3), (4, 1)):
        window = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        expected = np.sqrt((window**2 * line[:, None] * line).sum((2, 3)) + 1e-12)
        assert pooled[:, :, i, j].numpy() == pytest.approx(expected, rel=1e-5)


def test_sizes_and_pictures(network: Dists) -> None:
    small = smooth_batch(1, SIDE - 1, 60)
    with pytest.raises(ConfigError, match="60x16 px are too small for DISTS; it needs 17 px a side"):
        network(small, small)
    for x, y in ((smooth_batch(1), smooth_batch(2)), (smooth_batch()[:, :1], smooth_batch()[:, :1])):
        with pytest.raises(ConfigError, match=r"must both be \(B, 3, H, W\)"):
            network(x, y)
    pixels = ((smooth_batch(1)[0] + 1) * 100).byte()
    other = pixels + 9
    expected = float(network(pixels[None] / 127.5 - 1, other[None] / 127.5 - 1))
    assert dists(pixels, other, network) == pytest.approx(expected, rel=1e-5)
    assert dists(pixels, pixels, network) == 0
    assert dists(pixels[:, :SIDE], other[:, :SIDE], network) is not None
    assert dists(pixels[:, : SIDE - 1], other[:, : SIDE - 1], network) is None
    grey = pixels[:1]
    assert dists(grey, grey + 9, network) == dists(grey.expand(3, -1, -1), grey.expand(3, -1, -1) + 9, network)
    with pytest.raises(VerificationFailed):
        dists(pixels, other[:, 1:], network)
    with pytest.raises(VerificationFailed, match="not the same picture"):
        dists(pixels // 4, 255 - pixels // 4, network)


def test_the_original_that_is_kept_is_the_right_one(network: Dists, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("difflate.metrics.dists.load_dists", lambda: network)
    compare = dists_with()
    a, b = (((smooth_batch(1, 20, 24, seed)[0] + 1) * 100).byte() for seed in (0, 1))
    looks = []
    stages = Dists.stages
    monkeypatch.setattr(Dists, "stages", lambda self, images: looks.append(1) or stages(self, images))
    for original, count in ((a, 2), (a, 1), (b, 2), (a, 2)):
        looks.clear()
        value = compare(original, original + 9)
        assert len(looks) == count
        assert value == dists(original, original + 9, network)


def test_missing_weights_are_told(empty_hub: Path) -> None:
    with pytest.raises(ConfigError, match=r"vgg16-397923af.pth: the weights of VGG16, which DISTS needs, are not"):
        load_dists()


def test_it_is_lower_the_finer_a_photograph_is_restored(pytestconfig: pytest.Config) -> None:
    """With the published weights: what the authors' network, as torchmetrics has it, says of the same pixels."""
    pytest.importorskip("torchvision")
    if not weights_path("vgg").is_file():
        pytest.skip(f"needs the weights of VGG16: no file {weights_path('vgg')}; set TORCH_HOME")
    network = load_dists()
    with Image.open(pytestconfig.rootpath / "examples" / "kodim23.png") as image:
        pixels = np.array(image.crop((200, 100, 328, 228)))
    values = [dists(pixels, pixels // step * step + step // 2, network) for step in (64, 32, 8)]
    assert values == pytest.approx([0.350224, 0.231766, 0.019760], abs=1e-4)


def test_eval_measures_it_beside_lpips(
    backbones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading, "load", Coarse)
    save(tmp_path / "images" / "a.png", 0, 32, 32)
    save(tmp_path / "images" / "b.png", 1, 32, 16)
    words = ["eval", str(tmp_path / "images"), "--codecs", "jpeg:2..5..1,webp:3..6..1", "--lpips", "alex", "--dists"]
    assert main([*words, "--out", str(tmp_path / "report")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "| SSIMULACRA2 | LPIPS alex | DISTS | encode s |" in out
    assert "| codec | PSNR | SSIM | MS-SSIM | SSIMULACRA2 | LPIPS alex | DISTS |\n" in out
    result = json.loads((tmp_path / "report" / "results.json").read_text())
    assert "--lpips alex --dists" in result["protocol"]["command"]
    assert "lower is better" in result["protocol"]["definitions"]["dists"]
    values = [record["dists"] for record in result["records"][:4]]
    assert values == sorted(values, reverse=True)
    assert values[-1] > 0
    assert [record["dists"] for record in result["records"][8:]] == [None] * 8
    assert result["means"][0]["dists"] == values[0]
    assert "not all images have dists" in result["bd_rate_percent"]["webp"]["dists"]
    assert out.split("\n\n")[0] in (tmp_path / "report" / "results.md").read_text()
    with Image.open(tmp_path / "report" / "rate_distortion.png") as plot:
        assert plot.width == 6 * 600
