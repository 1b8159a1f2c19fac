"""TIFF files of several images: the photograph is read, not a thumbnail of it."""

import contextlib
import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from difflate.errors import ImageError, LimitExceeded
from difflate.limits import Limits
from difflate.media.picture import from_pil, open_image, to_array
from image_helpers import ORIENTATION, P3_TO_XYZ, Page, noise, rgb_profile, saved, tiff

PHOTO, THUMBNAIL = noise(20, 30, 3), noise(4, 6, 3, seed=1)
NEW_SUBFILE_TYPE, SUBFILE_TYPE, PHOTOMETRIC, MAKE, PROFILE = 254, 255, 262, 271, 34675


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
def test_the_photograph_below_a_preview_is_read(order: str, big: bool) -> None:
    preview = Page(noise(8, 12, 3, seed=2), {NEW_SUBFILE_TYPE: 1})
    below = (preview, Page(PHOTO, {NEW_SUBFILE_TYPE: 0}))
    data = tiff(Page(THUMBNAIL, {NEW_SUBFILE_TYPE: 1}, below), order=order, big=big)
    picture = open_image(data)
    assert np.array_equal(to_array(picture), PHOTO)
    assert picture.notes == ()


def test_the_photograph_on_a_later_page_is_read() -> None:
    photograph = Image.fromarray(PHOTO)
    photograph.encoderinfo = {"tiffinfo": {}}  # type: ignore[attr-defined]
    for compression in ("raw", "tiff_lzw"):
        options = {"save_all": True, "append_images": [photograph], "compression": compression}
        data = saved(Image.fromarray(THUMBNAIL), "TIFF", tiffinfo={NEW_SUBFILE_TYPE: 1}, **options)
        assert np.array_equal(to_array(open_image(data)), PHOTO)
    for tags in ({NEW_SUBFILE_TYPE: 1}, {SUBFILE_TYPE: 2}, {NEW_SUBFILE_TYPE: 4}):
        data = tiff(Page(THUMBNAIL, tags), Page(PHOTO), Page(noise(40, 30, 3)))
        picture = open_image(data)
        assert np.array_equal(to_array(picture), PHOTO)
        assert picture.notes == ("another page is dropped (it has 30x40 px)",)


def test_a_larger_image_below_a_page_without_a_mark_is_the_photograph() -> None:
    assert np.array_equal(to_array(open_image(tiff(Page(THUMBNAIL, {}, (Page(PHOTO),))))), PHOTO)


def test_the_first_page_stays_with_smaller_copies_and_masks_beside_it() -> None:
    reduced, mask = Page(THUMBNAIL, {NEW_SUBFILE_TYPE: 1}), Page(noise(20, 30, 3, seed=5), {NEW_SUBFILE_TYPE: 4})
    for file in (tiff(Page(PHOTO, {}, (reduced, mask))), tiff(Page(PHOTO), reduced, mask), tiff(reduced)):
        picture = open_image(file)
        assert picture.notes == ()
        assert picture.pixels.shape == ((3, 4, 6) if file == tiff(reduced) else (3, 20, 30))


def test_other_pages_are_counted() -> None:
    picture = open_image(tiff(Page(PHOTO), Page(THUMBNAIL), Page(noise(50, 3, 3))))
    assert np.array_equal(to_array(picture), PHOTO)
    assert picture.notes == ("2 other pages are dropped (the largest has 3x50 px)",)


def test_what_only_the_preview_says_is_kept_for_the_photograph() -> None:
    profile = rgb_profile(P3_TO_XYZ)
    first = {NEW_SUBFILE_TYPE: 1, ORIENTATION: 6, MAKE: b"me\0", PROFILE: profile}
    picture = open_image(tiff(Page(THUMBNAIL, first, (Page(PHOTO),))), metadata=True)
    assert np.array_equal(to_array(picture), np.rot90(PHOTO, -1))
    assert picture.icc == profile
    assert picture.exif is not None
    kept = Image.Exif()
    kept.load(picture.exif)
    assert kept[MAKE] == "me"
    assert kept.get(ORIENTATION, 1) == 1
    own = open_image(tiff(Page(THUMBNAIL, first, (Page(PHOTO, {ORIENTATION: 3}),))))
    assert own.pixels.shape == (3, 20, 30)


def test_a_raw_file_is_refused_with_advice() -> None:
    for kind in (32803, 34892):  # colour filter array, linear raw
        data = tiff(Page(THUMBNAIL, {NEW_SUBFILE_TYPE: 1}, (Page(PHOTO, {PHOTOMETRIC: kind}),)))
        with pytest.raises(ImageError, match=r"image data: only the preview of this raw file can be read.* develop it"):
            open_image(data)


def test_an_opened_preview_is_taken_as_it_is_with_a_note() -> None:
    data = tiff(Page(THUMBNAIL, {NEW_SUBFILE_TYPE: 1}, (Page(PHOTO),)))
    with Image.open(io.BytesIO(data)) as image:
        picture = from_pil(image)
    assert np.array_equal(to_array(picture), THUMBNAIL)
    assert picture.notes == ("it is a preview of a larger image in its file",)


def test_the_size_of_the_photograph_is_checked_before_decoding() -> None:
    data = tiff(Page(THUMBNAIL, {NEW_SUBFILE_TYPE: 1}, (Page(PHOTO),)))
    with pytest.raises(LimitExceeded, match="30x20 px"):
        open_image(data, limits=Limits(pixels=599))


def test_damaged_directories_open_or_are_our_errors() -> None:
    data = tiff(Page(THUMBNAIL, {NEW_SUBFILE_TYPE: 1}, (Page(PHOTO),)), Page(PHOTO))
    rng = np.random.default_rng(3)
    for _ in range(200):
        altered = bytearray(data)
        for at in rng.integers(0, len(data), 6):
            altered[at] = rng.integers(256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(ImageError, LimitExceeded):
                open_image(bytes(altered[: rng.integers(8, len(data))]), metadata=True)


def test_pages_that_go_round_in_a_circle_end() -> None:
    data = bytearray(tiff(Page(PHOTO)))
    data[-4:] = data[4:8]
    assert np.array_equal(to_array(open_image(bytes(data))), PHOTO)
    far = bytearray(tiff(Page(PHOTO), big=True))
    far[-8:] = struct.pack("<Q", 2**64 - 1)
    assert np.array_equal(to_array(open_image(bytes(far))), PHOTO)
