"""Colours that nobody sees: filled from what is around them, whatever they were."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from difflate.media.alpha import fill_hidden, over_white
from difflate.media.picture import Picture
from image_helpers import noise

pictures = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from((1, 3))).flatmap(
    lambda shape: st.tuples(
        arrays(np.uint8, (shape[2], *shape[:2]), fill=st.integers(0, 255)),
        arrays(np.uint8, shape[:2], elements=st.sampled_from((0, 1, 128, 255)), fill=st.sampled_from((0, 255))),
    )
)


@given(pictures)
@settings(max_examples=100, deadline=None)
def test_what_is_hidden_changes_nothing_and_what_is_visible_stays(planes: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, alpha = planes
    filled = fill_hidden(Picture(pixels, alpha, exif=b"kept"))
    noisy = np.where(alpha == 0, noise(*pixels.shape, seed=1), pixels)
    assert np.array_equal(fill_hidden(Picture(noisy, alpha)).pixels, filled.pixels)
    assert np.array_equal(filled.pixels * (alpha > 0), pixels * (alpha > 0))
    assert filled.pixels.shape == pixels.shape
    assert filled.pixels.dtype == np.uint8
    assert filled.alpha is alpha
    assert filled.exif == b"kept"
    if alpha.any():
        visible = pixels[:, alpha > 0]
        assert (filled.pixels >= visible.min(1)[:, None, None]).all()
        assert (filled.pixels <= visible.max(1)[:, None, None]).all()


def test_a_flat_colour_goes_on_below_the_alpha() -> None:
    for value in (0, 1, 77, 254, 255):
        for side in (1, 2, 15, 150):
            alpha = np.zeros((side, 2 * side), np.uint8)
            alpha[side // 2, side // 3] = 255
            pixels = np.where(alpha > 0, value, noise(3, side, 2 * side)).astype(np.uint8)
            assert (fill_hidden(Picture(pixels, alpha)).pixels == value).all()


def test_what_is_filled_is_smooth() -> None:
    rows, columns = np.mgrid[0:200, 0:300]
    alpha = np.where((rows - 100) ** 2 + (columns - 150) ** 2 < 60**2, 255, 0).astype(np.uint8)
    slope = np.stack([rows, columns // 2, 200 - rows]).astype(np.uint8)
    filled = fill_hidden(Picture(np.where(alpha > 0, slope, noise(3, 200, 300)), alpha)).pixels.astype(int)
    for axis in (1, 2):
        steps = np.abs(np.diff(filled, axis=axis))
        assert steps.max() <= 8
        assert np.quantile(steps, 0.99) <= 1


def test_pictures_without_a_visible_or_a_hidden_pixel() -> None:
    pixels = noise(3, 5, 4)
    hidden = fill_hidden(Picture(pixels, np.zeros((5, 4), np.uint8)))
    assert (hidden.pixels == 128).all()
    for picture in (Picture(pixels), Picture(pixels, np.full((5, 4), 1, np.uint8))):
        assert fill_hidden(picture) is picture


def test_the_values_are_the_same_everywhere() -> None:
    alpha = np.zeros((9, 7), np.uint8)
    alpha[2, 1], alpha[7, 5] = 9, 255
    pixels = np.zeros((1, 9, 7), np.uint8)
    pixels[0, 2, 1], pixels[0, 7, 5] = 200, 40
    assert fill_hidden(Picture(pixels, alpha)).pixels[0].tolist() == [
        [200, 195, 185, 170, 150, 135, 125],
        [200, 194, 181, 165, 145, 130, 120],
        [200, 200, 174, 155, 135, 120, 110],
        [185, 176, 159, 140, 120, 105, 95],
        [155, 149, 136, 120, 100, 85, 75],
        [135, 130, 121, 105, 82, 68, 63],
        [125, 121, 113, 94, 65, 53, 58],
        [120, 117, 111, 95, 69, 40, 67],
        [120, 118, 114, 107, 95, 89, 90],
    ]


@pytest.mark.parametrize("alpha", [0, 1, 100, 255])
def test_over_white_is_the_rounded_mean(alpha: int) -> None:
    pixels = noise(3, 4, 5)
    shown = over_white(Picture(pixels, np.full((4, 5), alpha, np.uint8)))
    assert np.array_equal(shown.pixels, np.floor((pixels * float(alpha) + 255 * (255 - alpha)) / 255 + 0.5))
    assert shown.alpha is None
