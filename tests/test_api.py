"""What Python users call: `difflate.encode`, `decode`, `use_model`, Pillow, and what the options of each codec are."""

import copy
import io
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import difflate
import difflate.integrations.pillow
from cli_helpers import VQ, picture
from coder_helpers import photo, tiny_codec
from difflate import registry
from difflate.errors import ConfigError, FormatError, ModelError, naming
from difflate.media.picture import Picture, to_pil
from difflate.options import DiffusionDecoding, IndexDecoding

PHOTO = to_pil(Picture(photo(96, 128, 380, 100)))
PIXELS = 96 * 128


def hidden(seed: int) -> Image.Image:
    """A picture whose left half is invisible, and there noise."""
    image = PHOTO.convert("RGBA")
    noise = np.random.default_rng(seed).integers(0, 256, (96, 64, 4), dtype=np.uint8)
    noise[:, :, 3] = 0
    image.paste(Image.fromarray(noise), (0, 0))
    return image


def test_a_rate_or_a_size_takes_the_place_of_a_quality() -> None:
    for given, allowed in (({"bpp": 0.5}, PIXELS / 16), ({"max_bytes": 700}, 700)):
        data = difflate.encode(PHOTO, "hyperprior-small", **given)
        assert 0.95 * allowed < len(data) <= allowed
    file = io.BytesIO()
    PHOTO.save(file, "DFL", codec="hyperprior-small", bpp=0.5)
    assert file.getvalue() == difflate.encode(PHOTO, "hyperprior-small", bpp=0.5)
    for given, message in (
        ({"bpp": 0.5, "quality": 50}, "exclude each other"),
        ({"bpp": 0}, "above 0"),
        ({"max_bytes": 20}, "more than the 20 asked for"),
    ):
        with pytest.raises(ConfigError, match=message):
            difflate.encode(PHOTO, "hyperprior-small", **given)
    with pytest.raises(ConfigError, match="one quality only"):
        difflate.encode(PHOTO, VQ, bpp=0.5)


def test_a_rate_that_is_out_of_reach_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "difflate"):
        difflate.encode(PHOTO, "hyperprior-small", bpp=20)
    assert "are the most that hyperprior-small gives" in caplog.text


def test_a_file_is_decoded_from_its_path_its_bytes_or_opened(tmp_path: Path) -> None:
    path = tmp_path / "photo.dfl"
    path.write_bytes(difflate.encode(PHOTO, VQ))
    images = [difflate.decode(path), difflate.decode(str(path)), difflate.decode(path.read_bytes())]
    with path.open("rb") as file:
        images.append(difflate.decode(file))
    assert len({image.tobytes() for image in images}) == 1
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(FormatError, match=r"photo\.dfl: the file ends too early"):
        difflate.decode(path)
    with pytest.raises(ConfigError, match="does not exist"):
        difflate.decode(tmp_path / "none.dfl")
    with pytest.raises(ConfigError, match="from int"):
        difflate.decode(7)  # type: ignore[arg-type]
    with path.open() as text, pytest.raises(ConfigError, match="open it in mode 'rb'"):
        difflate.decode(text)  # type: ignore[arg-type]


def test_a_model_that_is_not_bundled_is_found_once_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("difflate.codecs.loading._used", [])
    codec = tiny_codec(seed=5)
    codec.model.save_pretrained(tmp_path / "mine")
    data = difflate.encode(PHOTO, tmp_path / "mine")
    with pytest.raises(ModelError, match="use_model"):
        difflate.decode(data)
    difflate.use_model(tmp_path / "mine")
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(difflate.decode(data)))
    with pytest.raises(ConfigError, match="must be a model's folder"):
        difflate.use_model("jpeg")


def test_an_opened_file_can_be_pickled_and_copied() -> None:
    data = difflate.encode(PHOTO, VQ)
    expected = np.asarray(difflate.decode(data))
    for carry in (copy.deepcopy, copy.copy, lambda image: pickle.loads(pickle.dumps(image))):  # noqa: S301
        with Image.open(io.BytesIO(data)) as image:
            carried = carry(image)
            carried.load()
            np.testing.assert_array_equal(np.asarray(carried), expected)


@pytest.mark.parametrize("codec", ["hyperprior-small", VQ, "webp", "avif"])
def test_what_nobody_sees_costs_nothing_unless_it_is_asked_for(codec: str) -> None:
    first, second = (difflate.encode(hidden(seed), codec) for seed in (0, 1))
    assert first == second
    exact = difflate.encode(hidden(0), codec, exact_alpha=True)
    assert len(exact) > 1.2 * len(first)
    visible = (slice(None), slice(72, None))
    ours = np.asarray(difflate.decode(first), float)[visible]
    assert np.abs(ours - np.asarray(hidden(0), float)[visible]).mean() < 12
    assert difflate.encode(hidden(0), "png") != difflate.encode(hidden(1), "png")  # lossless


def test_options_are_those_of_the_codec_and_are_checked_by_name() -> None:
    with pytest.raises(
        ConfigError,
        match="`sections` has no meaning for hyperprior-small, it takes `effort`, `exact_alpha`, `learned_only`, ",
    ):
        difflate.encode(PHOTO, "hyperprior-small", sections=[(0x44, b"")])
    with pytest.raises(ConfigError, match="`steps` has a meaning only where a file of this kind is restored"):
        difflate.decode(difflate.encode(PHOTO, "jpeg"), steps=3)
    with pytest.raises(ConfigError, match="`gamma` has no meaning for jpeg, it takes `restore`, "):
        difflate.decode(difflate.encode(PHOTO, "jpeg"), gamma=0.5)
    with pytest.raises(ConfigError, match=r"`seed` \(=-1\) must be from 0 to 4294967295$"):
        difflate.encode(PHOTO, "cdc-small", seed=-1)
    with pytest.raises(ConfigError, match="`tile_px` has a meaning only with `refine`"):
        IndexDecoding(tile_px=64)
    asked = DiffusionDecoding(steps=7)
    said = DiffusionDecoding(steps=1, gamma=0.5, seed=9)
    assert asked.over(said) == DiffusionDecoding(steps=7, gamma=0.5, seed=9)
    assert DiffusionDecoding.from_sections(dict(said.to_sections())) == said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": "3"}, r"`steps` \(='3'\) must be a whole number"),
        ({"steps": 2.5}, r"`steps` \(=2.5\) must be a whole number"),
        ({"seed": True}, r"`seed` \(=True\) must be a whole number"),
        ({"gamma": "x"}, r"`gamma` \(='x'\) must be a number"),
        ({"tile_px": "x"}, r"`tile_px` \(='x'\) must be a whole number"),
        ({"exact_alpha": "no"}, r"`exact_alpha` \(='no'\) must be True or False"),
        ({"quality": "50"}, r"quality \(='50'\) must be a number"),
        ({"bpp": "x"}, r"`bpp` \(='x'\) must be a number"),
        ({"max_bytes": "9"}, r"`max_bytes` \(='9'\) must be a number"),
        ({"codec": None}, r"model \(=None\) must be a name or a folder"),
    ],
)
def test_an_option_of_another_type_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        difflate.encode(PHOTO, **options)


def test_numbers_of_numpy_are_numbers() -> None:
    small = np.zeros((8, 8), np.uint8)
    same = {"quality": np.int64(30), "steps": np.int32(1), "gamma": np.float32(0.5), "exact_alpha": np.True_}
    assert difflate.encode(small, **same) == difflate.encode(small, quality=30, steps=1, gamma=0.5, exact_alpha=True)


def test_a_name_stands_once_before_an_error() -> None:
    for message in ("photo.png: is damaged", "image data: is damaged", "is damaged"):
        with pytest.raises(FormatError, match=r"^photo\.png: is damaged$"), naming("photo.png"):
            raise FormatError(message)


def test_a_kind_or_number_is_given_once() -> None:
    for row in (
        registry.Kind("vq", "codec", "none:None", number=9),
        registry.Kind("other", "codec", "none:None", number=3),
    ):
        with pytest.raises(ConfigError, match="is taken by"):
            registry.register(row)


def test_the_documents_have_the_numbers_of_the_registry() -> None:
    text = (Path(__file__).parents[1] / "docs" / "format.md").read_text()
    for kind in registry.codec_kinds():
        assert f"| {kind.number} | `{kind.name}`" in text


def test_what_is_lost_by_opening_is_logged(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    frames = [picture(), picture("L").convert("RGB")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.WARNING, "difflate"):
        difflate.encode(tmp_path / "two.gif", VQ)
    assert "two.gif" in caplog.text
    assert "frame" in caplog.text
