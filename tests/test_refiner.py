"""The refiner of the vq codecs: what it leaves alone, tiles, files and folders."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import difflate
from coder_helpers import photo
from difflate import registry
from difflate.cli.main import main
from difflate.codecs.loading import load
from difflate.errors import ConfigError, ModelError
from difflate.evaluate.options import load_with_options
from difflate.media.picture import Picture
from difflate.models.latent_space import latent_space
from difflate.models.refiner import NETWORK, Refiner, load_refiner, open_refiner
from difflate.nn import PRESETS, UNetConfig
from difflate.nn.tiles import spans
from difflate.nn.unet import UNet, reach_px
from difflate.store import hub
from refiner_helpers import TINY, as_pixels, codec_of, refiner_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A refiner's folder."""
    path = tmp_path_factory.mktemp("refiner") / "tiny"
    refiner_of().save_pretrained(path, dtype=torch.float16)
    return path


@pytest.fixture(scope="module")
def data() -> bytes:
    """A file of the codec."""
    return codec_of().encode(Picture(photo(45, 67, 100)))


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``bundle(*folders)``: these refiners, and no others, are bundled."""
    others = {name: config for name, config in hub.bundled_models().items() if config.get("kind") != "refiner"}

    def set_refiners(*folders: Path) -> None:
        found = {str(path): json.loads((path / "config.json").read_text()) for path in folders}

        def bundled_models(role: str | None = None) -> dict[str, dict]:
            models = {**others, **found}
            return {name: config for name, config in models.items() if role in (None, registry.kind_of(config).role)}

        monkeypatch.setattr(hub, "bundled_models", bundled_models)

    return set_refiners


# Images


@pytest.mark.parametrize("network", [TINY, NETWORK, PRESETS["refiner"]])
def test_before_training_nothing_is_changed(network: UNetConfig) -> None:
    images = as_pixels(45, 67)
    assert torch.equal(refiner_of(network, trained=False).refine(images), images)


@pytest.mark.parametrize(
    "network",
    [
        TINY,
        UNetConfig(widths=(8, 8), blocks=(1, 2), up_blocks=(2, 1), up_repeats=2, patch=2),
        UNetConfig(widths=(8, 8, 8), blocks=(1, 1, 1), patch=2, block="depthwise"),
    ],
)
def test_nothing_is_seen_beyond_the_reach(network: UNetConfig) -> None:
    torch.manual_seed(0)
    unet, reach = UNet(network), reach_px(network)
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, 3, 1, 8 * reach // 4 * 4, requires_grad=True)
    column = 4 * reach // 4 * 4
    furthest = 0
    for offset in range(network.stride_px):
        (gradient,) = torch.autograd.grad(unet(x, torch.zeros(1))[..., column + offset].sum(), x)
        seen = gradient.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
        furthest = max(furthest, column + offset - int(seen.min()), int(seen.max()) - column - offset)
    assert reach - network.stride_px <= furthest <= reach


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (40, 411), (205, 203)])
def test_tiles_are_the_whole_image(size: tuple[int, int]) -> None:
    refiner, images = refiner_of(UNetConfig(widths=(8, 8), blocks=(1, 1), patch=2)), as_pixels(*size)
    whole, tiled = (refiner.refine(images, tile_px=px) for px in (4096, 8))
    margin = -(-reach_px(refiner.network) // 8)
    tiles = [len(spans(-(-side // 8), 1, margin, 2, 8)) for side in size]
    assert [count > 1 for count in tiles] == [side > 200 for side in size]
    assert (whole.int() - tiled.int()).abs().max() <= 1  # two roundings of the same number
    assert (whole != tiled).float().mean() < 0.001
    assert (whole.int() - images.int()).abs().float().mean() > (1 if min(size) > 1 else 0)


def test_attention_makes_no_seams() -> None:
    network = UNetConfig(widths=(8, 16), blocks=(1, 1), attention=("none", "full"), head_width=8)
    refiner, images = refiner_of(network), as_pixels(40, 411)
    whole, tiled = (refiner.refine(images, tile_px=px).float() for px in (4096, 8))
    errors = [float((found - images).square().mean()) for found in (whole, tiled)]
    assert abs(10 * np.log10(errors[0] / errors[1])) < 0.1
    assert (tiled - whole).diff(dim=3).abs().mean(dim=(0, 1, 2)).max() < 0.5  # levels, in any column


def test_odd_sizes_are_those_of_a_repeated_edge() -> None:
    refiner, images = refiner_of(), as_pixels(13, 21)
    padded = torch.nn.functional.pad(images.float(), (0, 3, 0, 3), mode="replicate")
    found = refiner(padded / 127.5 - 1, torch.zeros(1))[:, :, :13, :21]
    expected = ((found.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(refiner.refine(images), expected)


def test_an_image_does_not_depend_on_the_batch() -> None:
    refiner = refiner_of()
    images = torch.cat([as_pixels(45, 67, left=left) for left in (0, 100, 200)])
    alone = torch.cat([refiner.refine(image[None]) for image in images.flip(0)]).flip(0)
    assert torch.equal(refiner.refine(images), alone)
    assert refiner.refine(images[:0]).shape == (0, 3, 45, 67)


def test_grey_stays_grey() -> None:
    refiner, colour = refiner_of(), as_pixels(45, 67)
    grey = colour[:, 1:2].expand(-1, 3, -1, -1)
    both = refiner.refine(torch.cat([grey, colour]))
    assert torch.equal(both[0], both[0, :1].expand(3, -1, -1))
    assert not torch.equal(both[0], grey[0])
    assert not torch.equal(both[1, 0], both[1, 1])


def test_the_network_is_told_the_noise() -> None:
    refiner, images = refiner_of(), as_pixels(45, 67)
    assert not torch.equal(refiner.refine(images), refiner.refine(images, noise=0.03))
    for noise in (-0.01, 0.031, float("nan")):
        with pytest.raises(ConfigError, match="noise"):
            refiner.refine(images, noise=noise)
    without = Refiner(TINY, "opq-32-8-8", "0" * 64, max_noise=0.0)
    assert torch.equal(without.refine(images), images)
    with pytest.raises(ConfigError, match="noise"):
        without.refine(images, noise=0.01)


@pytest.mark.parametrize(
    "wrong", [torch.zeros(3, 8, 8).byte(), torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8).byte()]
)
def test_wrong_tensors_are_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="uint8"):
        refiner_of().refine(wrong)
    with pytest.raises(ConfigError, match=r"tile \(=7 px\)"):
        refiner_of().refine(as_pixels(8, 8), tile_px=7)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"network": UNetConfig(in_channels=4)}, "in_channels"),
        ({"network": UNetConfig(self_condition=True)}, "self_condition"),
        ({"network": UNetConfig(cond_channels=(3, 0, 0))}, "cond_channels"),
        ({"codec_fingerprint": "1234"}, "codec_fingerprint"),
        ({"max_noise": -0.1}, "max_noise"),
        ({"max_noise": float("nan")}, "max_noise"),
    ],
)
def test_what_cannot_be_a_refiner_is_told(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Refiner(**{"network": TINY, "codec": "opq-32-8-8", "codec_fingerprint": "0" * 64, **values})


# Files and folders


def test_a_file_is_refined_when_asked(data: bytes, folder: Path, bundle: Callable[..., None]) -> None:
    codec, refiner = codec_of(), open_refiner(folder)
    plain = codec.decode(data)
    direct = refiner.refine(torch.from_numpy(plain.pixels)[None])[0].numpy()
    assert not np.array_equal(direct, plain.pixels)
    for options in ({"refiner": refiner}, {"refiner": folder}, {"refine": True, "refiner": str(folder), "tile_px": 64}):
        np.testing.assert_array_equal(codec.decode(data, **options).pixels, direct)
    bundle(folder)
    np.testing.assert_array_equal(codec.decode(data, refine=True).pixels, direct)
    np.testing.assert_array_equal(np.asarray(difflate.decode(data, refine=True)).transpose(2, 0, 1), direct)
    np.testing.assert_array_equal(codec.decode(data).pixels, plain.pixels)
    with_option = load_with_options("opq-32-8-8+refine=1", difflate.load)
    np.testing.assert_array_equal(with_option.decode(data).pixels, direct)
    with pytest.raises(ConfigError, match="`refine` has no meaning for jpeg"):
        load_with_options("jpeg+refine=1", difflate.load)
    with pytest.raises(ConfigError, match="`tile_px` has a meaning only with `refine`"):
        codec.decode(data, tile_px=512)


def test_grey_files_alpha_and_metadata_are_kept(folder: Path) -> None:
    alpha = photo(20, 31, 50)[0]
    file = codec_of().encode(Picture(photo(20, 31)[:1], alpha, exif=b"II*\0"))
    restored = codec_of().decode(file, refiner=folder)
    assert restored.pixels.shape == (1, 20, 31)
    assert not np.array_equal(restored.pixels, codec_of().decode(file).pixels)
    assert restored.alpha is not None
    np.testing.assert_array_equal(restored.alpha, alpha)
    assert restored.exif == b"II*\0"


def test_a_refiner_saves_and_loads_as_itself(folder: Path) -> None:
    again, made = Refiner.from_pretrained(folder), refiner_of()
    for name, value in made.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.half().float())
    assert vars(again.network) | {"widths": (8, 12), "blocks": (1, 1)} == vars(TINY)
    assert (again.codec, again.max_noise) == ("opq-32-8-8", 0.03)
    assert again.codec_fingerprint == codec_of().fingerprint.hex()
    assert "difflate decompress photo.dfl --refiner FOLDER" in refiner_of().usage


def test_a_folder_that_was_altered_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    for change in ({"codec_fingerprint": 5}, {"max_noise": "much"}, {"network": {"widths": [8]}}, {"kind": "cdc"}):
        (copy / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError):
            open_refiner(copy)
    with pytest.raises(ConfigError, match="'nowhere' is unknown"):
        open_refiner("nowhere")


def test_a_refiner_is_for_one_codec_and_is_none(folder: Path, bundle: Callable[..., None]) -> None:
    other = codec_of("pq-32-8-8")
    ours, theirs = codec_of().model_id.hex(), other.model_id.hex()
    with pytest.raises(ModelError, match=rf"of opq-32-8-8 \({ours}\), not of pq-32-8-8 \({theirs}\)"):
        load_refiner(latent_space(other), folder)
    bundle(folder)
    assert load_refiner(latent_space(codec_of())) is load_refiner(latent_space(codec_of()))
    with pytest.raises(ModelError, match="no refiner for pq-32-8-8"):
        load_refiner(latent_space(other))
    with pytest.raises(ModelError, match="is a refiner, not a codec"):
        load(folder)
    assert str(folder) not in hub.bundled_models("codec")
    assert difflate.load("opq-32-8-8") is codec_of()


def test_the_command_refines(
    data: bytes, folder: Path, tmp_path: Path, bundle: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle()
    source, target = tmp_path / "photo.dfl", tmp_path / "photo.png"
    source.write_bytes(data)

    def command(*words: str | Path) -> tuple[int, str]:
        code = main(["decompress", "-f", *map(str, words)])
        return code, capsys.readouterr().err

    def restored() -> np.ndarray:
        with Image.open(target) as image:
            return np.asarray(image).transpose(2, 0, 1)

    expected = codec_of().decode(data, refiner=folder).pixels
    assert command(source, "--refiner", folder) == (0, "")
    np.testing.assert_array_equal(restored(), expected)
    assert command(source, "--refiner", folder, "--refine", "--tile", "64") == (0, "")
    np.testing.assert_array_equal(restored(), expected)
    code, err = command(source, "--refine")
    assert code == 4
    assert re.fullmatch(r"difflate: \S+photo\.dfl: no refiner for opq-32-8-8 .* --refiner, or refiner= in .*\n", err)
    bundle(folder)
    assert command(source, "--refine") == (0, "")
    for name, message in (("jpeg", "for jpeg"), ("hyperprior-small", "for hyperprior-small")):
        other = tmp_path / f"other{difflate.load(name).suffix}"
        other.write_bytes(difflate.encode(photo(20, 30).transpose(1, 2, 0), name))
        code, err = command(other, "-o", target, "--refine")
        assert (code, err.count("\n")) == (2, 1)
        assert f"--refine has no meaning {message}" in err
        assert "--refiner has no meaning" in command(other, "-o", target, "--refiner", folder)[1]
    source.write_bytes(codec_of("rq-32-8-8").encode(Picture(photo(20, 30))))
    code, err = command(source, "--refiner", folder)
    assert (code, err.count("\n")) == (4, 1)
    assert "not of rq-32-8-8" in err
    code, err = command(source, "--codec", folder)
    assert (code, err.count("\n")) == (4, 1)
    assert "is a refiner" in err
    assert command(source, "--refiner", tmp_path / "none")[0] == 2
    code, err = command(source, "--tile", "64")
    assert (code, err.count("\n")) == (2, 1)
