"""How far a restored image is from its original, and at what rate: numbers about one pair, or one pair of curves."""

from difflate.metrics.bjontegaard import bd_quality, bd_rate
from difflate.metrics.distortion import (
    bits_per_pixel,
    check_pair,
    compression_ratio,
    ms_ssim,
    psnr,
    ssim,
    ssimulacra2,
)

__all__ = [
    "bd_quality",
    "bd_rate",
    "bits_per_pixel",
    "check_pair",
    "compression_ratio",
    "ms_ssim",
    "psnr",
    "ssim",
    "ssimulacra2",
]
