"""How far a restored image is from its original, and at what rate: numbers about one pair, or one pair of curves.

The distortions here take files that somebody paired by hand or by name: each calls `check_pair` first. Those of
`difflate.metrics.distortion` measure any two images of one size.
"""

from difflate.metrics import distortion
from difflate.metrics.bjontegaard import bd_quality, bd_rate
from difflate.metrics.distortion import bits_per_pixel, compression_ratio
from difflate.metrics.pairs import check_pair, checking_pairs

psnr = checking_pairs(distortion.psnr)
ssim = checking_pairs(distortion.ssim)
ms_ssim = checking_pairs(distortion.ms_ssim)
ssimulacra2 = checking_pairs(distortion.ssimulacra2)

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
