"""Images in tiles are the images as a whole, and no border shows."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from coder_helpers import photo, psnr, tiny_codec
from difflate.codecs.transform import _MARGIN, _RAMP, quality_step
from difflate.errors import ConfigError
from difflate.media.picture import Picture
from difflate.nn.tiles import blend, restore_in_tiles, sites_of, spans, windows
from difflate.options import TransformEncoding

STRIDE_PX = 16
SMALL_PX = 41 * STRIDE_PX
"""The smallest tile that there is, with the margins of the codec."""


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 200), st.integers(1, 80), st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, 2, 16]))
@example(20, 1, 8, 4, 1)
@example(13, 8, 8, 4, 16)
@example(2, 1, 0, 2, 1)
def test_weights_sum_to_one_everywhere(size: int, tile: int, margin: int, ramp: int, scale: int) -> None:
    assume(ramp <= 4 * margin + 3)  # so that a tile's two ramps do not meet
    found = spans(size, tile, margin, ramp, scale)
    total = torch.zeros(size * scale)
    longest = max(tile, 2 * (2 * margin + ramp) + 1)
    for span in found:
        assert 0 <= span.start < span.stop <= size
        assert span.stop - span.start <= longest
        assert len(span.weight) == (span.stop - span.start) * scale
        assert span.weight.min() >= 0
        total[span.start * scale : span.stop * scale] += span.weight
    torch.testing.assert_close(total, torch.ones_like(total))
    assert (found[0].start, found[-1].stop) == (0, size)
    for before, after in pairwise(found):
        assert before.stop - after.start == 2 * margin + ramp
        # what the neighbour's end could have spoilt counts nothing
        assert not before.weight[len(before.weight) - margin * scale :].any()
        assert not after.weight[: margin * scale].any()


def test_blending_restores_what_was_cut_and_cuts_what_is_beyond() -> None:
    image = torch.randn(3, 50 * 16 - 5, 60 * 16 - 11)
    out, padded = torch.zeros_like(image), torch.nn.functional.pad(image, (0, 11, 0, 5))
    tiles = list(windows(50, 60, 20, 2, 3, 16))
    for rows, columns in tiles:
        part = padded[:, rows.start * 16 : rows.stop * 16, columns.start * 16 : columns.stop * 16]
        blend(out, part, rows, columns, 16)
    torch.testing.assert_close(out, image)
    assert len(tiles) == 4 * 5


def test_each_tile_is_told_where_it_stands() -> None:
    y_hat = np.arange(90, dtype=np.float32)[None, None, None] / 90 - 0.5
    places = []

    def restore(part: torch.Tensor, row: int, column: int) -> torch.Tensor:
        places.append((row, column, round((float(part[0, 0, 0, 0]) + 0.5) * 90)))
        return part.repeat_interleave(16, 2).repeat_interleave(16, 3).expand(1, 3, -1, -1).clone()

    image = restore_in_tiles(restore, y_hat, 9, 90 * 16 - 3, 41 * 16, 8, 4, 16, torch.device("cpu"))
    assert image.shape == (1, 3, 9, 90 * 16 - 3)
    assert len(places) > 1
    assert all(row == 0 and column == value for row, column, value in places)
    expected = np.rint((np.repeat(y_hat[0, 0, 0], 16)[:-3] + 1) * 127.5)
    assert np.abs(image[0, 0, 0].numpy() - expected).max() <= 1


def test_a_tile_without_a_site_is_refused() -> None:
    assert (sites_of(16, 16), sites_of(1024, 16), sites_of(1039, 16)) == (1, 64, 64)
    for side in (15, 0, -5):
        with pytest.raises(ConfigError, match=rf"tile \(={side} px\) must be at least 16"):
            sites_of(side, 16)


@pytest.mark.parametrize("side", [16, 64, 320])
def test_small_tiles_of_small_images(side: int) -> None:
    codec, picture = tiny_codec(), Picture(photo(200, 330))
    data = codec.encode(picture, tile_px=side)
    assert data == codec.encode(picture)
    np.testing.assert_array_equal(codec.decode(data, tile_px=side).pixels, codec.decode(data).pixels)


@pytest.mark.parametrize("kind", ["dct", "gdn", "residual"])
def test_tiles_are_the_whole_image(kind) -> None:
    """The wide image has a border between tiles; the networks have weights that make it count."""
    codec, pixels = tiny_codec(kind=kind), torch.from_numpy(photo(96, 768, 300))
    with torch.no_grad():
        for name, parameter in codec.model.named_parameters():
            if "exit" in name or "modulation" in name:  # which start as 0
                parameter.normal_(std=0.02)
            elif kind != "dct" and "synthesis" in name and "weight" in name:
                parameter.mul_(2)  # so that images are not flat
    assert len(spans(48, sites_of(SMALL_PX, STRIDE_PX), _MARGIN, _RAMP, 1)) == 2
    for quality in (14.0, 91.0):
        whole, tiled = (
            codec.space.analyse(pixels[None], quality, TransformEncoding(tile_px=tile)).numpy()
            for tile in (1024, SMALL_PX)
        )
        assert np.abs(whole - tiled).max() < 1e-3 * max(1.0, np.abs(whole).max())
        y_hat = whole.round()
        image, in_tiles = (
            codec.space.restore(y_hat, 96, 768, [quality_step(quality)], tile)[0].int() for tile in (1024, SMALL_PX)
        )
        assert np.ptp(image.numpy()) > 20
        difference = (image - in_tiles).abs()
        assert difference.max() <= 1  # two roundings of the same number
        assert (difference > 0).float().mean() < 0.02
        steps = (in_tiles - image).diff(dim=2).abs().float().mean(dim=(0, 1))  # what tiles add to the gradient
        assert steps.max() <= 0.2


def test_a_file_may_be_written_and_read_with_other_tiles() -> None:
    codec, picture = tiny_codec(), Picture(photo(64, 768, 300))
    data = codec.encode(picture, quality=70, tile_px=SMALL_PX)
    whole, tiled = (codec.decode(data, tile_px=tile).pixels for tile in (1024, SMALL_PX))
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    assert psnr(picture.pixels, tiled) > 20
