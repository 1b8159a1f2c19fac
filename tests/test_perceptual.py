import json
import math
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from backbone_helpers import NETS, smooth_batch, stand_in, weights_path
from difflate.cli.main import main
from difflate.codecs import loading
from difflate.errors import ConfigError, VerificationFailed
from difflate.evaluate import evaluate
from difflate.metrics.backbones import BACKBONES, Net
from difflate.metrics.perceptual import Lpips, load_lpips, lpips
from fake_codecs import Coarse, save
from lazy import Lazy

models = Lazy("torchvision.models")


@pytest.fixture(params=NETS)
def network(request: pytest.FixtureRequest, backbones: Path) -> Lpips:
    return load_lpips(request.param)


# The measure


def test_it_is_that_of_torchmetrics(network: Lpips, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = pytest.importorskip("torchmetrics.functional.image.lpips")

    def features(name: str, pretrained: bool) -> nn.Sequential:
        with torch.device("meta"):
            features = getattr(models, name)(weights=None).features
        tensors = {key.removeprefix("features."): tensor for key, tensor in stand_in(network.net).items()}
        features.load_state_dict(tensors, assign=True)
        return features

    monkeypatch.setattr(reference, "_get_tv_model_features", features)
    other = reference._LPIPS(net=network.net)
    x, y = smooth_batch(), smooth_batch(seed=1)
    distance = network(x, y)
    assert (distance.shape, distance.dtype) == ((2,), torch.float32)
    assert distance.min() > 0.01
    assert torch.allclose(distance, other(x, y).flatten(), rtol=1e-5, atol=1e-6)


def test_identical_images_are_at_0_and_order_does_not_matter(network: Lpips) -> None:
    x, y = smooth_batch(), smooth_batch(seed=1)
    assert torch.equal(network(x, x), torch.zeros(2))
    assert torch.equal(network(x, y), network(y, x))
    nearer = network(x, 0.9 * x + 0.1 * y)
    assert (nearer > 0).all()
    assert (nearer < network(x, y)).all()


def test_the_gradient_is_that_of_the_values(backbones: Path) -> None:
    network = load_lpips("alex").double()
    x, y = smooth_batch(1).double().requires_grad_(), smooth_batch(1, seed=1).double().requires_grad_()
    slopes = torch.autograd.grad(network(x, y), (x, y))
    with torch.no_grad():
        direction, step = smooth_batch(1, seed=2).double(), 1e-6
        for slope, ends in (
            (slopes[0], [network(x + sign * step * direction, y) for sign in (1, -1)]),
            (slopes[1], [network(x, y + sign * step * direction) for sign in (1, -1)]),
        ):
            difference = float(ends[0] - ends[1]) / (2 * step)
            assert abs(difference) > 1e-3
            assert float((slope * direction).sum()) == pytest.approx(difference, rel=1e-3)


@pytest.mark.parametrize("silent", [1, 5])
def test_gradients_are_finite_where_no_feature_is_seen(network: Lpips, silent: int) -> None:
    last = network.backbone.layers[silent - 1]
    bias = network.features[last - 1].bias
    assert isinstance(bias, Tensor)
    bias.fill_(-1e4)  # no feature of that stage is above 0, those of the stages behind it are their biases alone
    for x, y in ((torch.zeros(1, 3, 40, 40), torch.full((1, 3, 40, 40), 0.3)), (smooth_batch(), smooth_batch())):
        x = x.requires_grad_()
        network(x, y).sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()


def test_only_the_images_have_gradients(network: Lpips) -> None:
    nn.Sequential(network).train()
    assert not any(module.training for module in network.modules())
    assert not any(tensor.requires_grad for tensor in network.parameters())
    x = smooth_batch().requires_grad_()
    network(x, smooth_batch(seed=1)).sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).any(dim=1).float().mean() > 0.9


def test_half_precision_is_near(network: Lpips) -> None:
    x, y = smooth_batch(), smooth_batch(seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        distance = network(x, y)
    assert distance.dtype == torch.float32
    assert torch.allclose(distance, network(x, y), rtol=0.05)


def test_sizes(network: Lpips) -> None:
    side = network.backbone.min_side_px
    assert network(smooth_batch(1, side, side), smooth_batch(1, side, side, seed=1)).isfinite().all()
    small = smooth_batch(1, side - 1, 60)
    with pytest.raises(ConfigError, match=f"60x{side - 1} px are too small .* needs {side} px"):
        network(small, small)
    for x, y in (
        (smooth_batch(1), smooth_batch(2)),
        (smooth_batch()[0], smooth_batch()[0]),
        (smooth_batch()[:, :1], smooth_batch()[:, :1]),
    ):
        with pytest.raises(ConfigError, match=r"must both be \(B, 3, H, W\)"):
            network(x, y)


def test_pictures(network: Lpips) -> None:
    pixels = ((smooth_batch(1)[0] + 1) * 100).byte()
    other = pixels + 9
    expected = float(network(pixels[None] / 127.5 - 1, other[None] / 127.5 - 1))
    assert lpips(pixels, other, network) == expected > 0
    assert lpips(pixels, pixels, network) == 0
    grey = pixels[:1]
    assert lpips(grey, grey.expand(3, -1, -1), network) == 0
    assert lpips(grey, grey + 9, network) == lpips(grey.expand(3, -1, -1), grey.expand(3, -1, -1) + 9, network)
    side = network.backbone.min_side_px
    assert lpips(pixels[:, :side], other[:, :side], network) is not None
    assert lpips(pixels[:, : side - 1], other[:, : side - 1], network) is None
    assert lpips(pixels[:, :1, :1], other[:, :1, :1], network) is None
    with pytest.raises(VerificationFailed):
        lpips(pixels, other[:, 1:], network)
    with pytest.raises(VerificationFailed, match="not the same picture"):
        lpips(pixels // 4, 255 - pixels // 4, network)


# The weights


@pytest.mark.parametrize("net", NETS)
def test_missing_weights_are_told_and_not_downloaded(
    net: Net, empty_hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*args: object, **options: object) -> None:
        raise AssertionError("a download")

    for name in ("download_url_to_file", "load_state_dict_from_url"):
        monkeypatch.setattr(torch.hub, name, download)
    with pytest.raises(ConfigError) as error:
        load_lpips(net)
    url = getattr(models, BACKBONES[net].weights).IMAGENET1K_V1.url
    assert str(error.value).startswith(f"{empty_hub}/checkpoints/{url.rpartition('/')[2]}: the weights of ")
    assert str(error.value).endswith(f"download {url} to that place")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("module", "package"), [("torchvision.models", "torchvision"), ("torchmetrics",) * 2])
@pytest.mark.usefixtures("backbones")
def test_missing_packages_are_told(module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"{package}.* is not installed; run: pip install 'difflate\[eval\]'"):
        load_lpips("alex")


def test_unknown_nets_are_told() -> None:
    with pytest.raises(ConfigError, match=r"net \(=squeeze\) must be one of alex, vgg"):
        load_lpips("squeeze")  # pyright: ignore[reportArgumentType]


def test_what_else_a_file_holds_is_left_out(empty_hub: Path) -> None:
    held = stand_in("alex")
    torch.save(held | {"classifier.1.weight": torch.zeros(2, 2)}, weights_path("alex"))
    network = load_lpips("alex")
    assert torch.equal(network.features.state_dict()["10.weight"], held["features.10.weight"])
    assert len(network.features) == 12  # without the last pooling


@pytest.mark.parametrize(
    "change",
    [
        lambda held: {key: tensor for key, tensor in held.items() if key != "features.3.bias"},
        lambda held: held | {"features.3.bias": torch.zeros(191)},
        lambda held: held | {"features.3.bias": torch.full((192,), math.nan)},
        lambda held: held | {"features.3.bias": "text"},
        lambda held: list(held.values()),
    ],
)
def test_other_weights_are_told(change: Callable, empty_hub: Path) -> None:
    torch.save(change(stand_in("alex")), weights_path("alex"))
    with pytest.raises(ConfigError, match=r"has no weights features.* of the shape .*download .* again"):
        load_lpips("alex")


class Harmful:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("data", [pickle.dumps(Harmful(), 2), b"", b"PK\3\4 cut", b"<html>not found</html>"])
def test_weights_cannot_name_code(
    data: bytes, empty_hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights_path("alex").write_bytes(data)
    with pytest.raises(ConfigError, match="damaged, or holds other things than weights"):
        load_lpips("alex")
    assert not (tmp_path / "harm").exists()


# Evaluation


@pytest.fixture
def codecs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, bool]]:
    """Coarse codecs under any name; the list gets the options of each load."""
    options: list[dict[str, bool]] = []

    def load(name: str, **given: bool) -> Coarse:
        options.append(given)
        return Coarse(name)

    monkeypatch.setattr(loading, "load", load)
    return options


@pytest.mark.usefixtures("backbones", "codecs")
def test_eval_measures_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "images" / "a.png", 0, 32, 32)
    save(tmp_path / "images" / "b.png", 1, 32, 32)
    words = ["eval", str(tmp_path / "images"), "--codecs", "jpeg:2..5..1,webp:3..6..1", "--lpips", "alex"]
    assert main([*words, "--out", str(tmp_path / "report")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "| SSIMULACRA2 | LPIPS alex | encode s |" in out
    assert "quality):\n\n| codec | PSNR | SSIM | MS-SSIM | SSIMULACRA2 | LPIPS alex |\n" in out
    result = json.loads((tmp_path / "report" / "results.json").read_text())
    assert result["protocol"]["lpips_net"] == "alex"
    assert result["protocol"]["versions"]["torchvision"]
    assert "--lpips alex" in result["protocol"]["command"]
    rates = result["bd_rate_percent"]["webp"]
    assert set(rates) == {"psnr", "ssim_db", "ms_ssim_db", "ssimulacra2", "lpips"}
    assert rates["lpips"] == pytest.approx(0, abs=2)  # one codec under two names
    assert [row["lpips_net"] for row in result["means"]] == ["alex"] * 8
    by_key = {(record["image"], record["setting"]): record["lpips"] for record in result["records"]}
    values = [by_key["a.png", setting] for setting in ("jpeg:2", "jpeg:3", "jpeg:4", "jpeg:5", "webp:6")]
    assert values == sorted(values, reverse=True)
    assert values[-1] > 0
    assert result["means"][0]["lpips"] == pytest.approx((values[0] + by_key["b.png", "jpeg:2"]) / 2)
    text = (tmp_path / "report" / "results.md").read_text()
    for part in out.split("\n\n"):
        assert part in text
    with Image.open(tmp_path / "report" / "rate_distortion.png") as plot:
        assert plot.width == 5 * 600


@pytest.mark.usefixtures("backbones", "codecs")
def test_images_too_small_for_it_have_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(save(tmp_path / "a.png")), str(save(tmp_path / "b.png", 1, height=24))]
    assert main(["eval", *paths, "--codecs", "jpeg:2..5..1,webp:3..6..1", "--lpips", "alex", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [record["lpips"] is None for record in result["records"]] == [False] * 8 + [True] * 8
    assert result["means"][0]["counts"] == {
        "bpp": 2, "psnr": 2, "ssim": 2, "ms_ssim": 0, "ssimulacra2": 2, "lpips": 1, "dists": 0, "encode_s": 2,
        "decode_s": 2,
    }  # fmt: skip
    # the rates are of two images, the LPIPS of one
    assert "not all images have lpips" in result["bd_rate_percent"]["webp"]["lpips"]
    assert isinstance(result["bd_rate_percent"]["webp"]["psnr"], float)


@pytest.mark.usefixtures("empty_hub", "codecs")
def test_eval_without_the_weights_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = save(tmp_path / "a.png")
    words = ["eval", str(image), "--codecs", "jpeg", "--out", str(tmp_path / "report")]
    assert main([*words, "--lpips", "vgg"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "vgg16-397923af.pth: the weights of VGG16, which LPIPS needs, are not there" in err
    assert not (tmp_path / "report").exists()
    assert main(words) == 0  # not asked for
    out, err = capsys.readouterr()
    assert "LPIPS" not in out
    assert err == ""
    result = json.loads((tmp_path / "report" / "results.json").read_text())
    assert result["protocol"]["lpips_net"] is result["records"][0]["lpips"] is result["means"][0]["lpips"] is None


def test_eval_downloads_models_only_if_allowed(
    codecs: list[dict[str, bool]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = save(tmp_path / "a.png")
    assert main(["eval", str(image), "--codecs", "some/model:3"]) == 0
    assert codecs == [{}]
    capsys.readouterr()
    assert main(["eval", str(image), "--codecs", "some/model:3", "--allow-download", "--json"]) == 0
    assert codecs == [{}, {"allow_download": True}]
    assert "--allow-download" in json.loads(capsys.readouterr().out)["protocol"]["command"]


@pytest.mark.usefixtures("codecs")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--anchor", "avif"], "anchor (=avif) has 0 qualities in --codecs; BD-rates need 4, such as avif:LOW..HIGH"),
        (["--anchor", "webp"], "anchor (=webp) has 1 qualities"),
        (["--bpp-range", "0.8", "0.15"], "bpp_range (=0.8, 0.15) must be two rising rates above 0"),
        (["--bpp-range", "0", "1"], "bpp_range (=0, 1)"),
        (["--bpp-range", "nan", "1"], "bpp_range (=nan, 1)"),
        (["--bpp-range", ".1", "inf"], "bpp_range (=0.1, inf)"),
    ],
)
def test_anchors_that_cannot_be_are_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = save(tmp_path / "a.png")
    report = tmp_path / "report"
    assert main(["eval", str(image), "--codecs", "jpeg:1..4..1,webp:2", "--out", str(report), *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert not report.exists()


@pytest.mark.parametrize("net", NETS)
@pytest.mark.usefixtures("backbones")
def test_records_keep_the_backbone(net: str, tmp_path: Path) -> None:
    records = evaluate([save(tmp_path / "a.png", 0, 32, 32)], "x:3", load=Coarse, also={"lpips": net})
    assert records[0].to_json()["lpips_net"] == net
    assert (records[0].values["lpips"] or 0) > 0
