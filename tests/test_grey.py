"""Pictures without a colour that have three channels come back grey; those with one keep it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import difflate
from cli_helpers import Run
from coder_helpers import photo
from difflate.codecs.learned import as_grey
from difflate.evaluate.run import evaluate
from difflate.format.container import read_dfl
from difflate.media.grey import without_colour
from difflate.media.picture import Picture


def black_and_white(height: int = 64, width: int = 96, spread: int = 4) -> Picture:
    """A photograph whose channels differ by at most ``spread`` levels."""
    grey = photo(height, width)[1].astype(int).clip(spread, 255 - spread)
    apart = np.random.default_rng(0).integers(0, spread + 1, (3, height, width))
    return Picture((grey + apart).astype(np.uint8))


@pytest.mark.parametrize("name", ["hyperprior-small", "cdc-small", "opq-32-8-8"])
def test_black_and_white_comes_back_grey(name: str) -> None:
    codec, picture = difflate.load(name), black_and_white()
    data = codec.encode(picture)
    assert read_dfl(data).grey
    assert data == codec.encode(without_colour(picture))
    assert codec.decode(data).pixels.shape == (1, 64, 96)


def test_a_grey_pixel_is_the_mean_of_its_channels() -> None:
    picture = black_and_white()
    grey = without_colour(picture).pixels
    assert grey.dtype == np.uint8
    assert np.abs(grey - picture.pixels.mean(0)).max() <= 0.5
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    np.testing.assert_array_equal(without_colour(Picture(np.repeat(levels, 3, 0))).pixels, levels)


def test_what_is_restored_is_made_grey_in_bands_as_in_one_piece() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 600, 5), dtype=np.uint8))
    expected = np.rint(pixels.numpy().sum(0, keepdims=True) / 3)
    np.testing.assert_array_equal(as_grey(pixels).numpy(), expected)
    np.testing.assert_array_equal(as_grey(pixels[:1]).numpy(), pixels[:1].numpy())


def test_a_few_pixels_may_stand_out_but_no_spot_of_a_colour() -> None:
    pixels = black_and_white(100, 100).pixels
    pixels[0, 5, :10] = pixels[2, 5, :10].clip(0, 240) + 10
    assert len(without_colour(Picture(pixels)).pixels) == 1
    pixels[0, 6, :1] = pixels[2, 6, :1].clip(0, 240) + 10
    assert len(without_colour(Picture(pixels)).pixels) == 3  # eleven of ten thousand
    pixels = black_and_white(100, 100).pixels
    pixels[:, 99, 99] = 200, 30, 30
    assert len(without_colour(Picture(pixels)).pixels) == 3


@pytest.mark.parametrize("tint", [(12, 6, 0), (5, 0, 0), (0, 0, 8)])
def test_a_tint_stays(tint: tuple[int, int, int]) -> None:
    pixels = photo(48, 48)[1:2].clip(0, 240) + np.array(tint, np.uint8)[:, None, None]
    assert without_colour(picture := Picture(pixels)) is picture
    assert without_colour(coloured := Picture(photo(48, 48))) is coloured


def test_alpha_and_metadata_stay_and_an_rgb_profile_is_applied() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    alpha = np.full((64, 96), 77, np.uint8)
    given = replace(black_and_white(), alpha=alpha, exif=b"II*\0", xmp=b"<x/>", icc=profile)
    grey = without_colour(given)
    assert (len(grey.pixels), grey.exif, grey.xmp, grey.icc) == (1, given.exif, given.xmp, None)
    assert grey.alpha is alpha
    np.testing.assert_array_equal(grey.pixels, without_colour(black_and_white()).pixels)
    broken = replace(given, icc=b"no profile")
    assert without_colour(broken) is broken


def test_commands_give_a_grey_image_and_measure_it(run: Run, folder: Path) -> None:
    Image.fromarray(black_and_white().pixels.transpose(1, 2, 0)).save("scan.png")
    assert run("compress", "scan.png", "--codec", "hyperprior-small")[::2] == (0, "")
    assert run("decompress", "scan.dfl", "-o", "back.png")[0] == 0
    with Image.open("back.png") as back:
        assert back.mode == "L"
    (record,) = evaluate(["scan.png"], "hyperprior-small:90")
    assert record.error is None
    assert (record.values["psnr"] or 0) > 30
