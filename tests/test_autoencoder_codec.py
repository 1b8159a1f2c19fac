"""The codec `autoencoder`: files of every bottleneck, of any size, in tiles, and all that is wrong with them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import difflate
from autoencoder_helpers import BOTTLENECKS, FINITE, autoencoder, noise
from cli_helpers import Run
from difflate.codecs.autoencoder import AutoencoderCodec, PlainDecoder, space_of
from difflate.codecs.learned import LearnedCodec
from difflate.entropy import ContextModel
from difflate.errors import ConfigError, DifflateError, FormatError, ModelError
from difflate.format import sections
from difflate.format.container import read_dfl, write_dfl
from difflate.media.picture import Picture
from difflate.models.autoencoder import Autoencoder
from difflate.models.latent_space import LatentSpace, latent_space
from difflate.nn.tiles import TILE_PX
from difflate.options import AutoencoderDecoding
from difflate.train.context import ContextNet

ALL = list(BOTTLENECKS)


def codec(model: str | Autoencoder) -> AutoencoderCodec:
    space = space_of("tiny", autoencoder(model) if isinstance(model, str) else model)
    return AutoencoderCodec("autoencoder", space, PlainDecoder(space), AutoencoderDecoding(tile_px=TILE_PX))


@pytest.mark.parametrize("name", ALL)
def test_files_of_any_size_restore_what_the_networks_make(name: str) -> None:
    ours = codec(name)
    for height, width in ((1, 1), (8, 8), (45, 30), (7, 121)):
        picture = Picture(noise(height, width))
        data = ours.encode(picture)
        restored = ours.decode(data).pixels
        assert restored.shape == (3, height, width)
        latent = ours.to_latent(torch.from_numpy(picture.pixels)[None])
        again = ours.from_latent(latent, height, width)[0].numpy()
        assert np.abs(again.astype(int) - restored).max() <= 1
        assert read_dfl(data).codec == 4
        assert ours.encode(picture) == data


@pytest.mark.parametrize("name", ["vq", "rounded"])
def test_tiles_have_no_seams(name: str) -> None:
    ours, picture = codec(name), Picture(noise(600, 40))
    whole, tiled = ours.space.to_latent(torch.from_numpy(picture.pixels)[None]), None
    tiled = ours.space.to_latent(torch.from_numpy(picture.pixels)[None], tile_px=64)
    if name == "vq":
        assert (whole != tiled).float().mean() < 0.01
    else:
        torch.testing.assert_close(whole, tiled, atol=1e-3, rtol=1e-3)
    data = ours.encode(picture)
    one, other = (ours.decode(data, tile_px=size).pixels.astype(int) for size in (1024, 64))
    assert np.abs(one - other).max() <= 1


def test_a_plane_of_fourteen_bits_is_coded_by_context_and_at_a_fixed_rate() -> None:
    model = autoencoder("vq-large")
    torch.manual_seed(0)
    model.context = ContextNet(model.plane_bits).export()
    ours, picture = codec(model), Picture(noise(64, 72))
    files = [ours.encode(picture, fixed_rate=fixed) for fixed in (False, True)]
    grids = [ours.read_latent(read_dfl(data)).grid for data in files]
    assert grids[0].max() > 4096
    np.testing.assert_array_equal(*grids)
    np.testing.assert_array_equal(ours.decode(files[0]).pixels, ours.decode(files[1]).pixels)
    (fixed,) = (data for number, data in read_dfl(files[1]).sections if number == sections.FIXED)
    assert len(fixed) == 72 * 14 // 8


@pytest.mark.parametrize("name", ["fsq", "vq", "ae", "rounded"])
def test_folders_have_what_files_are_coded_with(name: str, tmp_path: Path) -> None:
    model = autoencoder(name)
    for dtype in ("float32", "int8"):
        model.save_pretrained(tmp_path, dtype=dtype)
        loaded = difflate.load(tmp_path)
        assert isinstance(loaded, AutoencoderCodec)
        assert loaded.fingerprint == model.fingerprint
    picture = Picture(noise(20, 31))
    data = codec(model).encode(picture)
    assert loaded.decode(data).pixels.shape == (3, 20, 31)
    stored = tmp_path / ("exact.safetensors" if name in ("ae", "rounded") else "context.safetensors")
    stored.write_bytes(stored.read_bytes()[:-1] + b"!")
    with pytest.raises(ModelError):
        difflate.load(tmp_path)
    stored.unlink()
    with pytest.raises(ModelError, match="is missing; get the model folder again"):
        Autoencoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["vq", "rounded"])
def test_damaged_files_are_told(name: str) -> None:
    ours = codec(name)
    data = ours.encode(Picture(noise(40, 40)))
    for end in range(0, len(data), 3):
        with pytest.raises(DifflateError):
            ours.decode(data[:end])
    file = read_dfl(data)
    (number, section), *_ = file.sections
    generator, told, symbols = np.random.default_rng(0), 0, ours.read_latent(file).symbols()
    for _ in range(60):  # the file's own checksum fits, as an attacker's would; some bits mean nothing
        wrong = bytearray(section)
        wrong[int(generator.integers(len(wrong)))] ^= 1 << int(generator.integers(8))
        crafted = write_dfl(type(file)(**{**vars(file), "sections": ((number, bytes(wrong)),)}))
        try:
            assert ours.read_latent(read_dfl(crafted)).symbols() == symbols
        except FormatError:
            told += 1
    assert told > 40
    with pytest.raises(ModelError, match="not with tiny"):
        codec("ae").decode(data)


def test_an_index_above_its_plane_is_told() -> None:
    ours = codec("vq")
    file = read_dfl(ours.encode(Picture(noise(8, 8)), fixed_rate=True))
    above = type(file)(**{**vars(file), "sections": ((sections.FIXED, b"\xff\xc0"),)})
    with pytest.raises(FormatError, match=r"an index \(=1023\) is above the 1000 of its plane"):
        ours.decode(write_dfl(above))


def test_what_has_no_meaning_is_told() -> None:
    picture = Picture(noise(9, 9))
    with pytest.raises(ConfigError, match=r"`fixed_rate` \(=True\) has no meaning for tiny, whose latent is no ind"):
        codec("rounded").encode(picture, fixed_rate=True)
    with pytest.raises(ConfigError, match="quality"):
        codec("vq").encode(picture, quality=5)
    with pytest.raises(ConfigError, match="has no finite latent space"):
        latent_space(codec("vae"))
    with pytest.raises(ConfigError, match=r"tile \(=1 px\) must be at least 8"):
        codec("vq").encode(picture, tile_px=1)
    with pytest.raises(ConfigError, match=r"must be \(B, 6, h, w\)"):
        codec("rounded").from_latent(torch.zeros(1, 5, 2, 2))


@pytest.mark.parametrize("name", FINITE)
def test_it_is_a_latent_space_for_generators(name: str) -> None:
    space = latent_space(codec(name))
    assert isinstance(space, LatentSpace)
    images = torch.from_numpy(noise(32, 40))[None]
    latent = space.to_latent(images)
    words = [book[plane].movedim(-1, 1) for book, plane in zip(space.codebooks, latent.unbind(1), strict=True)]
    made = space.from_codewords(words)
    restored = space.from_latent(latent).float()
    assert ((made.clamp(-1, 1) + 1) * 127.5 - restored).abs().max() <= 0.51


def test_grey_pictures_and_alpha_come_back_as_such() -> None:
    ours: LearnedCodec = codec("rounded")
    grey = ours.decode(ours.encode(Picture(noise(12, 13)[:1])))
    assert grey.pixels.shape == (1, 12, 13)
    alpha = np.arange(12 * 13, dtype=np.uint8).reshape(12, 13)
    np.testing.assert_array_equal(ours.decode(ours.encode(Picture(noise(12, 13), alpha=alpha))).alpha, alpha)


def test_the_commands(run: Run, folder: Path) -> None:
    for name in ("vq", "rounded"):
        autoencoder(name).save_pretrained(name)
        Image.new("RGB", (1, 1), (10, 200, 30)).save("dot.png")
        for image in ("photo", "dot"):
            assert run("compress", f"{image}.png", "--codec", name, "-f")[0] == 0
            assert run("verify", f"{image}.dfl", "--codec", name)[0] == 0
            assert run("decompress", f"{image}.dfl", "--codec", name, "-f", "-o", "restored.png")[0] == 0
            with Image.open(f"{image}.png") as ours, Image.open("restored.png") as theirs:
                assert ours.size == theirs.size
        shown = json.loads(run("info", "photo.dfl", "--json")[1])
        assert shown["codec"] == "autoencoder"
        assert shown["settings"] == ({"fixed_rate": False} if name == "vq" else {})
        code, _, error = run("decompress", "photo.dfl", "-f")
        assert (code, len(error.splitlines())) == (4, 1)
    Path("text.txt").write_text("no image")
    assert run("compress", "text.txt", "--codec", "vq")[0] == 3
    assert run("compress", "photo.png", "--codec", "rounded", "--fixed-rate", "-f")[0] == 2


def test_a_context_model_of_other_planes_is_refused() -> None:
    model = autoencoder("vq")
    with pytest.raises(ModelError):
        ContextModel([3], model.context.tensors)
