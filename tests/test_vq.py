"""The model-based codec, with the models that ship: files, latents, rates, determinism."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import difflate
from difflate.codecs.vq import VqCodec
from difflate.errors import ConfigError, DesyncError, FormatError, LimitExceeded, ModelError
from difflate.format import container, sections
from difflate.limits import Limits
from difflate.media.picture import Picture, open_image
from difflate.models.codebooks import CodebookModel
from difflate.quantize import ProductQuantizer
from difflate.registry import WEIGHTS
from difflate.store.hub import bundled_models

PHOTO = Path(__file__).parents[1] / "examples" / "kodim23.png"
TABLE_1 = ["vq-8-8-8", "pq-32-8-8", "opq-32-8-8", "rq-32-8-8"]
NAMES = [*TABLE_1, "eopq-32-8-8"]
BITS = {name: 24 if name == "vq-8-8-8" else 48 for name in NAMES}


def load(name: str = "eopq-32-8-8") -> VqCodec:
    codec = difflate.load(name)
    assert isinstance(codec, VqCodec)
    return codec


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (channels, height, width), dtype=np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


@pytest.mark.parametrize("name", NAMES)
def test_a_photograph_survives_and_its_file_is_exactly_its_indices(name):
    codec, picture = load(name), open_image(PHOTO)
    restored = [codec.decode(codec.encode(picture, fixed_rate=fixed)) for fixed in (False, True)]
    np.testing.assert_array_equal(restored[0].pixels, restored[1].pixels)
    tensor = torch.from_numpy(picture.pixels)[None]
    direct = codec.from_latent(codec.to_latent(tensor), picture.height, picture.width)
    np.testing.assert_array_equal(restored[0].pixels, direct[0].numpy())
    assert psnr(picture.pixels, restored[0].pixels) > (25 if name == "vq-8-8-8" else 28)


@pytest.mark.parametrize("name", NAMES)
def test_fixed_rate_takes_the_papers_bits_and_context_coding_fewer(name):
    codec, picture = load(name), open_image(PHOTO)
    fixed = len(codec.encode(picture, fixed_rate=True))
    patches = 96 * 64
    assert fixed == patches * BITS[name] // 8 + 24
    assert len(codec.encode(picture)) < 0.75 * fixed


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.booleans(), st.booleans())
def test_any_size_grey_and_alpha_round_trip(height, width, channels, with_alpha, fixed):
    codec = load()
    alpha = noise(height, width, 1, seed=1)[0] if with_alpha else None
    picture = Picture(noise(height, width, channels), alpha)
    data = codec.encode(picture, fixed_rate=fixed)
    restored = codec.decode(data)
    assert restored.pixels.shape == picture.pixels.shape
    assert restored.pixels.dtype == np.uint8
    if alpha is None:
        assert restored.alpha is None
    else:
        np.testing.assert_array_equal(restored.alpha, alpha)


def test_grey_has_no_colour_planes():
    codec, grey = load(), Picture(open_image(PHOTO).pixels[1:2])
    patches = 96 * 64
    assert len(codec.encode(grey, fixed_rate=True)) == patches * 32 // 8 + 24
    assert psnr(grey.pixels, codec.decode(codec.encode(grey)).pixels) > 28


@pytest.mark.parametrize("value", [0, 255])
def test_flat_and_tiny_images_take_few_bytes(value):
    codec = load()
    flat = Picture(np.full((3, 64, 64), value, np.uint8))
    data = codec.encode(flat)
    assert len(data) < 200
    assert psnr(flat.pixels, codec.decode(data).pixels) > 30
    assert len(codec.encode(Picture(np.full((3, 1, 1), value, np.uint8)))) < 40


def test_metadata_is_kept_in_sections_of_its_own():
    picture = Picture(noise(9, 9), exif=b"II*\0abc", icc=b"profile", xmp=b"<x/>")
    restored = load().decode(load().encode(picture))
    assert (restored.exif, restored.icc, restored.xmp) == (picture.exif, picture.icc, picture.xmp)


def test_latents_are_public_and_do_not_depend_on_the_batch():
    codec = load()
    images = torch.from_numpy(np.stack([noise(45, 67, seed=s) for s in range(5)]))
    latent = codec.to_latent(images)
    assert latent.shape == (5, 6, 6, 9)
    assert latent.dtype == torch.int64
    assert codec.space.sizes == [256] * 6
    assert int(latent.min()) >= 0
    assert int(latent.max()) < 256
    alone = torch.cat([codec.to_latent(image[None]) for image in images.flip(0)]).flip(0)
    assert torch.equal(latent, alone)
    restored = codec.from_latent(latent, 45, 67)
    assert restored.shape == images.shape
    assert torch.equal(restored, torch.cat([codec.from_latent(one[None], 45, 67) for one in latent]))
    assert codec.from_latent(latent).shape == (5, 3, 48, 72)


def test_bands_of_large_images_do_not_show(monkeypatch):
    codec, image = load(), torch.from_numpy(noise(90, 50))[None]
    whole = codec.to_latent(image)
    restored = codec.from_latent(whole, 90, 50)
    monkeypatch.setattr("difflate.models.codebooks._BAND_PATCHES", 7)
    assert torch.equal(codec.to_latent(image), whole)
    assert torch.equal(codec.from_latent(whole, 90, 50), restored)


def test_wrong_tensors_are_refused():
    codec = load()
    for wrong in (torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8).byte()):
        with pytest.raises(ConfigError, match="uint8"):
            codec.to_latent(wrong)
    with pytest.raises(ConfigError, match="must be"):
        codec.from_latent(torch.zeros(1, 5, 2, 2, dtype=torch.int64))
    with pytest.raises(ConfigError, match="must be integers"):
        codec.from_latent(torch.zeros(1, 6, 2, 2))
    with pytest.raises(ConfigError, match="outside its codebook"):
        codec.from_latent(torch.full((1, 6, 2, 2), 256))


def test_neighbouring_indices_mean_similar_patches():
    """Pseudo-ordinality: one step in index space costs less than in a codebook of arbitrary order."""
    codec = load()
    image = torch.from_numpy(open_image(PHOTO).pixels)[None]
    latent = codec.to_latent(image)
    near = codec.from_latent((latent + 1).clamp(max=255))
    shuffled = torch.argsort(torch.rand(256, generator=torch.Generator().manual_seed(0)))
    back = torch.argsort(shuffled)
    far = codec.from_latent(shuffled[(back[latent] + 1).clamp(max=255)])
    assert psnr(image.numpy(), near.numpy()) > psnr(image.numpy(), far.numpy()) + 4


def test_a_file_of_another_model_is_refused():
    data = load("pq-32-8-8").encode(Picture(noise(16, 16)))
    with pytest.raises(ModelError, match="written with model"):
        load("opq-32-8-8").decode(data)
    file = container.read_dfl(data)
    with pytest.raises(ModelError, match="not bundled"):
        difflate.decode(container.write_dfl(dataclasses.replace(file, model_id=b"\0\1\2\3")))
    with pytest.raises(FormatError):
        difflate.decode(b"text")


def test_symbols_that_decode_otherwise_are_told_from_damage():
    file = container.read_dfl(load().encode(Picture(noise(16, 16))))
    with pytest.raises(DesyncError):
        load().decode(container.write_dfl(dataclasses.replace(file, symbols_crc=file.symbols_crc ^ 1)))
    missing = dataclasses.replace(file, sections=((sections.EXIF, b""),))
    with pytest.raises(FormatError, match="no section"):
        load().decode(container.write_dfl(missing))
    twice = dataclasses.replace(file, sections=((sections.FIXED, bytes(24)), *file.sections))
    with pytest.raises(FormatError, match="twice"):
        load().decode(container.write_dfl(twice))
    short = dataclasses.replace(file, sections=((sections.FIXED, bytes(11)),))
    with pytest.raises(FormatError, match="11 bytes where the header asks for 24"):
        load().decode(container.write_dfl(short))


def test_limits_hold_for_writing_and_reading():
    data = load().encode(Picture(noise(16, 16)))
    with pytest.raises(LimitExceeded):
        load().decode(data, limits=Limits(pixels=255))
    with pytest.raises(LimitExceeded):
        load().encode(Picture(noise(16, 16)), limits=Limits(side_px=15))


def test_a_model_folder_is_complete_and_tamper_proof(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(WEIGHTS / "opq-32-8-8", folder)
    weights = folder / "model.safetensors"
    original = weights.read_bytes()
    for name, change in {
        "altered": original[:-5] + bytes([original[-5] ^ 1]) + original[-4:],
        "truncated": original[: len(original) // 2],
        "empty": b"",
        "header": b"\xff" * 8 + original[8:],
    }.items():
        weights.write_bytes(change)
        with pytest.raises(ModelError, match="get the"):
            VqCodec.load(folder)
        assert name
    weights.unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        VqCodec.load(folder)
    weights.write_bytes(original)
    config = json.loads((folder / "config.json").read_text())
    for change in ({"patch_px": 4}, {"plane_bits": [8]}, {"neutral": [1]}, {"codec": "other"}, {"method": "rq"}):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError):
            VqCodec.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        VqCodec.load(folder)


def test_a_model_saves_and_loads_as_itself(tmp_path):
    codec = load("rq-32-8-8")
    codec.space.save(tmp_path / "copy", "rq", "card")
    again = VqCodec.load(tmp_path / "copy")
    assert again.fingerprint == codec.fingerprint
    picture = Picture(noise(24, 31))
    assert again.encode(picture) == codec.encode(picture)


def test_a_folder_that_was_written_anew_is_read_anew(tmp_path):
    for name in ("opq-32-8-8", "pq-32-8-8"):
        load(name).space.save(tmp_path, "pq", "card")
        again = difflate.load(tmp_path)
        assert isinstance(again, VqCodec)
        assert again.fingerprint == load(name).fingerprint


def test_a_rotation_that_lies_transposed_in_memory_is_saved_as_it_is(tmp_path):
    shipped = load().space
    turned = torch.linalg.qr(torch.randn(64, 64))[0].T
    quantizers = [ProductQuantizer(list(shipped.quantizers[0].codebooks), turned), *shipped.quantizers[1:]]
    model = CodebookModel("mine", 8, quantizers, list(shipped.neutral.values()), shipped.context)
    model.save(tmp_path / "m", "opq", "card")
    assert torch.equal(VqCodec.load(tmp_path / "m").space.quantizers[0].rotation, turned)


def test_the_four_codebooks_of_table_1_ship():
    assert set(NAMES) <= set(bundled_models())
    size = sum(p.numel() * p.element_size() for name in TABLE_1 for p in load(name).space.parameters())
    assert size < 1_000_000
    for name in NAMES:
        assert (WEIGHTS / name / "README.md").read_text().startswith("---\nlicense")


def test_more_threads_change_nothing():
    codec, picture = load(), open_image(PHOTO)
    threads = torch.get_num_threads()
    try:
        files = []
        for count in (1, 2):
            torch.set_num_threads(count)
            files.append(codec.encode(picture))
    finally:
        torch.set_num_threads(threads)
    assert files[0] == files[1]
