"""Rate and distortion of one image: bits per pixel, PSNR, SSIM, MS-SSIM, SSIMULACRA2.

Every distortion takes ``(reference, restored)``, each a Picture, PIL image, (H, W, C) array, (C, H, W) tensor, path or
bytes (whatever `difflate.media.picture.as_picture` takes), and calls `check_pair` first. Alpha is ignored: the metrics
see the colour under it. A grey image beside an RGB one counts as the RGB image with three equal channels.
"""

import io
import math
from typing import Any

import numpy as np

from difflate.errors import ConfigError, VerificationFailed
from difflate.extras import require
from difflate.media.picture import as_picture

PEAK = 255.0
"""The largest sample value: the peak of PSNR and the data range of SSIM."""
SSIM_MIN_SIDE_PX = 11
"""The side of SSIM's window, which has to fit into the image."""
SSIM_SIGMA_PX = 1.5
MS_SSIM_MIN_SIDE_PX = 176
"""One window of 11 has to fit at the fifth scale, which is 16 times smaller."""
MS_SSIM_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SSIMULACRA2_MIN_SIDE_PX = 8
"""Below it the metric has no scale to look at, and would call any pair perfect."""
PAIR_BLOCK_PX = 8
PAIR_MIN_DB = 15.75
"""See `check_pair` for where the two come from."""


def psnr(reference: Any, restored: Any) -> float:
    """Peak signal-to-noise ratio in dB, of the mean squared error over all samples in float64; inf if identical.

    Raises VerificationFailed if the two images do not belong together (`check_pair`).
    """
    return _psnr(*check_pair(reference, restored))


def ssim(reference: Any, restored: Any) -> float | None:
    """Structural similarity (Wang et al. 2004), 1 if identical; None if a side is below 11 px.

    Gaussian window of 11x11 with sigma 1.5, k1 = .01, k2 = .03, data range 255, float64; the mean over all windows
    that lie inside the image and over the R, G and B channels. Raises VerificationFailed as `check_pair` does.
    """
    first, second = check_pair(reference, restored)
    if min(first.shape[1:]) < SSIM_MIN_SIDE_PX:
        return None
    similarity, _ = _ssim_and_contrast(first.astype(np.float64), second.astype(np.float64))
    return float(similarity.mean())


def ms_ssim(reference: Any, restored: Any) -> float | None:
    """Multi-scale structural similarity (Wang et al. 2003), 1 if identical; None if a side is below 176 px.

    Five scales, each the 2x2 means of the last, with the published exponents: contrast at the first four, SSIM at the
    fifth, multiplied for each channel; then the mean over the channels. Otherwise as `ssim`.
    """
    first, second = check_pair(reference, restored)
    if min(first.shape[1:]) < MS_SSIM_MIN_SIDE_PX:
        return None
    planes = first.astype(np.float64), second.astype(np.float64)
    product = np.ones(len(first))
    for exponent in MS_SSIM_EXPONENTS[:-1]:
        # an inverted window has a negative contrast term, which no exponent below 1 takes
        product *= np.maximum(_ssim_and_contrast(*planes)[1], 0) ** exponent
        planes = _block_means(planes[0], 2), _block_means(planes[1], 2)
    product *= np.maximum(_ssim_and_contrast(*planes)[0], 0) ** MS_SSIM_EXPONENTS[-1]
    return float(product.mean())


def ssimulacra2(reference: Any, restored: Any) -> float | None:
    """SSIMULACRA2 (Sneyers 2023) by the package of that name, 100 if identical; None if a side is below 8 px.

    About 90 is visually lossless, 70 high, 50 medium, 30 low quality; it falls below 0. sRGB is assumed. Scores of
    images with a side below 256 px use fewer than six scales and compare with each other only.
    Raises VerificationFailed as `check_pair` does.
    """
    first, second = check_pair(reference, restored)
    if min(first.shape[1:]) < SSIMULACRA2_MIN_SIDE_PX:
        return None
    return float(require("ssimulacra2", "eval").compute_ssimulacra2(_as_file(first), _as_file(second)))


def bits_per_pixel(size_bytes: int, width: int, height: int) -> float:
    """8 * ``size_bytes`` / (``width`` * ``height``). Raises ConfigError if there is no pixel."""
    if width < 1 or height < 1:
        raise ConfigError(f"an image of {width}x{height} px has no bits per pixel")
    return 8 * size_bytes / (width * height)


def compression_ratio(size_bytes: int, width: int, height: int, channels: int = 3) -> float:
    """Bytes of the raw 8-bit image for each byte of the file. Raises ConfigError if the file is empty."""
    if size_bytes < 1:
        raise ConfigError(f"a file of {size_bytes} bytes has no compression ratio")
    return width * height * channels / size_bytes


def check_pair(reference: Any, restored: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both images as (C, H, W) uint8 of one shape. Raises VerificationFailed if they do not belong together.

    They do not if their sizes differ, or if even the means of their 8x8 blocks differ by a PSNR below 15.75 dB.
    Codecs that have no bits left lose detail before they lose a block's mean: the worst measured was 16.2 dB (8x8 px
    of saturated noise through JPEG at quality 1; photographs of the Kodak set stay above 22.9 dB), while the most
    alike of all pairs of two different Kodak photographs have 15.3 dB. Images with a side below 8 px have no block
    and are not compared; two different images that are both nearly flat and of one colour pass.
    """
    first, second = as_picture(reference).pixels, as_picture(restored).pixels
    if first.shape[1:] != second.shape[1:]:
        raise VerificationFailed(
            f"the reference is {first.shape[2]}x{first.shape[1]} px but the restored image is "
            f"{second.shape[2]}x{second.shape[1]} px; they do not belong together"
        )
    channels = max(first.shape[0], second.shape[0])
    first, second = (np.broadcast_to(pixels, (channels, *pixels.shape[1:])) for pixels in (first, second))
    if min(first.shape[1:]) >= PAIR_BLOCK_PX:
        blocks_db = _psnr(_block_means(first, PAIR_BLOCK_PX), _block_means(second, PAIR_BLOCK_PX))
        if blocks_db < PAIR_MIN_DB:
            raise VerificationFailed(
                f"the block means of the two images differ by {blocks_db:.1f} dB, more than any codec loses "
                f"({PAIR_MIN_DB} dB); they are not the same picture, check how the files are paired"
            )
    return first, second


def _psnr(first: np.ndarray, second: np.ndarray) -> float:
    squared_error = float(np.mean(np.square(first.astype(np.float64) - second)))
    return math.inf if squared_error == 0 else 10 * math.log10(PEAK**2 / squared_error)


def _block_means(pixels: np.ndarray, block_px: int) -> np.ndarray:
    """(C, H // block_px, W // block_px) float64 means of the whole blocks of ``pixels: (C, H, W)``."""
    channels, rows, columns = pixels.shape[0], pixels.shape[1] // block_px, pixels.shape[2] // block_px
    whole = pixels[:, : rows * block_px, : columns * block_px]
    return whole.reshape(channels, rows, block_px, columns, block_px).mean(axis=(2, 4))


def _ssim_and_contrast(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C,) mean SSIM and (C,) mean of its contrast-structure term, for ``x`` and ``y: (C, H, W)`` float64.

    Eq. 13 of Wang et al. 2004. Not torchmetrics: its SSIM takes windows into account that reach over the border into
    a mirror image (half of all at the fifth scale of a 768x512 image, .0016 in its MS-SSIM), and it takes 50 times
    as long, for it does not filter rows and columns one after the other.
    """
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mu_x, mu_y = _windowed(x), _windowed(y)
    mu_xy, mu_sq = mu_x * mu_y, mu_x**2 + mu_y**2
    contrast = (2 * (_windowed(x * y) - mu_xy) + c2) / (_windowed(x * x) + _windowed(y * y) - mu_sq + c2)
    similarity = contrast * (2 * mu_xy + c1) / (mu_sq + c1)
    return similarity.mean(axis=(1, 2)), contrast.mean(axis=(1, 2))


def _windowed(planes: np.ndarray) -> np.ndarray:
    """(C, H - 10, W - 10) Gaussian means of ``planes: (C, H, W)`` over the windows inside the image."""
    correlate1d = require("scipy.ndimage", "eval").correlate1d
    radius = SSIM_MIN_SIDE_PX // 2
    window = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * SSIM_SIGMA_PX**2))
    filtered = correlate1d(correlate1d(planes, window / window.sum(), axis=1), window / window.sum(), axis=2)
    return filtered[:, radius:-radius, radius:-radius]


def _as_file(pixels: np.ndarray) -> io.BytesIO:
    """An uncompressed image file in memory: ssimulacra2 has no entrance for arrays."""
    from PIL import Image

    file = io.BytesIO()
    rgb = np.broadcast_to(pixels, (3, *pixels.shape[1:]))
    Image.fromarray(np.ascontiguousarray(rgb.transpose(1, 2, 0))).save(file, "PPM")
    file.seek(0)
    return file
