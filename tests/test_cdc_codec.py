"""Files of the codec `cdc`: how they are decoded, and what of it stands in them."""

import dataclasses

import numpy as np
import pytest
import torch

from coder_helpers import photo, tiny_model
from difflate.codecs.cdc import CdcCodec
from difflate.codecs.hyperprior import HyperpriorCodec
from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError, FormatError, LimitExceeded, ModelError
from difflate.format import sections
from difflate.format.container import read_dfl, write_dfl
from difflate.limits import Limits
from difflate.media.picture import Picture
from difflate.models.diffusion_decoder import DecoderConfig, DiffusionDecoder
from difflate.nn.tiles import place_noise
from difflate.nn.unet import UNetConfig
from difflate.options import DiffusionDecoding


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> CdcCodec:
    """A decoder whose refinement is far from nothing."""
    coder = tiny_model(0)
    torch.manual_seed(1)
    model = DiffusionDecoder(
        coder.transform, coder.hyperprior, coder.lmbda_min, coder.lmbda_max,
        DecoderConfig(context_widths=(0, 0, 8), steps=2, gamma=0.5),
        UNetConfig(widths=(8, 8, 16), blocks=(1, 1, 1), patch=4), ProcessConfig(),
    )  # fmt: skip
    model.coder.load_state_dict(coder.state_dict())
    torch.nn.init.normal_(model.unet.exit.weight, std=0.1)
    folder = tmp_path_factory.mktemp("cdc") / "tiny"
    model.save_pretrained(folder, dtype=torch.float16, max_shard_size="20KB")
    loaded = CdcCodec.load(folder)
    assert isinstance(loaded, CdcCodec)
    return loaded


def picture(height: int = 50, width: int = 70) -> Picture:
    return Picture(photo(height, width))


def difference(a: Picture, b: Picture) -> float:
    return float(np.abs(a.pixels.astype(int) - b.pixels).mean())


def test_what_a_file_says_is_what_is_done(codec: CdcCodec) -> None:
    plain = codec.decode(codec.encode(picture()))
    assert difference(plain, codec.decode(codec.encode(picture()), steps=2, gamma=0.5, seed=0)) == 0
    data = codec.encode(picture(), steps=3, gamma=1.0, seed=7)
    told = codec.decode(data)
    assert difference(told, codec.decode(codec.encode(picture()), steps=3, gamma=1.0, seed=7)) == 0
    assert difference(told, plain) > 0
    section = read_dfl(data).section(sections.DIFFUSION)
    assert section is not None
    assert DiffusionDecoding.from_sections({sections.DIFFUSION: section}) == DiffusionDecoding(
        steps=3, gamma=1.0, seed=7
    )


def test_each_option_changes_pixels_and_nothing_else(codec: CdcCodec) -> None:
    data = codec.encode(picture())
    images = [
        codec.decode(data, steps=steps, gamma=gamma, seed=seed)
        for steps, gamma, seed in ((1, 0.5, 0), (4, 0.5, 0), (65, 0.5, 0), (4, 1.0, 0), (4, 0.5, 1), (4, 0.0, 0))
    ]
    for i, image in enumerate(images):
        assert image.pixels.shape == (3, 50, 70)
        assert all(difference(image, other) > 0 for other in images[:i])


def test_without_noise_the_seed_means_nothing(codec: CdcCodec) -> None:
    data = codec.encode(picture())
    assert difference(codec.decode(data, gamma=0.0, seed=1), codec.decode(data, gamma=0.0, seed=2)) == 0


def test_no_steps_are_the_preview(codec: CdcCodec) -> None:
    """The transform coder's own image, whatever the diffusion model is."""
    data = codec.encode(picture(), quality=70)
    base = HyperpriorCodec("tiny", codec.model.coder, codec.model.coder.exact_coder)
    preview = base.decode(base.encode(picture(), quality=70))
    assert difference(codec.decode(data, steps=0), preview) == 0
    assert codec.fingerprint == base.fingerprint


def test_files_are_not_mixed_up(codec: CdcCodec) -> None:
    base = HyperpriorCodec("tiny", codec.model.coder, codec.model.coder.exact_coder)
    with pytest.raises(ModelError, match="written with another kind of codec"):
        base.decode(codec.encode(picture()))
    with pytest.raises(ModelError, match="written with another kind of codec"):
        codec.decode(base.encode(picture()))


@pytest.mark.parametrize("size", [(1, 1), (3, 17), (16, 16), (33, 5)])
def test_any_size(codec: CdcCodec, size: tuple[int, int]) -> None:
    restored = codec.decode(codec.encode(picture(*size)))
    assert restored.pixels.shape == (3, *size)


def test_grey_alpha_and_metadata(codec: CdcCodec) -> None:
    rng = np.random.default_rng(0)
    alpha = rng.integers(0, 256, (20, 31), dtype=np.uint8)
    restored = codec.decode(codec.encode(Picture(photo(20, 31)[:1], alpha, exif=b"II*\0")))
    assert restored.pixels.shape == (1, 20, 31)
    assert restored.alpha is not None
    assert np.array_equal(restored.alpha, alpha)
    assert restored.exif == b"II*\0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps"),
        ({"steps": 1001}, "steps"),
        ({"gamma": -0.1}, "gamma"),
        ({"gamma": float("nan")}, "gamma"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"tile_px": 0}, "tile"),
    ],
)
def test_options_that_cannot_be_are_told(codec: CdcCodec, options: dict, message: str) -> None:
    data = codec.encode(picture())
    with pytest.raises(ConfigError, match=message):
        codec.decode(data, **options)
    with pytest.raises(ConfigError, match=message):
        codec.encode(picture(), **options)


def test_a_small_file_cannot_order_hours_of_work(codec: CdcCodec) -> None:
    data = codec.encode(picture(), steps=60)
    with pytest.raises(LimitExceeded, match="steps of diffusion"):
        codec.decode(data, limits=Limits(pixel_steps=50 * 70 * 59))
    with pytest.raises(LimitExceeded, match="steps of diffusion"):
        codec.decode(data, limits=Limits(steps=59))
    codec.decode(data, limits=Limits(pixel_steps=50 * 70 * 59), steps=1)


@pytest.mark.parametrize("section", [b"", bytes(8), b"\xff\xff\0\0\0\0\0"])
def test_a_damaged_section_is_told(codec: CdcCodec, section: bytes) -> None:
    file = read_dfl(codec.encode(picture()))
    kept = tuple((k, section if k == sections.DIFFUSION else d) for k, d in file.sections)
    with pytest.raises(FormatError, match="section on diffusion"):
        codec.decode(write_dfl(dataclasses.replace(file, sections=kept)))


def test_a_file_without_the_section_is_decoded_as_the_model_says(codec: CdcCodec) -> None:
    data = codec.encode(picture())
    file = read_dfl(data)
    kept = tuple(s for s in file.sections if s[0] != sections.DIFFUSION)
    assert difference(codec.decode(write_dfl(dataclasses.replace(file, sections=kept))), codec.decode(data)) == 0


def test_noise_belongs_to_its_place() -> None:
    whole = place_noise(5, 0, 0, 300, 400)
    assert torch.equal(place_noise(5, 100, 130, 150, 200), whole[:, :, 100:250, 130:330])
    assert not torch.equal(place_noise(6, 0, 0, 8, 8), whole[:, :, :8, :8])
    assert abs(float(whole.mean())) < 0.01
    assert abs(float(whole.std()) - 1) < 0.01


def test_tiles_agree_with_the_whole_image(codec: CdcCodec) -> None:
    """Less than .1 dB apart, and no steps where tiles meet."""
    original = picture(512, 768)
    data = codec.encode(original, quality=60)
    whole, tiled = (codec.decode(data, tile_px=px).pixels.astype(float) for px in (4096, 16))
    errors = [((p - original.pixels) ** 2).mean() for p in (whole, tiled)]
    assert abs(10 * np.log10(errors[0] / errors[1])) < 0.1
    steps = np.abs(np.diff(tiled - whole, axis=2)).mean(axis=(0, 1))
    assert steps.max() < 0.5  # levels, in any column
