"""Every row of the tables in docs/images.md, and the round trips between PIL, numpy and torch."""

import io
import struct
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms, PngImagePlugin

from difflate.errors import ConfigError, ImageError, LimitExceeded
from difflate.image_files import FORMATS
from difflate.limits import Limits
from difflate.pixels import (
    Picture,
    as_picture,
    from_array,
    from_pil,
    from_tensor,
    open_image,
    to_array,
    to_pil,
    to_srgb,
    to_tensor,
)
from image_helpers import (
    P3_TO_XYZ,
    SRGB_TO_XYZ,
    cmyk_profile,
    grey_profile,
    linear,
    noise,
    png,
    rgb_profile,
    saved,
    unlinear,
)

ORIENTATION = 0x0112


def pil(array: np.ndarray, mode: str) -> Image.Image:
    """A PIL image of any 8-bit mode with the samples ``array: (H, W)`` or ``(H, W, C)``."""
    return Image.frombytes(mode, (array.shape[1], array.shape[0]), np.ascontiguousarray(array).tobytes())


def same(first: Picture, second: Picture) -> bool:
    return np.array_equal(to_array(first), to_array(second))


# Modes


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


# Colour profiles


def test_p3_is_converted_to_srgb() -> None:
    samples = noise(16, 16, 3) // 3 + 80
    expected = unlinear(linear(samples) @ (np.linalg.inv(SRGB_TO_XYZ) @ P3_TO_XYZ).T)
    data = saved(Image.fromarray(samples), "PNG", icc_profile=rgb_profile(P3_TO_XYZ))
    picture = open_image(data)
    assert picture.icc is None
    assert np.abs(to_array(picture) - expected).max() <= 1
    assert np.abs(to_array(picture) - samples.astype(int)).max() > 5


def test_profile_and_pixels_are_kept_with_metadata_and_convert_later() -> None:
    samples, profile = noise(4, 4, 4), rgb_profile(P3_TO_XYZ)
    data = saved(Image.fromarray(samples), "PNG", icc_profile=profile)
    kept = open_image(data, metadata=True)
    assert kept.icc == profile
    assert np.array_equal(to_array(kept), samples)
    assert same(to_srgb(kept), open_image(data))
    assert to_srgb(kept).icc is None


def test_srgb_profile_changes_nothing() -> None:
    samples = noise(32, 32, 3)
    for profile in (rgb_profile(SRGB_TO_XYZ), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()):
        assert np.array_equal(
            to_array(open_image(saved(Image.fromarray(samples), "PNG", icc_profile=profile))), samples
        )


def test_grey_profile_is_converted_and_stays_grey() -> None:
    ramp = np.arange(0, 256, 5, dtype=np.uint8)[None]
    picture = open_image(saved(Image.fromarray(ramp), "PNG", icc_profile=grey_profile(1.8)))
    assert picture.pixels.shape == (1, 1, 52)
    assert np.abs(picture.pixels[0] - unlinear((ramp / 255) ** 1.8)).max() <= 1


@pytest.mark.parametrize("metadata", [False, True])
def test_cmyk_goes_through_its_profile_and_loses_it(metadata: bool) -> None:
    image = Image.new("CMYK", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    picture = open_image(saved(image, "TIFF", icc_profile=cmyk_profile()), metadata=metadata)
    assert picture.icc is None
    assert np.abs(to_array(picture)[0].astype(int) - [[255] * 3, [0] * 3]).max() <= 1


@pytest.mark.parametrize("profile", [b"no profile", rgb_profile(P3_TO_XYZ)[:300], grey_profile(1.0), cmyk_profile()])
@pytest.mark.parametrize("metadata", [False, True])
def test_profile_that_is_broken_or_of_another_kind_is_ignored(profile: bytes, metadata: bool) -> None:
    samples = noise(3, 3, 3)
    picture = open_image(saved(Image.fromarray(samples), "PNG", icc_profile=profile), metadata=metadata)
    assert np.array_equal(to_array(picture), samples)
    assert picture.icc is None


# Orientation and metadata


def exif_block(orientation: int, order: str = "<") -> bytes:
    """An EXIF block: make "me" and the orientation."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    make = struct.pack(f"{order}HHI", 271, 2, 3) + b"me\0\0"
    turn = struct.pack(f"{order}HHIHH", ORIENTATION, 3, 1, orientation, 0)
    return mark + struct.pack(f"{order}IH", 8, 2) + make + turn + struct.pack(f"{order}I", 0)


UPRIGHT = noise(4, 6, 3)
# How a camera in each orientation stores the upright picture (EXIF 2.3, 4.6.4 A).
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.swapaxes(0, 1),
    6: np.rot90(UPRIGHT, 1),
    7: UPRIGHT[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90(UPRIGHT, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_and_reset(orientation: int, format: str) -> None:
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    options = {"lossless": True} if format == "WEBP" else {}
    exif = Image.Exif()
    exif.load(exif_block(orientation))
    picture = open_image(
        saved(image, format, exif=exif if format == "TIFF" else exif_block(orientation), **options), True
    )
    assert np.array_equal(to_array(picture), UPRIGHT)
    assert picture.exif is not None
    kept = Image.Exif()
    kept.load(picture.exif)
    assert kept.get(ORIENTATION, 1) == 1
    assert kept[271] == "me"


@pytest.mark.parametrize("order", ["<", ">"])
def test_only_the_orientation_changes_in_kept_exif(order: str) -> None:
    image = Image.fromarray(noise(8, 8))
    picture = open_image(saved(image, "JPEG", exif=b"Exif\0\0" + exif_block(6, order) + b"maker note"), metadata=True)
    assert picture.exif == exif_block(1, order) + b"maker note"


def test_alpha_turns_with_the_pixels() -> None:
    samples = noise(2, 3, 4)
    picture = open_image(saved(Image.fromarray(samples), "PNG", exif=exif_block(6)))
    assert np.array_equal(to_array(picture), np.rot90(samples, -1))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_out_of_range_is_upright(orientation: int) -> None:
    picture = open_image(saved(Image.fromarray(UPRIGHT), "PNG", exif=exif_block(orientation)))
    assert np.array_equal(to_array(picture), UPRIGHT)


@pytest.mark.parametrize("exif", [b"II", b"junk that is no EXIF", exif_block(6)[:20], b"MM\0*\xff\xff\xff\xff"])
def test_damaged_exif_does_not_stop_the_picture(exif: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        picture = open_image(saved(Image.fromarray(UPRIGHT), "PNG", exif=exif), metadata=True)
    assert np.array_equal(to_array(picture), UPRIGHT)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "PNG", "TIFF", "AVIF"])
def test_xmp_is_kept_with_its_orientation_reset(format: str) -> None:
    image = Image.fromarray(UPRIGHT)
    options: dict[str, Any] = {"xmp": XMP % 6, "exif": exif_block(6)}
    if format == "PNG":
        options = {"pnginfo": PngImagePlugin.PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", (XMP % 6).decode())
    if format == "TIFF":
        options = {"tiffinfo": {700: XMP % 6, ORIENTATION: 6}}
    picture = open_image(saved(image, format, **options), metadata=True)
    assert (picture.width, picture.height) == (4, 6)
    assert picture.xmp is not None
    assert picture.xmp.rstrip(b"\0") in (XMP % 1, XMP.replace(b'tiff:Orientation="%d"', b""))


def test_metadata_is_dropped_unless_asked_for_and_bounded() -> None:
    data = saved(Image.fromarray(UPRIGHT), "PNG", exif=exif_block(1), icc_profile=rgb_profile(SRGB_TO_XYZ))
    plain, kept = open_image(data), open_image(data, metadata=True)
    assert (plain.exif, plain.icc, plain.xmp) == (None, None, None)
    assert kept.exif is not None
    assert kept.icc is not None
    with pytest.raises(LimitExceeded, match="metadata"):
        open_image(data, metadata=True, limits=Limits(metadata_bytes=len(kept.exif) + len(kept.icc) - 1))


def test_tiff_exif_leaves_the_layout_of_the_file_behind() -> None:
    info = {271: "me", 34665: {36867: "2024:01:02 03:04:05"}}
    picture = open_image(saved(Image.fromarray(UPRIGHT), "TIFF", tiffinfo=info), metadata=True)
    kept = Image.Exif()
    assert picture.exif is not None
    kept.load(picture.exif)
    assert kept[271] == "me"
    assert kept.get_ifd(34665)[36867] == "2024:01:02 03:04:05"
    assert 256 not in kept
    assert 273 not in kept


# Files


def test_every_format_opens_from_path_bytes_and_file(tmp_path: Path) -> None:
    colour = Image.new("RGB", (5, 3), (200, 100, 50))
    for name in FORMATS:
        path = tmp_path / name
        path.write_bytes(saved(colour, {"WebP": "WEBP", "JPEG 2000": "JPEG2000"}.get(name, name)))
        picture = open_image(path)
        assert picture.pixels.shape == (3, 3, 5), name
        assert np.abs(picture.pixels.mean((1, 2)) - (200, 100, 50)).max() < 8, name
        assert same(picture, open_image(path.read_bytes()))
        assert same(picture, open_image(str(path)))
        with path.open("rb") as file:
            assert same(picture, open_image(file))
            assert not file.closed


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for format, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert to_array(open_image(data))[0, 0].tolist() == [255, 0, 0], format


def test_gif_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    assert to_array(open_image(saved(image, "GIF", transparency=1)))[0].tolist() == [[255, 0, 0, 255], [0, 0, 255, 0]]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"])
def test_every_truncation_is_an_image_error(format: str, tmp_path: Path) -> None:
    data = saved(Image.fromarray(noise(16, 16, 3)), format)
    path = tmp_path / "photo"
    whole = open_image(data)
    messages = []
    for length in [*range(0, min(len(data), 64), 3), *range(64, len(data), len(data) // 40)]:
        path.write_bytes(data[:length])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                # a file may do without its last bytes (padding, a trailer); it then shows the whole picture
                assert same(open_image(path), whole)
            except ImageError as error:
                messages.append(str(error))
    assert len(messages) > 20
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "JPEG2000"])
def test_altered_files_open_or_are_our_errors(format: str) -> None:
    rng = np.random.default_rng(7)
    data = saved(Image.fromarray(noise(16, 16, 3)), format, exif=exif_block(6), icc_profile=rgb_profile(P3_TO_XYZ))
    refused = 0
    for _ in range(60):
        altered = bytearray(data)
        for at in rng.integers(0, len(data), 4):
            altered[at] = rng.integers(256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                open_image(bytes(altered), metadata=True)
            except (ImageError, LimitExceeded):
                refused += 1
    assert refused > 0


def test_truncated_jpeg_says_so(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(saved(Image.fromarray(noise(64, 64, 3)), "JPEG")[:2000])
    with pytest.raises(
        ImageError, match=r"photo\.jpg: image file is truncated \(.*\); get a complete copy of the file"
    ):
        open_image(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"Dear Sir or Madam,\n", r"not an image format that is read here \(PNG, JPEG"),
        (b"P", "not an image format"),
        (b"\x8fDFL\1\0", "difflate decompress"),
        (b"\xff\x0a\x30\x00", "JPEG XL file; convert it to PNG with djxl"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC file"),
        (b"BM" + b"\0" * 60, "cannot be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image format"),
    ],
)
def test_what_is_no_image_is_an_image_error(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        open_image(path)
    assert str(caught.value).startswith(str(path))
    assert caught.value.exit_code == 3


def test_paths_that_cannot_be_opened_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.png does not exist"):
        open_image(tmp_path / "none.png")
    with pytest.raises(ConfigError, match="directory"):
        open_image(tmp_path)
    with pytest.raises(ConfigError, match="null"):
        open_image("a\0b")
    with pytest.raises(ConfigError, match="NoneType"):
        open_image(None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="mode 'rb'"):
        open_image(io.StringIO("text"))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "data",
    [
        png(60000, 60000, 8, 0, [b""]),
        b"P5 60000 60000 255\n",
        b"GIF89a"
        + struct.pack("<HH", 60000, 60000)
        + b"\0\0\0,\0\0\0\0"
        + struct.pack("<HH", 60000, 60000)
        + b"\0\2\0;",
        b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f" + struct.pack("<I", 16382 | 16382 << 14) + b"\0" * 12,
    ],
)
def test_a_small_file_that_claims_a_large_image_is_refused_before_decoding(data: bytes) -> None:
    open_image(saved(Image.new("L", (1, 1)), "PNG"))  # the plugins are imported outside of the measurement
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceeded):
            open_image(data)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_our_limits_decide_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.new("L", (40, 30)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert open_image(data).width == 40
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(LimitExceeded, match="image data is 40x30 px"):
        open_image(data, limits=Limits(pixels=1199))
    assert open_image(data, limits=Limits(pixels=1200)).height == 30
    with pytest.raises(LimitExceeded, match="image is 40x30 px"):
        from_pil(Image.new("L", (40, 30)), limits=Limits(side_px=39))


def test_damaged_lazy_pil_image_is_an_image_error() -> None:
    image = Image.open(io.BytesIO(saved(Image.fromarray(noise(64, 64, 3)), "JPEG")[:2000]))
    with pytest.raises(ImageError, match="truncated"):
        from_pil(image)


# PIL, numpy and torch

samples_of_any_shape = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.uint8, shape)
)


@given(samples_of_any_shape)
@settings(deadline=None, max_examples=60)
def test_round_trips(samples: np.ndarray) -> None:
    picture = from_array(samples)
    colours = 1 if samples.shape[2] < 3 else 3
    assert np.array_equal(picture.pixels, samples.transpose(2, 0, 1)[:colours])
    if samples.shape[2] > colours:
        alpha = np.full(samples.shape[:2], 255) if picture.alpha is None else picture.alpha
        assert np.array_equal(alpha, samples[..., -1])
    assert same(picture, from_array(to_array(picture)))
    assert same(picture, from_tensor(to_tensor(picture)))
    assert same(picture, from_pil(to_pil(picture)))
    assert same(picture, from_tensor(to_tensor(picture) / 255))
    assert same(picture, from_array(to_array(picture).astype(np.uint16) * 257))
    assert same(picture, open_image(saved(to_pil(picture), "PNG")))


def test_modes_and_info_of_to_pil() -> None:
    grey, alpha, rgb = noise(1, 2, 3), noise(2, 3), noise(3, 2, 3)
    assert [to_pil(Picture(*args)).mode for args in ((grey,), (grey, alpha), (rgb,), (rgb, alpha))] == [
        "L",
        "LA",
        "RGB",
        "RGBA",
    ]
    picture = Picture(rgb, None, exif_block(1), rgb_profile(P3_TO_XYZ), XMP % 1)
    image = to_pil(picture)
    assert image.size == (3, 2)
    again = from_pil(image, metadata=True)
    assert same(again, picture)
    assert (again.exif, again.icc, again.xmp) == (picture.exif, picture.icc, picture.xmp)
    assert to_pil(Picture(rgb)).info == {}


def test_pictures_share_no_memory_with_their_source() -> None:
    for samples in (noise(4, 4), noise(4, 4, 4)):
        picture = from_array(samples)
        before = to_array(picture)
        samples[:] = 0
        assert np.array_equal(to_array(picture), before)
    tensor = torch.full((3, 2, 2), 9, dtype=torch.uint8)
    picture = from_tensor(tensor)
    tensor.zero_()
    assert (picture.pixels == 9).all()
    to_tensor(picture).zero_()
    to_array(Picture(picture.pixels[:1]))[:] = 0
    assert (picture.pixels == 9).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float_tensors(dtype: torch.dtype) -> None:
    tensor = torch.tensor([0, 0.25, 1], dtype=dtype).reshape(1, 1, 3).requires_grad_()
    assert from_tensor(tensor).pixels.tolist() == [[[0, 64, 255]]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 64, 64), np.uint8), r"array shape \(=\(3, 64, 64\)\)"),
        (np.zeros(4, np.uint8), "array shape"),
        (np.zeros((1, 2, 3, 4), np.uint8), "array shape"),
        (np.zeros((0, 4), np.uint8), "4x0 px has no pixel"),
        (np.zeros((4, 0, 3), np.float32), "0x4 px has no pixel"),
        (np.zeros((2, 2), np.int64), r"array dtype \(=int64\)"),
        (np.zeros((2, 2), bool), r"array dtype \(=bool\)"),
        (np.full((2, 2), 1.01), "from 1.01 to 1.01"),
        (np.full((2, 2), -0.01), "from -0.01"),
        (np.full((2, 2), np.nan), "from nan to nan"),
        (np.array([[0.5, np.inf]]), "to inf"),
    ],
)
def test_arrays_that_are_no_image(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        from_array(array)


def test_tensors_that_are_no_image() -> None:
    for tensor in (torch.zeros(2, 2), torch.zeros(64, 64, 3), torch.zeros(1, 3, 4, 4)):
        with pytest.raises(ImageError, match="tensor shape"):
            from_tensor(tensor)
    with pytest.raises(ImageError, match=r"tensor dtype \(=int32\)"):
        from_tensor(torch.zeros(3, 2, 2, dtype=torch.int32))


def test_floats_a_rounding_error_beyond_the_range_pass() -> None:
    assert from_array(np.array([[-1e-6, 1 + 1e-6]])).pixels.tolist() == [[[0, 255]]]


def test_as_picture_takes_everything(tmp_path: Path) -> None:
    samples = noise(3, 4, 3)
    path = tmp_path / "a.png"
    path.write_bytes(saved(Image.fromarray(samples), "PNG"))
    picture = from_array(samples)
    assert as_picture(picture) is picture
    sources = [
        Image.open(path),
        samples,
        to_tensor(picture),
        path,
        str(path),
        path.read_bytes(),
        io.BytesIO(path.read_bytes()),
    ]
    assert all(same(as_picture(source), picture) for source in sources)
    sources[0].close()
    with pytest.raises(ConfigError, match="image is a list"):
        as_picture([1, 2])


def test_torch_is_not_imported() -> None:
    code = (
        "import sys, numpy, difflate.codecs.classical as c, difflate.pixels as p;"
        "p.as_picture(c.classical_codecs()['png'].encode(p.as_picture(numpy.zeros((2, 2), 'uint8'))));"
        "sys.exit('torch' in sys.modules or 'imagecodecs' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
