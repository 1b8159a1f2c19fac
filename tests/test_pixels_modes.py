"""Every row of the table of kinds of pixels in docs/images.md."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from difflate.errors import ImageError
from difflate.media.picture import from_pil, open_image, to_array
from image_helpers import noise, png, saved


def pil(array: np.ndarray, mode: str) -> Image.Image:
    """A PIL image of any 8-bit mode with the samples ``array: (H, W)`` or ``(H, W, C)``."""
    return Image.frombytes(mode, (array.shape[1], array.shape[0]), np.ascontiguousarray(array).tobytes())


def test_one_bit_becomes_black_and_white_grey() -> None:
    bits = noise(5, 9) > 127
    picture = from_pil(Image.fromarray(bits))
    assert picture.pixels.shape == (1, 5, 9)
    assert np.array_equal(picture.pixels[0], np.where(bits, 255, 0))


def test_grey_stays_grey_and_rgb_with_equal_channels_stays_rgb() -> None:
    grey = noise(3, 5)
    assert np.array_equal(from_pil(Image.fromarray(grey)).pixels, grey[None])
    assert np.array_equal(from_pil(Image.fromarray(np.stack([grey] * 3, -1))).pixels, np.stack([grey] * 3))


@pytest.mark.parametrize(("mode", "channels"), [("LA", 2), ("RGBA", 4)])
def test_alpha_is_kept_with_the_colours_under_it(mode: str, channels: int) -> None:
    samples = noise(4, 7, channels)
    samples[0, :, -1] = 0
    picture = from_pil(pil(samples, mode))
    assert picture.alpha is not None
    assert np.array_equal(to_array(picture), samples)


@pytest.mark.parametrize(("mode", "channels"), [("LA", 2), ("RGBA", 4), ("RGBa", 4), ("La", 2)])
def test_opaque_alpha_is_dropped(mode: str, channels: int) -> None:
    samples = noise(4, 7, channels)
    samples[..., -1] = 255
    picture = from_pil(pil(samples, mode))
    assert picture.alpha is None
    assert np.array_equal(picture.pixels, samples[..., :-1].transpose(2, 0, 1))


@pytest.mark.parametrize(("mode", "colours"), [("La", 1), ("RGBa", 3)])
def test_premultiplied_alpha_is_divided_out(mode: str, colours: int) -> None:
    samples = np.full((1, 2, colours + 1), 64, np.uint8)
    samples[..., -1] = 128
    picture = from_pil(pil(samples, mode))
    assert np.abs(picture.pixels.astype(int) - 128).max() <= 1
    assert picture.alpha is not None
    assert (picture.alpha == 128).all()


def palette_image(**options: Any) -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 7, 7, 7])
    image.putdata([0, 1, 2])
    return Image.open(io.BytesIO(saved(image, "PNG", **options)))


def test_palette_becomes_rgb() -> None:
    picture = from_pil(palette_image())
    assert to_array(picture).tolist() == [[[255, 0, 0], [0, 255, 0], [7, 7, 7]]]


@pytest.mark.parametrize(("transparency", "alpha"), [(1, [255, 0, 255]), (b"\x80\x00\xff", [128, 0, 255])])
def test_palette_with_transparency_gets_alpha(transparency: Any, alpha: list[int]) -> None:
    picture = from_pil(palette_image(transparency=transparency))
    assert to_array(picture)[0].tolist() == [[255, 0, 0, alpha[0]], [0, 255, 0, alpha[1]], [7, 7, 7, alpha[2]]]


def test_palette_with_alpha_in_its_entries_or_beside_it() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 4, 5, 6, 7, 8], "RGBA")
    image.putdata([0, 1])
    assert to_array(from_pil(image)).tolist() == [[[1, 2, 3, 4], [5, 6, 7, 8]]]
    beside = Image.new("RGBA", (2, 1), (10, 20, 30, 40)).convert("PA")
    assert to_array(from_pil(beside))[0, 0, 3] == 40


@pytest.mark.parametrize(
    ("depth", "row", "key", "grey", "hidden"),
    [
        (1, b"\x40", 1, [0, 255, 0, 0], 1),
        (2, b"\x1b", 2, [0, 85, 170, 255], 2),
        (4, b"\x01\x23", 2, [0, 17, 34, 51], 2),
        (8, b"\x00\x01\x02\x03", 2, [0, 1, 2, 3], 2),
        (16, struct.pack(">4H", 0, 257, 300, 65535), 300, [0, 1, 1, 255], 2),
    ],
)
def test_grey_png_with_a_transparent_key(depth: int, row: bytes, key: int, grey: list[int], hidden: int) -> None:
    picture = open_image(png(4, 1, depth, 0, [row], struct.pack(">H", key)))
    assert picture.pixels.tolist() == [[grey]]
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[0 if i == hidden else 255 for i in range(4)]]


def test_rgb_png_with_a_transparent_key() -> None:
    picture = open_image(png(3, 1, 8, 2, [bytes((1, 2, 3, 1, 2, 4, 1, 2, 3))], struct.pack(">3H", 1, 2, 3)))
    assert to_array(picture).tolist() == [[[1, 2, 3, 0], [1, 2, 4, 255], [1, 2, 3, 0]]]


def test_key_that_no_pixel_has_leaves_the_picture_opaque() -> None:
    assert open_image(png(1, 1, 8, 2, [b"\1\2\3"], struct.pack(">3H", 9, 9, 9))).alpha is None


def test_16_bit_rgb_png_keeps_the_high_byte_and_its_key() -> None:
    row = struct.pack(">6H", 0x12FF, 0x5678, 0x9ABC, 0, 0, 0)
    picture = open_image(png(2, 1, 16, 2, [row], struct.pack(">3H", 0x12FF, 0x5678, 0x9ABC)))
    assert to_array(picture).tolist() == [[[0x12, 0x56, 0x9A, 0], [0, 0, 0, 255]]]


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(samples / 257)[None]
    for image in (Image.fromarray(samples), Image.fromarray(samples.astype(np.int32))):
        assert np.array_equal(from_pil(image).pixels, expected)
    for data in (saved(Image.fromarray(samples), "PNG"), saved(Image.fromarray(samples), "TIFF")):
        assert np.array_equal(open_image(data).pixels, expected)
    big_endian = Image.frombytes("I;16B", (256, 256), samples.astype(">u2").tobytes())
    assert np.array_equal(from_pil(big_endian).pixels, expected)


def test_16_bit_pgm_is_scaled() -> None:
    assert open_image(b"P5 3 1 65535\n" + struct.pack(">3H", 0, 257 * 100, 65535)).pixels.tolist() == [[[0, 100, 255]]]


def test_integers_beyond_16_bits_are_refused() -> None:
    with pytest.raises(ImageError, match="from -1 to 65536; scale them to 16 bits"):
        from_pil(Image.fromarray(np.array([[-1, 65536]], np.int32)))


def test_float_is_from_0_to_1() -> None:
    assert from_pil(Image.fromarray(np.array([[0, 0.5, 1]], np.float32))).pixels.tolist() == [[[0, 128, 255]]]
    with pytest.raises(ImageError, match=r"from 0 to 255; scale them to \[0, 1\]"):
        from_pil(Image.fromarray(np.array([[0, 255]], np.float32)))


@pytest.mark.parametrize(("mode", "tolerance"), [("YCbCr", 3), ("HSV", 12), ("LAB", 6), ("RGBX", 0), ("CMYK", 0)])
def test_other_colour_modes_become_rgb(mode: str, tolerance: int) -> None:
    colour = (200, 120, 60)
    source = Image.new("RGB", (2, 2), colour)
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(source, *profiles, outputMode="LAB")
        assert image is not None
    else:
        image = source.convert(mode)
    picture = from_pil(image)
    assert picture.alpha is None
    assert np.abs(to_array(picture)[0, 0].astype(int) - colour).max() <= tolerance


def test_cmyk_jpeg_is_inverted_as_adobe_does_and_back() -> None:
    picture = open_image(saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(to_array(picture)[0, 0].astype(int) - (255, 0, 0)).max() <= 3


def test_unknown_mode_is_refused() -> None:
    class Strange(Image.Image):
        mode = "XYZ"  # pyright: ignore[reportAssignmentType]

    image = Strange()
    image.__dict__.update(Image.new("L", (1, 1)).__dict__)
    with pytest.raises(ImageError, match=r"image mode \(='XYZ'\)"):
        from_pil(image)
