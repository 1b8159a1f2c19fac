import importlib
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from difflate import metrics
from difflate.errors import ConfigError, VerificationFailed
from difflate.extras import require
from difflate.media.picture import Picture
from difflate.metrics import bits_per_pixel, check_pair, compression_ratio, distortion, ms_ssim, psnr, ssim, ssimulacra2
from difflate.metrics.pairs import block_means
from difflate.reproduce.table1 import psnr_wrapped, ssim_skimage

ALL = (psnr, ssim, ms_ssim, ssimulacra2, psnr_wrapped, ssim_skimage)


def smooth(height: int = 192, width: int = 200, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 with structure at several scales, within 40…215."""
    random = np.random.default_rng(seed)
    small = random.integers(40, 216, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    large = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    return np.clip(large, 40, 215)


def noisy(pixels: np.ndarray, sigma: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, pixels.shape)
    return np.clip(pixels + noise, 0, 255).round().astype(np.uint8)


def coded(pixels: np.ndarray, file_format: str, quality: int = 1) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.mark.parametrize("offset", [1, 7, 20, 40])
def test_psnr_of_a_constant_offset(offset: int) -> None:
    pixels = smooth()
    assert psnr(pixels, pixels + np.uint8(offset)) == pytest.approx(20 * math.log10(255 / offset), abs=1e-12)


def test_psnr_does_not_wrap_around() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black + np.uint8(255)) == 0


@pytest.mark.parametrize("offset", [15, 17, 36])
def test_wrapped_psnr_loses_multiples_of_256(offset: int) -> None:
    pixels = smooth()
    lower = pixels - np.uint8(offset)
    expected = 10 * math.log10(255**2 / (offset**2 % 256))
    assert psnr_wrapped(pixels, lower) == pytest.approx(expected, abs=1e-12)
    assert psnr_wrapped(lower, pixels) == pytest.approx(expected, abs=1e-12)


def test_wrapped_psnr_takes_an_error_of_16_for_none() -> None:
    pixels = smooth()
    assert psnr_wrapped(pixels, pixels + np.uint8(16)) == math.inf


def test_identical_images() -> None:
    pixels = smooth()
    assert psnr(pixels, pixels) == math.inf
    assert ssim(pixels, pixels) == pytest.approx(1, abs=1e-12)
    assert ms_ssim(pixels, pixels) == pytest.approx(1, abs=1e-12)
    assert ssimulacra2(pixels, pixels) == 100


@pytest.mark.parametrize(("height", "width"), [(192, 200), (37, 61), (11, 11)])
def test_ssim_is_that_of_scikit_image(height: int, width: int) -> None:
    structural_similarity = require("skimage.metrics", "eval").structural_similarity
    pixels = smooth(height, width)
    restored = noisy(pixels, 12)
    expected = structural_similarity(
        pixels, restored, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(pixels, restored) == pytest.approx(expected, abs=1e-12)


def test_ms_ssim_is_that_of_its_definition() -> None:
    # written again with another library; sizes that are odd at some scales
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    line = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = torch.outer(line, line)[None, None] / line.sum() ** 2
    pixels = smooth(205, 230)
    restored = noisy(pixels, 20)
    x, y = (torch.from_numpy(image).permute(2, 0, 1)[:, None].double() for image in (pixels, restored))
    product = torch.ones(3, dtype=torch.float64)
    for scale, exponent in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mu_x, mu_y, xx, yy, xy = (F.conv2d(plane, window) for plane in (x, y, x * x, y * y, x * y))
        term = (2 * (xy - mu_x * mu_y) + c2) / (xx - mu_x**2 + yy - mu_y**2 + c2)
        if scale == 4:
            term = term * (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
        product *= term.mean((1, 2, 3)) ** exponent
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    assert ms_ssim(pixels, restored) == pytest.approx(float(product.mean()), abs=1e-12)


def test_ms_ssim_of_an_inverted_image_is_zero() -> None:
    pixels = smooth() // 4 + 96
    assert ms_ssim(pixels, 255 - pixels) == 0


def test_ssim_of_a_constant_offset_on_a_flat_image() -> None:
    # no variance: the luminance term alone is left
    c1, first, second = (0.01 * 255) ** 2, 100, 110
    flat = np.full((32, 32, 3), first, np.uint8)
    expected = (2 * first * second + c1) / (first**2 + second**2 + c1)
    assert ssim(flat, flat + np.uint8(10)) == pytest.approx(expected, abs=1e-12)


def test_ms_ssim_of_a_constant_offset_on_a_flat_image() -> None:
    # contrast terms are 1 at every scale; the luminance term counts at the last scale, with its exponent
    c1, first, second = (0.01 * 255) ** 2, 100, 110
    flat = np.full((192, 192, 3), first, np.uint8)
    luminance = (2 * first * second + c1) / (first**2 + second**2 + c1)
    assert ms_ssim(flat, flat + np.uint8(10)) == pytest.approx(luminance**0.1333, abs=1e-12)


def test_perceptual_metrics_fall_with_noise() -> None:
    pixels = smooth()
    for metric in (ms_ssim, ssimulacra2):
        values = [metric(pixels, noisy(pixels, sigma)) for sigma in (2, 8, 25)]
        assert values == sorted(values, reverse=True)  # type: ignore[type-var]


def test_images_too_small_for_a_metric_have_none() -> None:
    for metric, side in ((ssim, 11), (ms_ssim, 176), (ssimulacra2, 8)):
        enough, too_small = smooth(side, side + 5), smooth(side - 1, side + 5)
        assert metric(enough, enough) is not None
        assert metric(too_small, too_small) is None
    with pytest.raises(ConfigError, match="7x7"):
        ssim_skimage(smooth(6, 9), smooth(6, 9))


@pytest.mark.parametrize("metric", ALL)
def test_inputs_of_all_kinds_agree(metric) -> None:
    pixels = smooth()
    restored = noisy(pixels, 9)
    expected = metric(pixels, restored)
    planes = restored.transpose(2, 0, 1)
    for other in (Picture(planes), Image.fromarray(restored), torch.tensor(planes)):
        assert metric(pixels, other) == expected


@pytest.mark.parametrize("metric", ALL)
def test_grey_counts_as_three_equal_channels(metric) -> None:
    grey = smooth()[:, :, :1]
    rgb = np.repeat(noisy(grey, 9), 3, axis=2)
    assert metric(grey, rgb) == pytest.approx(metric(grey, rgb[:, :, :1]), abs=1e-12)


def test_alpha_is_ignored() -> None:
    pixels = smooth()
    assert psnr(np.dstack([pixels, pixels[:, :, 0]]), pixels) == math.inf


@pytest.mark.parametrize("metric", ALL)
def test_images_of_two_sizes_do_not_belong_together(metric) -> None:
    with pytest.raises(VerificationFailed, match="200x192 px but the restored image is 192x200 px"):
        metric(smooth(192, 200), smooth(200, 192))


@pytest.mark.parametrize("name", ["psnr", "ssim", "ms_ssim", "ssimulacra2"])
def test_only_what_a_user_pairs_has_to_be_the_same_picture(name: str) -> None:
    dark, bright = smooth() // 3, 255 - smooth(seed=5) // 3
    with pytest.raises(VerificationFailed, match="not the same picture"):
        getattr(metrics, name)(dark, bright)
    assert math.isfinite(getattr(distortion, name)(dark, bright))


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("kind", ["noise", "grey noise", "flat", "checkerboard", "black and white noise"])
def test_the_worst_quality_of_hard_images_is_still_a_pair(file_format: str, kind: str) -> None:
    random = np.random.default_rng(3)
    for height, width in ((8, 8), (16, 16), (33, 17), (64, 64), (1, 1), (2, 300)):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if kind == "grey noise":
            pixels[:] = pixels[:, :, :1]
        elif kind == "flat":
            pixels[:] = pixels[:1, :1]
        elif kind == "checkerboard":
            pixels[:] = (np.indices((height, width)).sum(0) % 2 * 255)[:, :, None]
        elif kind == "black and white noise":
            pixels[:] = (pixels[:, :, :1] > 127) * 255
        check_pair(pixels, coded(pixels, file_format))


def test_on_kodak_every_mispairing_is_seen_and_no_pair_refused(data_dir: Path) -> None:
    images, means = [], []
    for path in sorted((data_dir / "kodak").glob("*.png")):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        check_pair(pixels, coded(pixels, "JPEG"))
        # upright ones are laid down, for they have no partner otherwise
        images.append(pixels if pixels.shape[0] < pixels.shape[1] else pixels.transpose(1, 0, 2))
        means.append(block_means(images[-1].transpose(2, 0, 1), 8).astype(np.float32))
    assert len(images) == 24
    for i, first in enumerate(images):
        # the others differ more
        others = [j for j in range(24) if j != i]
        nearest = min(others, key=lambda j: float(np.square(means[i] - means[j]).mean()))
        with pytest.raises(VerificationFailed, match="not the same picture"):
            check_pair(first, images[nearest])


def test_rates() -> None:
    assert bits_per_pixel(1000, 100, 40) == 2
    assert compression_ratio(1000, 100, 40) == 12
    with pytest.raises(ConfigError):
        bits_per_pixel(10, 0, 5)
    with pytest.raises(ConfigError):
        compression_ratio(0, 10, 5)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install 'difflate\[eval\]'"):
        ssim(smooth(), smooth())
