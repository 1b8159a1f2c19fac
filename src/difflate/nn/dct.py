"""Transforms that start as the 16x16 block DCT of YCbCr, and learn what is better.

A linear layer, whose windows of 32x32 pixels overlap, starts as the block DCT with zeros around it. Before and behind
it stand residual networks whose last layers start at 0. So the first step of a training compresses about as well as
JPEG does, and every part of the network improves on that from then on.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.nn.colour import RGB_TO_YCRCB, YCRCB_TO_RGB
from difflate.nn.layers import PaddingMode, conv, zeroed
from difflate.nn.transforms import STRIDE, TransformConfig

_CELL = 8
"""Pixels that the linear layer's convolution takes together: windows are 4 cells wide, 2 apart."""
_CHROMA_SHARE = 0.16
"""Of the latent's channels, for each of Cr and Cb."""
MID_STEP = 36 / 127.5
"""Quantizer step in the middle of the quality range, of pixels in [-1, 1]: √(6/(λ·ln 2)) at λ = .0067 in 8-bit units,
where the slope of a uniform quantizer's distortion is that of its rate."""

_SPREAD_MIN = 0.2
"""So small a deviation is mostly the quantizer's noise."""


class DctAnalysis(nn.Module):
    """(images, level) -> latents in units of the quantizer step of the middle quality."""

    def __init__(self, config: TransformConfig):
        super().__init__()
        quarter, eighth, latent = config.widths
        blocks = config.blocks
        kernel, spread = basis(config.latent_channels)
        self.pixel = _Residual(3, quarter, blocks[0], 4)
        self.cell = _Residual(3, eighth, blocks[1], _CELL)
        self.linear = nn.Conv2d(3 * _CELL**2, config.latent_channels, 4, 2, 1)
        self.latent = _Residual(config.latent_channels, latent, blocks[2], 1, spread)
        with torch.no_grad():
            zeroed(self.linear)
            self.linear.weight[:, :, 1:3, 1:3] = kernel / MID_STEP
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """(B, M, H/16, W/16) of ``x: (B, 3, H, W)``, H and W multiples of 16, and ``level: (B,)``."""
        x = self.cell(self.pixel(x, level), level)
        y = self.linear(_channels_last(F.pixel_unshuffle(x, _CELL)))
        return self.latent(y, level)


class DctSynthesis(nn.Module):
    """(latents, level) -> images; the mirror of `DctAnalysis`."""

    def __init__(self, config: TransformConfig):
        super().__init__()
        quarter, eighth, latent = config.widths
        blocks = config.blocks
        kernel, spread = basis(config.latent_channels, inverse=True)
        self.latent = _Residual(config.latent_channels, latent, blocks[2], 1, spread)
        self.linear = nn.ConvTranspose2d(config.latent_channels, 3 * _CELL**2, 4, 2, 1)
        self.cell = _Residual(3, eighth, blocks[1], _CELL)
        self.pixel = _Residual(3, quarter, blocks[0], 4)
        with torch.no_grad():
            nn.init.zeros_(self.linear.weight)
            assert self.linear.bias is not None
            nn.init.zeros_(self.linear.bias)
            self.linear.weight[:, :, 1:3, 1:3] = kernel * MID_STEP
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, y: Tensor, level: Tensor) -> Tensor:
        """(B, 3, 16·h, 16·w) of ``y: (B, M, h, w)`` and ``level: (B,)``."""
        x = F.pixel_shuffle(self.linear(self.latent(_channels_last(y), level)), _CELL)
        return self.pixel(self.cell(x, level), level)


class _Residual(nn.Module):
    """x + network(x) at 1/``patch`` of the size; the network sees the quality level and starts as 0."""

    def __init__(self, channels: int, width: int, blocks: int, patch: int, spread: Tensor | None = None):
        """``spread``: (channels,) standard deviations of the input, which the first layer divides by."""
        super().__init__()
        # few sites of the latent are far from an edge in training
        padding_mode: PaddingMode = "zeros" if spread is None else "replicate"
        self.patch, self.blocks = patch, nn.ModuleList(_LevelBlock(width, padding_mode) for _ in range(blocks))
        if not blocks:
            return
        self.entrance = conv(channels * patch**2, width, 1)
        self.exit = zeroed(conv(width, channels * patch**2, 1))
        if spread is not None:
            with torch.no_grad():
                self.entrance.weight /= spread.clamp_min(_SPREAD_MIN)[None, :, None, None]

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        if not self.blocks:
            return x
        h = self.entrance(_channels_last(F.pixel_unshuffle(x, self.patch)))
        for block in self.blocks:
            h = block(h, level)
        return x + F.pixel_shuffle(self.exit(h), self.patch)


class _LevelBlock(nn.Module):
    """Two 3x3 convolutions; between them the quality level scales and shifts the channels (Perez et al. 2018)."""

    def __init__(self, width: int, padding_mode: PaddingMode):
        super().__init__()
        self.conv_in, self.conv_out = (conv(width, width, padding_mode=padding_mode) for _ in range(2))
        self.hidden, self.modulation = nn.Linear(1, 32), nn.Linear(32, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.modulation(F.relu(self.hidden(4 * level[:, None] - 2)))[:, :, None, None].chunk(2, 1)
        h = torch.addcmul(shift, self.conv_in(x), 1 + scale)
        return x + self.conv_out(F.relu(h))


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def basis(channels: int, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """(M, 3·64, 2, 2) orthonormal basis images of Y, Cr and Cb as RGB in cells of 8x8 px, and (M,) typical deviations.

    The lowest frequencies of each channel; a product with the basis images analyses, with ``inverse`` their sum
    synthesises. The deviations are those of photographs in steps of `MID_STEP`, from the fall of their spectra.
    """
    with torch.device("cpu"):  # where a model of another device is built, too
        cells, spread = _basis(channels, inverse)
    here = torch.empty(0).device
    return cells.to(here), spread.to(here)


def _basis(channels: int, inverse: bool) -> tuple[Tensor, Tensor]:
    chroma = round(_CHROMA_SHARE * channels)
    counts = (channels - 2 * chroma, chroma, chroma)
    positions = torch.arange(STRIDE, dtype=torch.float64)
    dct = torch.cos(math.pi / STRIDE * torch.outer(positions, positions + 0.5)) * math.sqrt(2 / STRIDE)
    dct[0] /= math.sqrt(2)
    distance = positions[:, None].square() + positions[None].square()
    order = distance.flatten().argsort(stable=True)
    mix = YCRCB_TO_RGB.T if inverse else RGB_TO_YCRCB
    kernels, spreads = [], []
    for channel, count in enumerate(counts):
        rows, columns = order[:count] // STRIDE, order[:count] % STRIDE
        planes = dct[rows][:, :, None] * dct[columns][:, None, :]  # (count, 16, 16)
        kernels.append(planes[:, None] * mix[channel].double()[None, :, None, None])
        spread = 4.5 / distance.flatten()[order[:count]].clamp_min(0.04) ** 0.6
        spreads.append((1.0 if channel == 0 else 0.22) * spread)
    images = torch.cat(kernels).float()
    cells = F.pixel_unshuffle(images, _CELL)
    return cells, torch.cat(spreads).float()
