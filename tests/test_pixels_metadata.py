"""Orientation is applied; EXIF and XMP are kept on demand, dropped without it."""

import struct
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from difflate.errors import LimitExceeded
from difflate.limits import Limits
from difflate.media.picture import open_image, to_array
from image_helpers import ORIENTATION, SRGB_TO_XYZ, XMP, exif_block, noise, rgb_profile, saved

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


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_thumbnail_is_dropped_when_the_pixels_are_turned_and_kept_otherwise(order: str) -> None:
    block = exif_block(6, order)
    thumbnail = struct.pack(f"{order}H", 2)  # IFD1: where the thumbnail is and how long, and its bytes
    for tag, value in ((0x0201, len(block) + 30), (0x0202, 9)):
        thumbnail += struct.pack(f"{order}HHII", tag, 4, 1, value)
    thumbnail += bytes(4) + b"thumbnail"
    linked = block[:-4] + struct.pack(f"{order}I", len(block)) + thumbnail
    image = Image.fromarray(noise(8, 8))

    def kept(exif: bytes, **options: Any) -> bytes | None:
        return open_image(saved(image, "JPEG", exif=b"Exif\0\0" + exif, **options), metadata=True).exif

    upright = exif_block(1, order)
    assert kept(linked) == upright + thumbnail
    straight = upright[:-4] + linked[len(block) - 4 :]
    assert kept(straight) == straight
    # the orientation may stand in XMP alone
    other = straight.replace(struct.pack(f"{order}HHI", ORIENTATION, 3, 1), struct.pack(f"{order}HHI", 0x0113, 3, 1))
    assert kept(other, xmp=XMP % 6) == other[: len(block) - 4] + bytes(4) + thumbnail


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
