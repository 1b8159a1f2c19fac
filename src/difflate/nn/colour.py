"""RGB to YCbCr and back, and the rounding of pixels."""

import torch
from torch import Tensor

_KR, _KB = 0.299, 0.114
_KG = 1 - _KR - _KB
# Rows Y, Cr, Cb: the order in which Scribano et al. 2023 write a codec's bits. Full range, ITU-T T.871 (JFIF).
RGB_TO_YCRCB = torch.tensor(
    [
        [_KR, _KG, _KB],
        [0.5, -0.5 * _KG / (1 - _KR), -0.5 * _KB / (1 - _KR)],
        [-0.5 * _KR / (1 - _KB), -0.5 * _KG / (1 - _KB), 0.5],
    ],
    dtype=torch.float32,
)
YCRCB_TO_RGB = torch.linalg.inv(RGB_TO_YCRCB.double()).float()
_OFFSET = torch.tensor([0.0, 128.0, 128.0], dtype=torch.float32)


def rgb_to_ycrcb(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) float32 Y, Cr, Cb in [0, 255] of ``rgb: (B, 3, H, W)`` in [0, 255], not rounded."""
    return mix(RGB_TO_YCRCB, rgb.float()).add_(_OFFSET.to(rgb.device)[:, None, None])


def ycrcb_to_rgb(ycrcb: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 RGB of ``ycrcb: (B, 3, H, W)`` float32 in [0, 255], rounded and clamped."""
    centred = ycrcb - _OFFSET.to(ycrcb.device)[:, None, None]
    # in place: new memory takes longer than the arithmetic
    return mix(YCRCB_TO_RGB, centred).round_().clamp_(0, 255).to(torch.uint8)


def ycrcb_to_signed_rgb(ycrcb: Tensor) -> Tensor:
    """(B, 3, H, W) RGB in about [-1, 1], not clamped, of ``ycrcb: (B, 3, H, W)`` in [0, 255]; differentiable."""
    return mix(YCRCB_TO_RGB, ycrcb - _OFFSET.to(ycrcb.device)[:, None, None]) / 127.5 - 1


def mix(matrix: Tensor, images: Tensor) -> Tensor:
    """(B, 3, H, W) ``matrix: (3, 3)`` applied to the channels of ``images: (B, 3, H, W)``, one product per image."""
    return torch.matmul(matrix.to(images.device), images.flatten(2)).view(images.shape)


def to_uint8(values: Tensor) -> Tensor:
    """``values`` in [0, 255], any shape, rounded and clamped to uint8."""
    return values.round().clamp_(0, 255).to(torch.uint8)


def signed_to_uint8(images: Tensor) -> Tensor:
    """(B, C, H, W) uint8 of ``images: (B, C, H, W)`` float in [-1, 1]; values beyond are clipped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
