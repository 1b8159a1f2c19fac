"""Two images that are to be compared: their planes, and whether they are the same picture at all."""

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from difflate.errors import VerificationFailed
from difflate.media.picture import as_picture

PEAK = 255.0
"""The largest sample value: the peak of PSNR and the data range of SSIM."""
PAIR_BLOCK_PX = 8
PAIR_MIN_DB = 15.75
"""See `check_pair` for where the two come from."""

Value = TypeVar("Value")


def planes_of_pair(reference: Any, restored: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both images as (C, H, W) uint8 of one shape. Raises VerificationFailed if their sizes differ."""
    first, second = as_picture(reference).pixels, as_picture(restored).pixels
    if first.shape[1:] != second.shape[1:]:
        raise VerificationFailed(
            f"the reference is {first.shape[2]}x{first.shape[1]} px but the restored image is "
            f"{second.shape[2]}x{second.shape[1]} px; they do not belong together"
        )
    channels = max(first.shape[0], second.shape[0])
    first, second = (np.broadcast_to(pixels, (channels, *pixels.shape[1:])) for pixels in (first, second))
    return first, second


def check_pair(reference: Any, restored: Any) -> None:
    """Raises VerificationFailed if the two images do not belong together: for files that are paired by their names.

    They do not if their sizes differ, or if even the means of their 8x8 blocks differ by a PSNR below 15.75 dB.
    Codecs that have no bits left lose detail before they lose a block's mean: the worst measured was 16.2 dB (8x8 px
    of saturated noise through JPEG at quality 1; photographs of the Kodak set stay above 22.9 dB), while the most
    alike of all pairs of two different Kodak photographs have 15.3 dB. A small codebook without a colour may lose more
    of a flat image in it, so what a codec has just encoded and decoded is not put to this test. Images with a side
    below 8 px have no block and are not compared; two different images that are both nearly flat and of one colour
    pass.
    """
    first, second = planes_of_pair(reference, restored)
    if min(first.shape[1:]) < PAIR_BLOCK_PX:
        return
    blocks_db = decibels(block_means(first, PAIR_BLOCK_PX), block_means(second, PAIR_BLOCK_PX))
    if blocks_db < PAIR_MIN_DB:
        raise VerificationFailed(
            f"the block means of the two images differ by {blocks_db:.1f} dB, more than any codec loses "
            f"({PAIR_MIN_DB} dB); they are not the same picture, check how the files are paired"
        )


def checking_pairs(metric: Callable[[Any, Any], Value]) -> Callable[[Any, Any], Value]:
    """``metric`` with `check_pair` before it."""

    @functools.wraps(metric)
    def measure(reference: Any, restored: Any) -> Value:
        reference, restored = as_picture(reference), as_picture(restored)
        check_pair(reference, restored)
        return metric(reference, restored)

    return measure


def decibels(first: np.ndarray, second: np.ndarray) -> float:
    """PSNR in dB of two arrays of samples, in float64; inf if they are equal."""
    squared_error = float(np.mean(np.square(first.astype(np.float64) - second)))
    return math.inf if squared_error == 0 else 10 * math.log10(PEAK**2 / squared_error)


def block_means(pixels: np.ndarray, block_px: int) -> np.ndarray:
    """(C, H // block_px, W // block_px) float64 means of the whole blocks of ``pixels: (C, H, W)``."""
    channels, rows, columns = pixels.shape[0], pixels.shape[1] // block_px, pixels.shape[2] // block_px
    whole = pixels[:, : rows * block_px, : columns * block_px]
    return whole.reshape(channels, rows, block_px, columns, block_px).mean(axis=(2, 4))
