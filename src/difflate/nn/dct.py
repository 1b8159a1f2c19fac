"""Transforms that start as the 16x16 block DCT of YCbCr, and learn what is better.

A linear layer, whose windows of 32x32 pixels overlap, starts as the block DCT with zeros around it. Before and behind
it stand residual networks whose last layers start at 0. So the first step of a training compresses about as well as
JPEG does, and every part of the network improves on that from then on.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.nn.colour import RGB_TO_YCRCB, YCRCB_TO_RGB
from difflate.nn.layers import PaddingMode, channels_last, conv, modulate, rescale, settle, zero_weights

BLOCK_PX = 16
"""Side of the transform's blocks, which makes the stride of the latent."""
_CELL = 8
"""Pixels that the linear layer's convolution takes together: windows are 4 cells wide, 2 apart."""
_CHROMA_SHARE = 0.16
"""Share of the latent's channels that each of Cr and Cb has."""
MID_STEP = 36 / 127.5
"""Quantizer step in the middle of the quality range, of pixels in [-1, 1]: √(6/(λ·ln 2)) at `transforms.LMBDA_MIDDLE`,
in 8-bit units, where the slope of a uniform quantizer's distortion is that of its rate."""

_SPREAD_MIN = 0.2
"""So small a deviation is mostly the quantizer's noise."""


class DctAnalysis(nn.Module):
    """(images, quality) -> latents in units of the quantizer step of the middle quality."""

    def __init__(self, latent_channels: int, widths: Sequence[int], blocks: Sequence[int]):
        """``widths``, ``blocks``: of the residual networks at 1/4, 1/8 and 1/16 of the size."""
        super().__init__()
        quarter, eighth, latent = widths
        kernel, spread = basis(latent_channels)
        self.pixel = _Residual(3, quarter, blocks[0], 4)
        self.cell = _Residual(3, eighth, blocks[1], _CELL)
        self.linear = nn.Conv2d(3 * _CELL**2, latent_channels, 4, 2, 1)
        self.latent = _Residual(latent_channels, latent, blocks[2], 1, spread)
        with torch.no_grad():
            zero_weights(self.linear)
            self.linear.weight[:, :, 1:3, 1:3].copy_(kernel / MID_STEP)
        settle(self)

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """(B, M, H/16, W/16) of ``x: (B, 3, H, W)``, H and W multiples of 16, and ``quality: (B,)``."""
        x = self.cell(self.pixel(x, quality), quality)
        y = self.linear(channels_last(F.pixel_unshuffle(x, _CELL)))
        return self.latent(y, quality)


class DctSynthesis(nn.Module):
    """(latents, quality) -> images; the mirror of `DctAnalysis`."""

    def __init__(self, latent_channels: int, widths: Sequence[int], blocks: Sequence[int]):
        """``widths``, ``blocks``: of the residual networks at 1/4, 1/8 and 1/16 of the size."""
        super().__init__()
        quarter, eighth, latent = widths
        kernel, spread = basis(latent_channels, inverse=True)
        self.latent = _Residual(latent_channels, latent, blocks[2], 1, spread)
        self.linear = nn.ConvTranspose2d(latent_channels, 3 * _CELL**2, 4, 2, 1)
        self.cell = _Residual(3, eighth, blocks[1], _CELL)
        self.pixel = _Residual(3, quarter, blocks[0], 4)
        with torch.no_grad():
            nn.init.zeros_(self.linear.weight)
            assert self.linear.bias is not None
            nn.init.zeros_(self.linear.bias)
            self.linear.weight[:, :, 1:3, 1:3].copy_(kernel * MID_STEP)
        settle(self)

    def forward(self, y: Tensor, quality: Tensor) -> Tensor:
        """(B, 3, 16·h, 16·w) of ``y: (B, M, h, w)`` and ``quality: (B,)``."""
        x = F.pixel_shuffle(self.linear(self.latent(channels_last(y), quality)), _CELL)
        return self.pixel(self.cell(x, quality), quality)


class _Residual(nn.Module):
    """x + network(x) at 1/``patch`` of the size; the network is told the quality and starts as 0."""

    def __init__(self, channels: int, width: int, blocks: int, patch: int, spread: Tensor | None = None):
        """``spread``: (channels,) standard deviations of the input, which the first layer divides by."""
        super().__init__()
        # few sites of the latent are far from an edge in training
        padding_mode: PaddingMode = "zeros" if spread is None else "replicate"
        self.patch, self.blocks = patch, nn.ModuleList(_QualityBlock(width, padding_mode) for _ in range(blocks))
        if not blocks:
            return
        self.entrance = conv(channels * patch**2, width, 1)
        self.exit = zero_weights(conv(width, channels * patch**2, 1))
        if spread is not None:
            rescale(self.entrance.weight, 1 / spread.clamp_min(_SPREAD_MIN)[:, None, None])

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        if not self.blocks:
            return x
        h = self.entrance(channels_last(F.pixel_unshuffle(x, self.patch)))
        for block in self.blocks:
            h = block(h, quality)
        return x + F.pixel_shuffle(self.exit(h), self.patch)


class _QualityBlock(nn.Module):
    """Two 3x3 convolutions; between them the quality scales and shifts the channels (Perez et al. 2018)."""

    def __init__(self, width: int, padding_mode: PaddingMode):
        super().__init__()
        self.conv_in, self.conv_out = (conv(width, width, padding_mode=padding_mode) for _ in range(2))
        self.hidden, self.modulation = nn.Linear(1, 32), nn.Linear(32, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        modulation = self.modulation(F.relu(self.hidden(4 * quality[:, None] - 2)))
        return x + self.conv_out(F.relu(modulate(self.conv_in(x), modulation)))


@functools.cache
def basis(channels: int, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """(M, 3·64, 2, 2) orthonormal basis images of Y, Cr and Cb as RGB in cells of 8x8 px, and (M,) typical deviations.

    The lowest frequencies of each channel; a product with the basis images analyses, with ``inverse`` their sum
    synthesises. The deviations are those of photographs in steps of `MID_STEP`, from the fall of their spectra. Both
    are float32 on the CPU, wherever a model is built (arithmetic on the meta device takes torch seconds to import), and
    the same tensors at each call: not to be written into.
    """
    chroma = round(_CHROMA_SHARE * channels)
    counts = (channels - 2 * chroma, chroma, chroma)
    positions = np.arange(BLOCK_PX, dtype=np.float64)
    dct = np.cos(math.pi / BLOCK_PX * np.outer(positions, positions + 0.5)) * math.sqrt(2 / BLOCK_PX)
    dct[0] /= math.sqrt(2)
    distance = (positions[:, None] ** 2 + positions**2).ravel()
    order = distance.argsort(kind="stable")
    mix = YCRCB_TO_RGB.T if inverse else RGB_TO_YCRCB
    kernels, spreads = [], []
    for count, rgb, size in zip(counts, mix.double().numpy(), (1.0, 0.22, 0.22), strict=True):
        chosen = order[:count]
        planes = dct[chosen // BLOCK_PX, :, None] * dct[chosen % BLOCK_PX, None, :]  # (count, 16, 16)
        kernels.append(planes[:, None] * rgb[:, None, None])
        spreads.append(size * 4.5 / distance[chosen].clip(0.04) ** 0.6)
    images = torch.from_numpy(np.concatenate(kernels)).float()
    return F.pixel_unshuffle(images, _CELL), torch.from_numpy(np.concatenate(spreads)).float()
