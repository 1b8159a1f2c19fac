"""How near images are: PSNR for reports, SSIM and MS-SSIM of brightness as differentiable losses.

(Wang et al. 2004; Wang, Simoncelli, Bovik 2003.)
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_TAPS, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # of pixels in [-1, 1]


def psnr_db(restored: Tensor, images: Tensor) -> Tensor:
    """() mean PSNR of ``restored`` and ``images``: (B, 3, H, W) in [-1, 1]."""
    mse = ((restored.detach().float() - images) * 127.5).square().flatten(1).mean(1)
    return (20 * math.log10(255.0) - 10 * mse.clamp_min(1e-9).log10()).mean()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """(B,) SSIM of the mean over RGB, for ``x`` and ``y``: (B, 3, H, W) in [-1, 1]; see `ms_ssim`."""
    luminance, contrast = _terms(*_brightness(x, y))
    return (luminance * contrast).mean(dim=(1, 2, 3))


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """(B,) MS-SSIM of the mean over RGB, for ``x`` and ``y``: (B, 3, H, W) in [-1, 1].

    As many of the five scales as the size has room for (176 px: all), their weights rescaled to sum to 1. Of all three
    channels it would take three times as long and say nearly the same. `difflate.metrics.ms_ssim` is for reporting.
    """
    pair = _brightness(x, y)
    scales = [i for i in range(len(_WEIGHTS)) if min(x.shape[2:]) >> i >= _TAPS] or [0]
    total = sum(_WEIGHTS[i] for i in scales)
    weights = [_WEIGHTS[i] / total for i in scales]
    result = pair.new_ones(len(x))
    for i, weight in enumerate(weights):
        luminance, contrast = _terms(*pair)
        value = contrast if i + 1 < len(weights) else luminance * contrast
        # a power of what may be below 0 has no gradient
        result = result * value.mean(dim=(1, 2, 3)).clamp_min(1e-3) ** weight
        pair = F.avg_pool2d(pair.flatten(0, 1), 2).unflatten(0, (2, -1)) if i + 1 < len(weights) else pair
    return result


def _brightness(x: Tensor, y: Tensor) -> Tensor:
    """(2, B, 1, H, W) float32."""
    return torch.stack([x, y]).float().mean(dim=2, keepdim=True)


def _terms(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM's luminance and contrast-structure terms, each (B, 1, H', W')."""
    moments = torch.cat([x, y, x * x, y * y, x * y])
    # as products of matrices: a convolution of one channel takes 30 times as long on a CPU
    moments = _blur(x.shape[2], x) @ moments @ _blur(x.shape[3], x).T
    mean_x, mean_y, xx, yy, xy = moments.chunk(5)
    products = mean_x * mean_y
    squares = mean_x.square() + mean_y.square()
    return (2 * products + _C1) / (squares + _C1), (2 * (xy - products) + _C2) / (xx + yy - squares + _C2)


def _blur(size: int, like: Tensor) -> Tensor:
    """(size - taps + 1, size): a Gaussian window at each place where it fits."""
    taps = min(_TAPS, size)
    places = torch.arange(size - taps + 1, device=like.device)[:, None]
    offsets = torch.arange(size, dtype=torch.float32, device=like.device) - places - (taps - 1) / 2
    window = torch.exp(-(offsets**2) / (2 * _SIGMA**2)) * (offsets.abs() <= taps / 2)
    return (window / window.sum(dim=1, keepdim=True)).to(like)
