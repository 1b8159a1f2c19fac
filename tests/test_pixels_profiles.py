"""Colour profiles of image files: converted to sRGB, or kept beside the pixels."""

import numpy as np
import pytest
from PIL import Image, ImageCms

from difflate.media.picture import open_image, to_array, to_srgb
from image_helpers import (
    P3_TO_XYZ,
    SRGB_TO_XYZ,
    cmyk_profile,
    grey_profile,
    linear,
    noise,
    rgb_profile,
    same,
    saved,
    unlinear,
)


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
