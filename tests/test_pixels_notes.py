"""What opening loses is noted; a file of which nothing is lost has no notes."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difflate.media.notes import file_notes
from difflate.media.picture import Picture, as_picture, from_pil, open_image, to_srgb
from image_helpers import Page, cmyk_profile, noise, png, png_chunk, saved, tiff, with_chunks

DEPTH = "more than 8 bits a sample are reduced to 8"
FRAMES = "only one frame of an animation is kept"
GAIN_MAP = "an HDR gain map is dropped"
FORMATS = ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"]


@pytest.mark.parametrize("format", FORMATS)
def test_an_ordinary_file_has_no_notes(format: str) -> None:
    data = saved(Image.fromarray(noise(8, 8, 3)), format)
    assert open_image(data).notes == ()
    assert open_image(data, metadata=True).notes == ()


def test_frames_and_pages_that_are_dropped_are_noted() -> None:
    frames: list[Image.Image] = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    for format in ("GIF", "PNG", "WEBP", "AVIF"):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:])
        assert open_image(data).notes == (FRAMES,), format
        assert open_image(data).pixels[:, 4, 4].argmax() == 0
    data = saved(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert open_image(data).notes == ("the other pictures of the file are dropped",)


def test_an_animation_that_is_damaged_after_its_first_frame_still_opens() -> None:
    frames = [Image.fromarray(noise(8, 8, 3, seed=i)) for i in range(2)]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    second = data.rindex(b"\0,\0\0\0\0") + 1
    for end in (second + 3, second + 20):
        assert np.array_equal(open_image(data[:end]).pixels, open_image(data).pixels)


def test_depth_that_is_reduced_is_noted() -> None:
    wide = Image.fromarray(noise(4, 4).astype(np.uint16) * 257)
    for format in ("PNG", "TIFF", "PPM", "JPEG2000"):
        assert open_image(saved(wide, format)).notes == (DEPTH,), format
    assert from_pil(wide).notes == (DEPTH,)
    assert from_pil(Image.fromarray(np.zeros((2, 2), np.float32))).notes == (DEPTH,)
    for colour_type, channels in ((2, 3), (4, 2), (6, 4)):
        assert open_image(png(1, 1, 16, colour_type, [bytes(2 * channels)])).notes == (DEPTH,)
    assert open_image(b"P6 1 1 1023\n" + bytes(6)).notes == (DEPTH,)
    assert open_image(b"P6 1 1 100\n" + bytes(3)).notes == ()


@pytest.mark.parametrize("format", ["avif", "j2k", "jp2"])
def test_depth_that_pillow_does_not_tell_of_is_noted(format: str) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    samples = noise(8, 8, 3).astype(np.uint16) * 4
    if format == "avif":
        data = imagecodecs.avif_encode(samples, bitspersample=10)
    else:
        data = imagecodecs.jpeg2k_encode(samples, codecformat=format)
    assert open_image(data).notes == (DEPTH,)


@pytest.mark.parametrize(
    "mark",
    [
        b'<x hdrgm:Version="1.0"/>',
        b"<HDRGainMap:HDRGainMapVersion>131072</HDRGainMap:HDRGainMapVersion>urn:com:apple:photo:2020:aux:hdrgainmap",
        b"urn:iso:std:iso:ts:21496:-1",
    ],
)
def test_a_gain_map_is_noted_where_there_is_one(mark: bytes) -> None:
    image = Image.new("RGB", (8, 8))
    options: dict[str, Any] = {"save_all": True, "append_images": [Image.new("L", (4, 4))], "xmp": mark}
    assert open_image(saved(image, "MPO", **options)).notes == (GAIN_MAP,)
    assert open_image(saved(image, "JPEG", xmp=mark)).notes == ()


def test_a_gain_map_of_other_formats_is_noted() -> None:
    # Pillow writes no gain map, and does not open a file that only claims one
    data, image = saved(Image.new("RGB", (8, 8)), "AVIF"), Image.new("RGB", (8, 8))
    assert file_notes("AVIF", data, image) == []
    assert file_notes("AVIF", data.replace(b"infe", b"infe\2\0\0\0\0\2\0\0tmap"), image) == [GAIN_MAP]
    data = saved(Image.new("RGB", (8, 8)), "PNG")
    assert open_image(with_chunks(data, png_chunk(b"gmAP", b"x"))).notes == (GAIN_MAP,)


def test_an_ignored_profile_is_noted_by_all_that_apply_it() -> None:
    image = Image.fromarray(noise(3, 3, 3))
    text = "the ICC profile is ignored (it describes CMYK where the image is RGB)"
    data = saved(image, "PNG", icc_profile=cmyk_profile())
    assert open_image(data).notes == as_picture(data, metadata=True).notes == (text,)
    image.info["icc_profile"] = cmyk_profile()
    assert from_pil(image).notes == (text,)
    assert to_srgb(Picture(noise(3, 3, 3), icc=cmyk_profile(), notes=("before",))).notes == ("before", text)


def test_from_pil_leaves_a_changed_first_frame_as_it_is() -> None:
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as image:
        image.putpixel((0, 0), 77)
        assert from_pil(image).pixels[0, 0, 0] != from_pil(image).pixels[0, 1, 1]


def test_pages_of_an_opened_tiff_are_noted() -> None:

    with Image.open(io.BytesIO(tiff(Page(noise(2, 2, 3)), Page(noise(2, 2, 3))))) as image:
        assert from_pil(image).notes == ("only one of several pages is kept",)


def test_notes_do_not_tell_pictures_apart() -> None:
    pixels = noise(1, 1, 1)
    picture = Picture(pixels)
    assert picture == replace(picture, notes=("lost",))
