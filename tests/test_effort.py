"""`effort`: latents fitted to their image. Never worse, the same each time, and the default is what it was."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import difflate
import difflate.integrations.pillow
from coder_helpers import HYPERPRIOR, one_rate_codec, photo, psnr, tiny_codec
from difflate.cli.main import main
from difflate.codecs.effort import _windows, fit_latent, steps_of
from difflate.codecs.rate_search import encode_picture, encode_with_effort
from difflate.codecs.transform import TransformCodec
from difflate.errors import ConfigError
from difflate.evaluate.options import load_with_options
from difflate.media.picture import Picture
from difflate.nn.entropy_models import gaussian_bits
from difflate.nn.entropy_network import HyperpriorNetwork
from difflate.nn.soft_rounding import SoftRounding
from difflate.options import AvifEncoding, DiffusionEncoding, TransformEncoding
from fake_codecs import Coarse
from image_helpers import noise

TINY, ONE_RATE = tiny_codec(), one_rate_codec()


def options(effort: int | None, tile_px: int = 896) -> TransformEncoding:
    return TransformEncoding(effort=effort, tile_px=tile_px)


# -- the search --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [TINY, ONE_RATE], ids=["hyperprior", "factorized"])
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize(("size", "effort"), [((1, 1), 2), ((17, 33), 3), ((64, 80), 2), ((5, 70), 5)])
def test_no_effort_loses_what_it_is_for(codec: TransformCodec, channels: int, size: tuple[int, int], effort: int):
    picture = Picture(noise(channels, *size))
    pixels = torch.from_numpy(picture.pixels)
    plain, fitted = (codec.analyse([pixels], None, options(number))[0] for number in (1, effort))
    assert codec.price(fitted, pixels, None, options(1)) <= codec.price(plain, pixels, None, options(1))
    data = codec.encode(picture, effort=effort)
    assert data == codec.encode(picture, effort=effort)
    assert codec.decode(data).pixels.shape == picture.pixels.shape


def test_the_default_and_effort_1_are_the_analysis() -> None:
    picture = Picture(photo(40, 56))
    pixels = torch.from_numpy(picture.pixels)
    assert torch.equal(
        TINY.analyse([pixels], 30, options(1))[0], TINY.space.analyse(pixels[None], 30, options(None))[0]
    )
    assert TINY.encode(picture, effort=1) == TINY.encode(picture)
    assert steps_of(None) == 0
    steps = [steps_of(effort) for effort in range(1, 10)]
    assert steps == sorted(set(steps))


def test_files_are_smaller_at_equal_psnr() -> None:
    codec = difflate.load("hyperprior-small")
    picture = Picture(photo(96, 96, 400, 400))
    files = [codec.encode(picture, quality=q, effort=e) for q, e in ((60, 1), (60, 5), (50, 1))]
    plain, fitted, smaller = ((len(file), psnr(codec.decode(file).pixels, picture.pixels)) for file in files)
    assert fitted[0] < plain[0]
    # on the line through both qualities at the fitted file's PSNR
    share = (plain[1] - fitted[1]) / (plain[1] - smaller[1])
    assert fitted[0] < 0.96 * plain[0] * (smaller[0] / plain[0]) ** share


def test_windows_are_fitted_one_after_the_other_and_meet_without_a_gap() -> None:
    seen = torch.zeros(83, 41)
    for rows, columns, inside in _windows(83, 41, 20):
        assert rows.start % 4 == columns.start % 4 == 0
        seen[rows, columns] += inside
    assert torch.equal(seen, torch.ones(83, 41))
    pixels = torch.from_numpy(noise(3, 16, 16 * 41))
    plain, fitted = (TINY.analyse([pixels], 50, options(effort, 16))[0] for effort in (1, 3))
    changed = (fitted != plain).any(dim=0)
    assert changed.any(dim=0).all()


def test_progress_counts_every_step_and_may_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(TINY, "progress", lambda done, total: told.append((done, total)))
    TINY.analyse([torch.from_numpy(noise(3, 16, 16 * 41))], 50, options(2, 16))
    total = len(told)
    assert total > steps_of(2)
    assert told == [(done, total) for done in range(1, total + 1)]


@torch.inference_mode()
def test_it_needs_no_gradients_around_and_leaves_none_behind() -> None:
    pixels = torch.from_numpy(noise(3, 32, 32))
    quality = TINY.space.as_network_input(30000)
    (y,) = TINY.space.analyse(pixels[None], 46, options(1))
    fitted = fit_latent(TINY.space.model, y, pixels, quality, 56, 2)
    assert not fitted.requires_grad
    assert all(parameter.grad is None for parameter in TINY.model.parameters())


# -- what stands for rounding ------------------------------------------------------------------------------------------


def test_soft_rounding_is_rounding_when_cold_and_random_by_the_distance_when_warm() -> None:
    x = torch.tensor([-1.7, -0.2, 0.0, 0.3, 0.6, 4.0])
    assert torch.allclose(SoftRounding(0.02, torch.zeros(6), True)(x), x.round(), atol=1e-3)
    draws = torch.rand(200_000, generator=torch.Generator().manual_seed(0)).clamp(1e-6, 1 - 1e-6).logit()
    soft = SoftRounding(1.0, draws, True)(torch.full_like(draws, 0.3))
    weight = np.exp(-np.arctanh([0.3, 0.7]))  # of 0 and of 1, Eq. 7
    assert float((soft > 0.5).float().mean()) == pytest.approx(weight[1] / weight.sum(), abs=0.01)


def test_bits_between_integers_are_on_straight_lines() -> None:
    scale, rounding = torch.tensor([0.2, 1.0, 7.0]), SoftRounding(1.0, torch.zeros(3), average=True)
    for integer in (-2.0, 0.0, 3.0):
        ends = [gaussian_bits(torch.full((3,), integer + more), scale) for more in (0, 1)]
        assert torch.allclose(rounding.bits(torch.full((3,), integer), scale), ends[0])
        assert torch.allclose(rounding.bits(torch.full((3,), integer + 0.25), scale), ends[0].lerp(ends[1], 0.25))


@torch.no_grad()
def test_each_channel_has_its_own_noise_whatever_group_it_is_coded_in() -> None:
    network = HyperpriorNetwork(dataclasses.replace(HYPERPRIOR, groups=[1, 2]), 24, spread=torch.rand(24)).eval()
    y = 5 * torch.randn(1, 24, 6, 6)
    up = torch.arange(24)[None, :, None, None] % 3 == 0
    rounding = SoftRounding(0.5, torch.where(up, 1e4, -1e4).expand(y.shape), average=True)
    moved = network(y, torch.tensor([0.5]), rounding=rounding).y_hat - y
    assert torch.equal(moved > 0, up.expand(y.shape))
    assert float(moved.abs().max()) <= 1 + 1e-4


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [TransformEncoding, DiffusionEncoding])
@pytest.mark.parametrize(("value", "message"), [(0, "from 1 to 9"), (10, "from 1 to 9"), ("x", "a whole number")])
def test_efforts_that_cannot_be(kind: type, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^`effort` \(='?{value}'?\) must be {message}$"):
        kind.of({"effort": value}, "name")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "a.png", tmp_path / "a.dfl"
    Image.fromarray(photo(32, 48).transpose(1, 2, 0)).save(source)
    words = ["compress", str(source), "--codec", "hyperprior-small", "--effort"]
    for value, message in (("0", "--effort (=0) must be from 1 to 9"), ("x", "invalid int value: 'x'")):
        assert run(*words, value) == 2
        assert message in capsys.readouterr().err
    assert run("compress", str(source), "--codec", "jpeg", "--effort", "2") == 2
    assert "--effort has no meaning for jpeg" in capsys.readouterr().err

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TransformCodec, "progress", staticmethod(stop))
    assert run(*words, "2") == 130
    assert sorted(tmp_path.iterdir()) == [source]
    monkeypatch.undo()
    assert run(*words, "2") == 0
    codec = difflate.load("hyperprior-small")
    assert target.read_bytes() == difflate.encode(source, codec, effort=2)
    file = io.BytesIO()
    with Image.open(source) as image:
        image.load()
        image.save(file, "DFL", codec=codec, effort=2)
    assert file.getvalue() == target.read_bytes()
    measured = load_with_options("hyperprior-small+effort=2+tile_px=768", difflate.load)
    assert measured.encode(difflate.open_image(source)) == target.read_bytes()
    with pytest.raises(ConfigError, match="effort"):
        load_with_options("hyperprior-small+effort=0", difflate.load)


def run(*words: str) -> int:
    try:
        return main(list(words))
    except SystemExit as end:
        return int(end.code or 0)


def test_avif_has_its_speed() -> None:
    image = Image.fromarray(photo(64, 64).transpose(1, 2, 0))
    file = io.BytesIO()
    image.save(file, "AVIF", quality=40, speed=0)
    assert difflate.encode(image, "avif", quality=40, speed=0) == file.getvalue()
    slowest = load_with_options("avif+speed=0", difflate.load)
    assert slowest.encode(Picture(photo(64, 64)), quality=40) == file.getvalue()
    with pytest.raises(ConfigError, match=r"`speed` \(=11\) must be from 0 to 10"):
        AvifEncoding(speed=11)


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.7, 0.9, 1.0, 1.05])
@pytest.mark.parametrize("allowed", [60, 700, 5000, 10**6])
def test_a_size_is_met_by_few_files_that_take_an_effort(share: float, allowed: int) -> None:
    thorough: list[float] = []

    def size(quality: float) -> int:
        return int(50 * np.exp(quality / 12))

    def encode(quality: float) -> bytes:
        thorough.append(quality)
        return bytes(int(size(quality) * (share + 0.005 * np.sin(quality))))

    coded = encode_with_effort(Coarse("sized", (0, 100, 50)), allowed, lambda quality: bytes(size(quality)), encode)
    assert len(coded.data) <= allowed
    assert len(thorough) <= 4
    if 100 < allowed < 10**6:
        assert len(coded.data) > 0.97 * allowed
        assert not coded.short
    assert coded.short == (allowed == 10**6)


def test_bits_per_pixel_are_kept_with_an_effort() -> None:
    picture = Picture(photo(64, 96))
    allowed = len(TINY.encode(picture, quality=60))
    coded = encode_picture(TINY, picture, max_bytes=allowed, options={"effort": 3})
    assert 0.95 * allowed < len(coded.data) <= allowed
    assert coded.data == TINY.encode(picture, quality=coded.quality, effort=3)
