"""The hyperprior codec: any picture and quality round trips, files cost what the model says, damage is told."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import difflate
from coder_helpers import as_images, one_rate_codec, photo, psnr, tiny_codec
from difflate.cli.main import main
from difflate.codecs.rate_search import encode_within
from difflate.codecs.transform import quality_of
from difflate.entropy.hyperprior import QUALITY_MAX
from difflate.errors import (
    ConfigError,
    DesyncError,
    DifflateError,
    FormatError,
    LimitExceeded,
    ModelError,
    VerificationFailed,
)
from difflate.format import container, sections
from difflate.format.container import read_dfl, write_dfl
from difflate.limits import Limits
from difflate.media.picture import Picture
from difflate.nn.tiles import TILE_PX
from difflate.options import TransformEncoding
from image_helpers import noise
from test_fuzz import mutate, with_valid_checksum

CODEC, ONE_RATE = tiny_codec(), one_rate_codec()
SMALL = Limits(pixels=2**12)
"""So that a file which asks for a large image, which is legal, does not make the test slow."""


@pytest.mark.parametrize("codec", [CODEC, ONE_RATE], ids=["hyperprior", "factorized"])
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (16, 16), (17, 15), (64, 48), (65, 47)])
def test_any_size_and_grey_round_trip(codec, channels, size):
    alpha = noise(*size, seed=1)
    picture = Picture(noise(channels, *size), alpha, exif=b"II*\0abc", icc=b"profile", xmp=b"<x/>")
    for given_picture in (picture, Picture(picture.pixels)):
        data = codec.encode(given_picture)
        restored = codec.decode(data)
        assert restored.pixels.shape == picture.pixels.shape
        assert restored.pixels.dtype == np.uint8
        for name in ("alpha", "exif", "icc", "xmp"):
            np.testing.assert_array_equal(getattr(restored, name), getattr(given_picture, name))
        assert codec.encode(given_picture) == data


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0, 100), st.integers(1, 50), st.integers(1, 50), st.sampled_from([1, 3]), st.booleans(),
    st.sampled_from([0, 1, 255]), st.integers(0, 1000),
)  # fmt: skip
def test_quality_is_continuous_and_files_hold_what_was_encoded(quality, height, width, channels, flat, value, seed):
    pixels = np.full((channels, height, width), value, np.uint8) if flat else noise(channels, height, width, seed=seed)
    pixels[0] ^= 128 * (flat and channels == 3)  # else it would be coded as a grey one
    data = CODEC.encode(Picture(pixels), quality=quality)
    file = read_dfl(data)
    step = quality_of(dict(file.sections))
    assert step == round(quality / 100 * QUALITY_MAX)
    latent = CODEC.read_latent(file)
    images = torch.from_numpy(pixels)[None].expand(-1, 3, -1, -1)
    (y,) = CODEC.space.analyse(images, quality, TransformEncoding(tile_px=TILE_PX))
    assert latent.y_hat.shape == y.shape
    assert np.abs(latent.y_hat - y.numpy()).max() < 1  # rounded, or made smaller by less than one step
    assert container.symbols_crc(latent.symbols()) == file.symbols_crc
    restored = CODEC.decode(data).pixels
    assert restored.shape == pixels.shape
    if channels == 3:
        (direct,) = CODEC.space.restore(latent.y_hat[None], height, width, [step], TILE_PX)
        np.testing.assert_array_equal(restored, direct.numpy())
        assert np.array_equal(CODEC.to_latent(images, quality)[0], latent.y_hat)
        again = CODEC.from_latent(CODEC.to_latent(images, quality), height, width, quality)
        np.testing.assert_array_equal(again[0].numpy(), restored)


def test_a_latent_of_another_shape_is_refused() -> None:
    latent = CODEC.to_latent(torch.zeros(1, 3, 20, 20, dtype=torch.uint8))
    for wrong in (latent[0], latent[:, 1:]):
        with pytest.raises(ConfigError, match=r"latent .* must be \(B, "):
            CODEC.from_latent(wrong)
    with pytest.raises(ConfigError, match=r"size \(=33x20 px\) must be within the latent's, 32x32 px"):
        CODEC.from_latent(latent, 20, 33)


def test_what_the_encoder_chose_is_what_the_file_holds(monkeypatch):
    chosen = []
    encode = type(CODEC.coder.exact).encode
    monkeypatch.setattr(
        type(CODEC.coder.exact), "encode", lambda *arguments: chosen.append(encode(*arguments)) or chosen[-1]
    )
    for quality in (0, 33.3, 100):
        latent = CODEC.read_latent(read_dfl(CODEC.encode(Picture(photo(60, 77)), quality=quality)))
        for name in ("z", "q", "y_hat"):
            np.testing.assert_array_equal(getattr(latent, name), getattr(chosen[-1], name))


@pytest.mark.parametrize("quality", [-1e-9, 100.001, float("nan"), float("inf"), -float("inf")])
def test_a_quality_out_of_range_is_refused(quality):
    with pytest.raises(ConfigError, match=r"quality .* must be from 0 to 100"):
        CODEC.encode(Picture(noise(3, 8, 8)), quality=quality)


def test_the_default_quality_is_50_and_one_rate_has_none():
    picture = Picture(photo(40, 40))
    assert CODEC.encode(picture) == CODEC.encode(picture, quality=50.0) != CODEC.encode(picture, quality=51)
    assert CODEC.quality_range == (0, 100, 50)
    assert ONE_RATE.quality_range is None
    with pytest.raises(ConfigError, match="has no meaning for one-rate"):
        ONE_RATE.encode(picture, quality=50)


@pytest.mark.parametrize("quality", [0.0, 50.0, 100.0])
def test_files_take_the_bits_that_the_model_estimates(quality):
    pixels = photo(256, 256, 100, 300)
    size_bits = 8 * len(CODEC.encode(Picture(pixels), quality=quality))
    with torch.no_grad():
        coded = CODEC.model(as_images(pixels), torch.tensor([quality / 100])).coded
    estimate = float(coded.y_bits + coded.z_bits)
    assert abs(size_bits - estimate) < 0.01 * estimate + 300
    assert float(coded.z_bits) > 100


def test_files_of_one_rate_take_the_bits_that_the_model_estimates():
    pixels = photo(256, 256, 100, 300)
    size_bits = 8 * len(ONE_RATE.encode(Picture(pixels)))
    with torch.no_grad():
        estimate = float(ONE_RATE.model(as_images(pixels), torch.zeros(1)).coded.y_bits)
    assert abs(size_bits - estimate) < 0.01 * estimate + 300
    assert psnr(pixels, ONE_RATE.decode(ONE_RATE.encode(Picture(pixels))).pixels) > 25


def test_an_encoder_that_misreads_itself_writes_nothing(monkeypatch):
    decode = type(CODEC.coder.exact).decode

    def other(self, *arguments):
        latent = decode(self, *arguments)
        latent.q[0, 0, 0] += 1
        return latent

    monkeypatch.setattr(type(CODEC.coder.exact), "decode", other)
    with pytest.raises(VerificationFailed):
        CODEC.encode(Picture(noise(3, 9, 9)))


def test_autocast_changes_pixels_only_by_a_few_levels():
    """bf16 networks: the file holds their latents, which float32 networks read."""
    pixels = photo(64, 80)
    with torch.autocast("cpu", torch.bfloat16):
        data = CODEC.encode(Picture(pixels), quality=60)
        low = CODEC.decode(data).pixels
    full = CODEC.decode(data).pixels
    assert np.abs(low.astype(int) - full).mean() < 2
    assert psnr(pixels, full) > 20


def test_limits_hold_for_writing_and_reading():
    data = CODEC.encode(Picture(noise(3, 16, 16)))
    with pytest.raises(LimitExceeded):
        CODEC.decode(data, limits=Limits(pixels=255))
    with pytest.raises(LimitExceeded):
        CODEC.encode(Picture(noise(3, 16, 16)), limits=Limits(side_px=15))


# -- damage ----------------------------------------------------------------------------------------------------------


def originals() -> list[tuple[bytes, object]]:
    pixels = photo(21, 34, 200, 300)
    alpha = noise(21, 34, seed=1)
    pictures = [Picture(pixels), Picture(pixels[:1], alpha, exif=b"II*\0"), Picture(pixels[:, :1, :1])]
    files = [(CODEC.encode(picture, quality=30 * i), CODEC) for i, picture in enumerate(pictures)]
    return [*files, (ONE_RATE.encode(pictures[0]), ONE_RATE)]


def test_two_thousand_mutations():
    files = originals()
    pictures = [codec.decode(data) for data, codec in files]
    rng = np.random.default_rng(4)
    errors = 0
    for i in range(2000):
        which = rng.integers(len(files))
        original, codec = files[which]
        data = mutate(original, rng)
        forged = i % 2 == 1
        if forged:
            data = with_valid_checksum(data)
        try:
            restored = codec.decode(data, limits=SMALL)
        except DifflateError:
            errors += 1
            continue
        same = np.array_equal(restored.pixels, pictures[which].pixels)
        # a forged checksum may stand over another size, level or metadata
        assert same or forged, f"mutation {i} decoded to something else"
    assert errors > 0.9 * 2000


def test_a_payload_of_garbage_behind_right_checksums_is_told():
    rng = np.random.default_rng(3)
    for data, codec in originals():
        file = read_dfl(data)
        for _ in range(40):
            payload = rng.bytes(int(rng.integers(0, 100)))
            with pytest.raises(FormatError):
                codec.decode(write_dfl(dataclasses.replace(file, sections=((sections.LATENT, payload),))))


def test_symbols_that_decode_otherwise_are_told_from_damage():
    file = read_dfl(CODEC.encode(Picture(noise(3, 16, 16))))
    with pytest.raises(DesyncError, match="others than were written"):
        CODEC.decode(write_dfl(dataclasses.replace(file, symbols_crc=file.symbols_crc ^ 1)))
    missing = dataclasses.replace(file, sections=((sections.EXIF, b""),))
    with pytest.raises(FormatError, match="no section"):
        CODEC.decode(write_dfl(missing))


def test_every_truncation_and_every_flipped_bit_is_a_format_error():
    data = CODEC.encode(Picture(photo(20, 33)))
    for length in range(len(data)):
        with pytest.raises(FormatError):
            CODEC.decode(data[:length])
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            CODEC.decode(bytes(damaged))


# -- models ----------------------------------------------------------------------------------------------------------


def test_files_of_other_models_and_codecs_are_refused():
    picture, other, vq = Picture(noise(3, 16, 16)), tiny_codec(seed=1), difflate.load("eopq-32-8-8")
    ours, theirs = CODEC.encode(picture), vq.encode(picture)
    for codec, data in ((other, ours), (CODEC, other.encode(picture)), (ONE_RATE, ours), (vq, ours), (CODEC, theirs)):
        with pytest.raises(ModelError, match=r"written with (model|another kind of codec)"):
            codec.decode(data)
    # the same model's number, and the other codec's
    file = read_dfl(theirs)
    with pytest.raises(FormatError, match="no section"):
        CODEC.decode(write_dfl(dataclasses.replace(file, codec=2, model_id=CODEC.model_id)))
    file = read_dfl(ours)
    with pytest.raises(FormatError, match="no section"):
        vq.decode(write_dfl(dataclasses.replace(file, codec=1, model_id=vq.model_id)))
    with pytest.raises(ModelError, match="not bundled"):
        difflate.decode(ours)
    with pytest.raises(FormatError):
        CODEC.decode(b"text")


def test_the_command_line_takes_a_folder(tmp_path, capsys):
    CODEC.model.save_pretrained(tmp_path / "model")
    ONE_RATE.model.save_pretrained(tmp_path / "one")
    source = tmp_path / "photo.png"
    Image.fromarray(photo(70, 90).transpose(1, 2, 0)).save(source)
    model, one, file = (str(tmp_path / name) for name in ("model", "one", "photo.dfl"))
    assert main(["compress", str(source), "--codec", model, "-q", "72.5"]) == 0
    assert main(["verify", file]) == 4
    assert main(["verify", file, "--codec", one]) == 4
    assert main(["verify", file, "--codec", model]) == 0
    assert main(["info", file, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (shown["model"], shown["model_id"], shown["width"]) == (None, CODEC.model_id.hex(), 90)
    assert [section["type"] for section in shown["sections"]] == ["latent"]
    restored = tmp_path / "restored.png"
    assert main(["decompress", file, "-o", str(restored), "--codec", model]) == 0
    with Image.open(restored) as image:
        expected = CODEC.decode((tmp_path / "photo.dfl").read_bytes())
        np.testing.assert_array_equal(np.asarray(image).transpose(2, 0, 1), expected.pixels)
    capsys.readouterr()
    for words, message in (
        (["compress", str(source), "-f", "--codec", model, "-q", "101"], "must be from 0 to 100"),
        (["compress", str(source), "-f", "--codec", one, "-q", "50"], "has only one"),
        (["compress", str(source), "-f", "--codec", one, "--bpp", "1"], "has one quality only"),
        (["compress", str(source), "-f", "--codec", model, "--fixed-rate"], "--fixed-rate has no meaning"),
        (["compress", str(source), "-f", "--codec", model, "--tile", "15"], "must be at least 16"),
        (["decompress", file, "-f", "--codec", model, "--steps", "3"], "--steps has no meaning"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("difflate:") == 1


@pytest.mark.parametrize("allowed", [500, 900, 1500])
def test_a_size_is_found_on_the_continuous_scale(allowed):
    picture = Picture(photo(96, 96, 200, 300))
    data = encode_within(CODEC, allowed, lambda quality: CODEC.encode(picture, quality=quality)).data
    assert len(data) <= allowed
    top = CODEC.encode(picture, quality=100)
    assert len(data) > 0.97 * allowed or data == top


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 130])
def test_side_information_in_bands_is_that_of_the_whole(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    analysis = CODEC.model.entropy.hyper_analysis
    monkeypatch.setattr(CODEC.model, "side_information", analysis)  # not rounded
    y = 4 * torch.randn(CODEC.coder.exact.latent_channels, rows, 5, generator=torch.Generator().manual_seed(rows))
    with torch.no_grad():
        whole = analysis(y[None])[0]
    assert whole.abs().mean() > 0.01
    torch.testing.assert_close(CODEC.coder._side_information(y), whole, atol=1e-5, rtol=1e-4)
