"""Rate and distortion of one image: bits per pixel, PSNR, SSIM, MS-SSIM, SSIMULACRA2.

Every distortion takes ``(reference, restored)``, each a Picture, PIL image, (H, W, C) array, (C, H, W) tensor, path or
bytes (whatever `difflate.media.picture.as_picture` takes), and raises VerificationFailed if their sizes differ; the
functions of the same names in `difflate.metrics` also if they are not the same picture. Alpha is ignored: the metrics
see the colour under it. A grey image beside an RGB one counts as the RGB image with three equal channels.
"""

import io
from typing import Any

import numpy as np

from difflate.errors import ConfigError
from difflate.extras import require
from difflate.metrics.pairs import PEAK, block_means, decibels, planes_of_pair

SSIM_MIN_SIDE_PX = 11
"""The side of SSIM's window, which has to fit into the image."""
SSIM_SIGMA_PX = 1.5
MS_SSIM_MIN_SIDE_PX = 176
"""One window of 11 has to fit at the fifth scale, which is 16 times smaller."""
MS_SSIM_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SSIMULACRA2_MIN_SIDE_PX = 8
"""Below it the metric has no scale to look at, and would call any pair perfect."""


def psnr(reference: Any, restored: Any) -> float:
    """Peak signal-to-noise ratio in dB, of the mean squared error over all samples in float64; inf if identical."""
    return decibels(*planes_of_pair(reference, restored))


def ssim(reference: Any, restored: Any) -> float | None:
    """Structural similarity (Wang et al. 2004), 1 if identical; None if a side is below 11 px.

    Gaussian window of 11x11 with sigma 1.5, k1 = .01, k2 = .03, data range 255, float64; the mean over all windows
    that lie inside the image and over the R, G and B channels.
    """
    first, second = planes_of_pair(reference, restored)
    if min(first.shape[1:]) < SSIM_MIN_SIDE_PX:
        return None
    similarity, _ = _ssim_and_contrast(first.astype(np.float64), second.astype(np.float64))
    return float(similarity.mean())


def ms_ssim(reference: Any, restored: Any) -> float | None:
    """Multi-scale structural similarity (Wang et al. 2003), 1 if identical; None if a side is below 176 px.

    Five scales, each the 2x2 means of the last, with the published exponents: contrast at the first four, SSIM at the
    fifth, multiplied for each channel; then the mean over the channels. Otherwise as `ssim`.
    """
    first, second = planes_of_pair(reference, restored)
    if min(first.shape[1:]) < MS_SSIM_MIN_SIDE_PX:
        return None
    planes = first.astype(np.float64), second.astype(np.float64)
    product = np.ones(len(first))
    for exponent in MS_SSIM_EXPONENTS[:-1]:
        # an inverted window has a negative contrast term, which no exponent below 1 takes
        product *= np.maximum(_ssim_and_contrast(*planes)[1], 0) ** exponent
        planes = block_means(planes[0], 2), block_means(planes[1], 2)
    product *= np.maximum(_ssim_and_contrast(*planes)[0], 0) ** MS_SSIM_EXPONENTS[-1]
    return float(product.mean())


def ssimulacra2(reference: Any, restored: Any) -> float | None:
    """SSIMULACRA2 (Sneyers 2023) by the package of that name, 100 if identical; None if a side is below 8 px.

    About 90 is visually lossless, 70 high, 50 medium, 30 low quality; it falls below 0. sRGB is assumed. Scores of
    images with a side below 256 px use fewer than six scales and compare with each other only.
    """
    first, second = planes_of_pair(reference, restored)
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


def _ssim_and_contrast(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C,) mean SSIM and (C,) mean of its contrast-structure term, for ``x`` and ``y: (C, H, W)`` float64.

    Eq. 13 of Wang et al. 2004. Not torchmetrics: its SSIM takes windows into account that reach over the border into
    a mirror image (half of all at the fifth scale of a 768x512 image, .0016 in its MS-SSIM), and it takes 50 times
    as long, for it does not filter rows and columns one after the other.
    """
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    mu_x, mu_y = _window_means(x), _window_means(y)
    mu_xy, mu_sq = mu_x * mu_y, mu_x**2 + mu_y**2
    contrast = (2 * (_window_means(x * y) - mu_xy) + c2) / (_window_means(x * x) + _window_means(y * y) - mu_sq + c2)
    similarity = contrast * (2 * mu_xy + c1) / (mu_sq + c1)
    return similarity.mean(axis=(1, 2)), contrast.mean(axis=(1, 2))


def _window_means(planes: np.ndarray) -> np.ndarray:
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
