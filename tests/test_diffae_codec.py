"""Files of the codec `diffae`: indices that are exact, and pictures that follow from them, the seed and the place."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from threadpoolctl import threadpool_limits

from coder_helpers import photo
from diffae_helpers import tiny
from difflate.cli.info import describe
from difflate.cli.main import main
from difflate.codecs.autoencoder import AutoencoderCodec
from difflate.codecs.diffae import DiffaeCodec
from difflate.codecs.loading import load
from difflate.entropy.fixed_rate import pack
from difflate.errors import ConfigError, DifflateError, FormatError, LimitExceeded, ModelError
from difflate.format import sections
from difflate.format.container import read_dfl, write_dfl
from difflate.limits import Limits
from difflate.media.picture import Picture
from difflate.models.bottlenecks import BottleneckConfig
from difflate.models.latent_space import latent_space
from difflate.options import SamplingDecoding
from test_fuzz import mutate, with_valid_checksum


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diffae") / "tiny"
    tiny().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def codec(folder: Path) -> DiffaeCodec:
    loaded = load(folder)
    assert isinstance(loaded, DiffaeCodec)
    return loaded


def picture(height: int = 50, width: int = 70) -> Picture:
    return Picture(photo(height, width))


def difference(a: Picture, b: Picture) -> float:
    return float(np.abs(a.pixels.astype(int) - b.pixels).mean())


@pytest.mark.parametrize("size", [(1, 1), (3, 17), (8, 8), (33, 5), (64, 41)])
@pytest.mark.parametrize("fixed_rate", [False, True])
def test_any_size(codec: DiffaeCodec, size: tuple[int, int], fixed_rate: bool) -> None:
    data = codec.encode(picture(*size), fixed_rate=fixed_rate)
    assert codec.decode(data).pixels.shape == (3, *size)
    expected = codec.to_latent(torch.tensor(picture(*size).pixels)[None])[0]
    assert np.array_equal(codec.read_latent(read_dfl(data)).grid, expected.numpy())


def test_grey_alpha_and_metadata(codec: DiffaeCodec) -> None:
    alpha = np.random.default_rng(0).integers(0, 256, (20, 31), dtype=np.uint8)
    restored = codec.decode(codec.encode(Picture(photo(20, 31)[:1], alpha, exif=b"II*\0")))
    assert restored.pixels.shape == (1, 20, 31)
    assert restored.alpha is not None
    assert np.array_equal(restored.alpha, alpha)
    assert restored.exif == b"II*\0"


def test_what_a_file_says_is_what_is_done(codec: DiffaeCodec) -> None:
    data = codec.encode(picture(), steps=3, guidance=1.5, seed=7)
    told = codec.decode(data)
    plain = codec.encode(picture())
    assert difference(told, codec.decode(plain, steps=3, guidance=1.5, seed=7)) == 0
    section = read_dfl(data).section(sections.SAMPLING)
    assert section is not None
    assert SamplingDecoding.from_sections({sections.SAMPLING: section}) == SamplingDecoding(
        steps=3, guidance=1.5, seed=7
    )
    assert difference(codec.decode(plain), codec.decode(data, steps=2, guidance=1.0, seed=0)) == 0


def test_each_option_changes_pixels(codec: DiffaeCodec) -> None:
    data = codec.encode(picture())
    images = [
        codec.decode(data, steps=steps, guidance=guidance, seed=seed)
        for steps, guidance, seed in ((0, 1, 0), (1, 1, 0), (4, 1, 0), (4, 2, 0), (4, 1, 1))
    ]
    for i, image in enumerate(images):
        assert all(difference(image, other) > 0 for other in images[:i])


def test_no_steps_are_the_head(codec: DiffaeCodec) -> None:
    """The plain decoder's image, as the autoencoder alone would give it; a seed means nothing then."""
    latent = codec.to_latent(torch.tensor(picture(48, 64).pixels)[None])
    (head,) = codec.space.head(latent, 48, 64, 896)
    data = codec.encode(picture(48, 64))
    assert np.array_equal(codec.decode(data, steps=0, seed=9).pixels, head.numpy())


def test_tiles_are_the_whole(codec: DiffaeCodec) -> None:
    large = picture(400, 530)
    data = codec.encode(large)
    assert codec.encode(large, tile_px=16) == data
    for steps in (0, 2):
        whole, tiled = (codec.decode(data, steps=steps, tile_px=tile).pixels.astype(int) for tile in (896, 16))
        assert np.abs(whole - tiled).max() <= 1


def test_symbols_are_the_same_with_any_threads(codec: DiffaeCodec) -> None:
    data = codec.encode(picture(130, 90))
    grids = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            grids.append(codec.read_latent(read_dfl(data)).symbols())
    assert grids[0] == grids[1]


def test_an_index_that_is_none_is_told(codec: DiffaeCodec) -> None:
    """Of five values the three bits of an index could say eight."""
    file = read_dfl(codec.encode(picture(8, 8), fixed_rate=True))
    planes = [np.array([7]), np.array([1]), np.array([1])]
    forged = b"".join(pack(plane, bits) for plane, bits in zip(planes, (3, 3, 2), strict=True))
    kept = tuple((number, forged if number == sections.FIXED else data) for number, data in file.sections)
    with pytest.raises(FormatError, match="an index"):
        codec.decode(write_dfl(dataclasses.replace(file, sections=kept)))


def test_damaged_files_give_errors_of_difflate(codec: DiffaeCodec) -> None:
    files = [codec.encode(picture(21, 34), fixed_rate=fixed) for fixed in (False, True)]
    rng = np.random.default_rng(0)
    errors = 0
    for number in range(400):
        data = mutate(files[number % 2], rng)
        data = with_valid_checksum(data) if number % 4 > 1 else data
        try:
            codec.decode(data, limits=Limits(pixels=2**13, steps=8))
        except DifflateError:
            errors += 1
    assert errors > 350
    for size in range(len(files[0])):
        with pytest.raises(DifflateError):
            codec.decode(files[0][:size])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": -1}, "steps"), ({"steps": 1001}, "steps"), ({"guidance": -0.1}, "guidance"),
     ({"guidance": float("nan")}, "guidance"), ({"guidance": 21}, "guidance"), ({"seed": -1}, "seed"),
     ({"seed": 2**32}, "seed"), ({"tile_px": 0}, "tile"), ({"gamma": 1.0}, "no meaning")],
)  # fmt: skip
def test_options_that_cannot_be_are_told(codec: DiffaeCodec, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        codec.encode(picture(), **options)
    with pytest.raises(ConfigError, match=message):
        codec.decode(codec.encode(picture()), **options)


def test_guidance_counts_twice(codec: DiffaeCodec) -> None:
    data, limits = codec.encode(picture()), Limits(steps=10)
    codec.decode(data, steps=10, limits=limits)
    with pytest.raises(LimitExceeded, match="steps"):
        codec.decode(data, steps=6, guidance=2.0, limits=limits)


def test_guidance_needs_a_model_that_was_trained_for_it() -> None:
    decoder = dataclasses.replace(tiny().decoder, dropped=0.0)
    codec = DiffaeCodec("undropped", tiny(decoder=decoder))
    with pytest.raises(ConfigError, match="trained without ever hiding its latent"):
        codec.encode(picture(), guidance=2.0)
    data = codec.encode(picture())
    with pytest.raises(ConfigError, match="trained without ever hiding its latent"):
        codec.decode(data, guidance=2.0)
    with pytest.raises(ConfigError, match="trained without ever hiding its latent"):
        dataclasses.replace(decoder, guidance=3.0)


def test_files_are_not_mixed_up(codec: DiffaeCodec, folder: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    codec.space.autoencoder.save_pretrained(plain)
    base = load(plain)
    assert isinstance(base, AutoencoderCodec)
    with pytest.raises(ModelError, match="written with another kind of codec"):
        base.decode(codec.encode(picture()))
    other = DiffaeCodec("other", tiny(bottleneck=BottleneckConfig("fsq", levels=[4, 4])))
    with pytest.raises(ModelError, match="written with model"):
        other.decode(codec.encode(picture()))


def test_a_model_is_loaded_as_it_was_saved(codec: DiffaeCodec, tmp_path: Path) -> None:
    codec.space.model.save_pretrained(tmp_path / "whole", dtype="int8")
    again = load(tmp_path / "whole")
    assert again.fingerprint == codec.fingerprint  # type: ignore[attr-defined]
    (tmp_path / "whole" / "context.safetensors").unlink()
    with pytest.raises(ModelError, match=r"context\.safetensors is missing"):
        load(tmp_path / "whole")


def test_it_is_a_latent_space(codec: DiffaeCodec) -> None:
    space = latent_space(codec)
    assert list(space.sizes) == [5, 8, 3]
    images = torch.from_numpy(np.stack([photo(24, 40), photo(24, 40)[:, ::-1].copy()]))
    latent = space.to_latent(images)
    assert latent.shape == (2, 3, 3, 5)
    restored = space.from_latent(latent, 20, 37)
    assert restored.shape == (2, 3, 20, 37)
    assert torch.equal(restored[:1], space.from_latent(latent[:1], 20, 37))
    decoded = codec.decode(codec.encode(Picture(photo(24, 40)))).pixels
    assert np.array_equal(space.from_latent(latent[:1])[0].numpy(), decoded)
    words = [book[latent[:, c]].movedim(3, 1) for c, book in enumerate(space.codebooks)]
    assert space.from_codewords(words).shape == (2, 3, 24, 40)


def test_ratios_as_papers_count_them(codec: DiffaeCodec, folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Rampas 2024: 16 numbers of 16 bits for 32x32 px are 1:96, of one bit 1:1536; here 3 and 8 bits for 8x8 px."""
    from difflate import registry
    from difflate.store.config import read_config

    found = registry.latent_ratios({"latent": {"stride_px": 32, "channels": 16, "plane_bits": [1] * 16}})
    assert found == {"numbers_16_bits": 96, "fixed_rate": 1536}
    data = codec.encode(picture())
    ratios = describe(data, read_config(folder))["ratios"]
    assert ratios == {"file": 24 * 50 * 70 / (8 * len(data)), "numbers_16_bits": 32, "fixed_rate": 24 * 64 / 8}
    path = folder.parent / "a.dfl"
    path.write_bytes(data)
    assert main(["info", str(path), "--codec", str(folder)]) == 0
    assert "1:32 of the latent at 16 bits a number" in capsys.readouterr().out
    assert main(["info", str(path), "--codec", "hyperprior-small"]) != 0
    assert "not with" in capsys.readouterr().err


def test_the_command_line(folder: Path, tmp_path: Path) -> None:
    Image.fromarray(photo(40, 60).transpose(1, 2, 0)).save(tmp_path / "a.png")
    arguments = ["--codec", str(folder), "--steps", "3", "--guidance", "1.5", "--seed", "4"]
    assert main(["compress", str(tmp_path / "a.png"), *arguments]) == 0
    assert main(["decompress", str(tmp_path / "a.dfl"), "-o", str(tmp_path / "b.png"), "--codec", str(folder)]) == 0
    assert main(
        ["decompress", str(tmp_path / "a.dfl"), "-o", str(tmp_path / "c.png"), "--codec", str(folder), "--steps", "0"]
    ) == 0  # fmt: skip
    with Image.open(tmp_path / "b.png") as restored:
        assert restored.size == (60, 40)
    assert (tmp_path / "b.png").read_bytes() != (tmp_path / "c.png").read_bytes()
