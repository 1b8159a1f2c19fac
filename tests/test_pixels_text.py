"""PNG files: damage to what is not pixels does not stop the picture; damage to pixels does."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from difflate.errors import ImageError
from difflate.media import png
from difflate.media.picture import open_image, to_array
from image_helpers import SRGB_TO_XYZ, XMP, exif_block, noise, png_chunk, rgb_profile, saved, with_chunks

SAMPLES = noise(6, 5, 3)
FILE = saved(Image.fromarray(SAMPLES), "PNG")
LARGE = zlib.compress(bytes(4 << 20))
ITXT = b"Comment\0\1\0\0\0"
SKIPPED = "text that is damaged or too large is skipped"


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"Comment\0\0" + LARGE),
        png_chunk(b"iTXt", ITXT + LARGE),
        png_chunk(b"zTXt", b"Comment\0\0no zlib"),
        png_chunk(b"zTXt", b"Comment\0\7" + zlib.compress(b"text")),
        png_chunk(b"tEXt", b"Comment\0" + bytes(2 << 20)),
        *(png_chunk(kind, b"Comment\0\0\0\0\0text", crc_off_by=1) for kind in (b"tEXt", b"iTXt", b"zTXt")),
    ],
)
def test_text_that_pillow_refuses_is_skipped_with_a_note(chunk: bytes) -> None:
    for data in (with_chunks(FILE, chunk), with_chunks(FILE, after=chunk), with_chunks(FILE, chunk, chunk)):
        picture = open_image(data)
        assert np.array_equal(to_array(picture), SAMPLES)
        assert picture.notes == (SKIPPED,)


@pytest.mark.parametrize("kind", [b"tIME", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"bKGD", b"prVt", b"acTL", b"fcTL"])
def test_other_chunks_that_are_not_looked_at_cannot_stop_the_picture(kind: bytes) -> None:
    for chunk in (png_chunk(kind, b"\1"), png_chunk(kind, bytes(8), crc_off_by=1)):
        picture = open_image(with_chunks(FILE, chunk))
        assert np.array_equal(to_array(picture), SAMPLES)
        assert picture.notes == ()


def test_metadata_that_is_intact_is_kept_beside_text_that_is_not() -> None:
    profile = rgb_profile(SRGB_TO_XYZ)
    kept = png_chunk(b"eXIf", exif_block(1)) + png_chunk(b"iCCP", b"p\0\0" + zlib.compress(profile))
    kept += png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % 1)
    for data in (with_chunks(FILE, png_chunk(b"zTXt", b"a\0\0" + LARGE) + kept), with_chunks(FILE, kept)):
        picture = open_image(data, metadata=True)
        assert (picture.exif, picture.icc, picture.xmp) == (exif_block(1), profile, XMP % 1)


@pytest.mark.parametrize(
    ("chunk", "what"),
    [
        (png_chunk(b"eXIf", exif_block(6), crc_off_by=1), "EXIF"),
        (png_chunk(b"iCCP", b"p\0\0" + LARGE), "an ICC profile"),
        (png_chunk(b"iCCP", b"p\0\0" + zlib.compress(rgb_profile(SRGB_TO_XYZ)), crc_off_by=1), "an ICC profile"),
        (png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE), "text"),
    ],
)
def test_metadata_that_is_damaged_is_skipped_with_a_note(chunk: bytes, what: str) -> None:
    picture = open_image(with_chunks(FILE, chunk), metadata=True)
    assert np.array_equal(to_array(picture), SAMPLES)
    assert (picture.exif, picture.icc, picture.xmp) == (None, None, None)
    assert picture.notes == (f"{what} that is damaged or too large is skipped",)


def test_damage_to_pixels_is_still_an_error() -> None:
    header = struct.pack(">IIBBBBB", 5, 6, 8, 2, 0, 0, 0)
    head, tail = FILE[:8], FILE[8 + 25 :]
    assert head + png_chunk(b"IHDR", header) + tail == FILE
    for data in (
        head + png_chunk(b"IHDR", header, crc_off_by=1) + tail,
        with_chunks(FILE, png_chunk(b"tRNS", bytes(6), crc_off_by=1)),
        with_chunks(FILE, png_chunk(b"PLTE", bytes(6), crc_off_by=1)),
        FILE[:-20] + FILE[-12:],
    ):
        with pytest.raises(ImageError):
            open_image(data)


def test_what_is_inflated_of_all_text_together_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "MAX_TEXT_BYTES", 1000)
    text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1000)))
    assert open_image(with_chunks(FILE, text * 64)).notes == ()
    assert open_image(with_chunks(FILE, text * 65)).notes == (SKIPPED,)
