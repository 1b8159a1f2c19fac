"""Encoders to a coarse latent of few channels, and the plain decoders that mirror them.

    images ─unshuffle─ entrance ─ level 0 ─↓2─ level 1 ─↓2─ … ─ exit ─ features
    images ◀─shuffle── exit ──── level 0 ─↑2─ level 1 ─↑2─ … ─ entrance ─ z

Beside each change of size goes a shortcut without weights, space moved into channels and back, which is what keeps
strides of 16 and 32 pixels trainable (Chen et al. 2024, DC-AE).
"""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.errors import ConfigError
from difflate.nn.layers import channels_last, conv, settle
from difflate.nn.padding import pad_to_multiple
from difflate.nn.transforms import Block

_MAX_WIDTH, _MAX_STRIDE_PX = 1 << 14, 256


@dataclass(frozen=True)
class ConvConfig:
    """Shape of a convolutional encoder, or of a decoder; the first entry is the highest resolution."""

    widths: list[int] | tuple[int, ...] = (64, 128, 256)
    """Channels of each level; each has half the height and width of the one before."""
    blocks: list[int] | tuple[int, ...] = (1, 1, 2)
    """Residual blocks of each level."""
    patch: int = 4
    """Side of the patches of pixels that are a site of the first level."""

    def __post_init__(self) -> None:
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ConfigError(f"`blocks` (={list(self.blocks)}) must have an entry for each of `widths`, and be one")
        if not all(4 <= width <= _MAX_WIDTH and width % 4 == 0 for width in self.widths):
            raise ConfigError(f"`widths` (={list(self.widths)}) must be multiples of 4, up to {_MAX_WIDTH}")
        if not all(0 <= count <= 256 for count in self.blocks):
            raise ConfigError(f"`blocks` (={list(self.blocks)}) must be from 0 to 256")
        if not 1 <= self.patch <= 64 or self.stride_px > _MAX_STRIDE_PX:
            raise ConfigError(f"`patch` (={self.patch}) must be from 1 to 64, the stride at most {_MAX_STRIDE_PX} px")
        for finer, coarser in zip(self.widths, self.widths[1:], strict=False):
            if (4 * finer) % coarser:
                raise ConfigError(f"`widths` (={list(self.widths)}) must each divide four times the one before")

    @property
    def stride_px(self) -> int:
        """Pixels between two sites of the lowest level."""
        return self.patch << (len(self.widths) - 1)


class ConvEncoder(nn.Module):
    """Images to features at 1/stride of their size."""

    is_local = True
    """Whether tiles that overlap by `reach` give what the whole image gives."""

    def __init__(self, config: ConvConfig, channels: int):
        """``channels``: of the features."""
        super().__init__()
        widths = list(config.widths)
        self.stride_px, self.channels = config.stride_px, channels
        self.reach = conv_reach_sites(config)
        self.unshuffle = nn.PixelUnshuffle(config.patch)
        self.entrance = conv(3 * config.patch**2, widths[0])
        self.levels = nn.ModuleList(
            nn.Sequential(*(Block(width, width) for _ in range(count)))
            for width, count in zip(widths, config.blocks, strict=True)
        )
        self.down = nn.ModuleList(_Down(finer, coarser) for finer, coarser in itertools.pairwise(widths))
        self.exit = conv(widths[-1], channels)
        settle(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, ⌈H/s⌉, ⌈W/s⌉) of ``images: (B, 3, H, W)`` in [-1, 1], s = `stride_px`."""
        x = self.entrance(channels_last(self.unshuffle(pad_to_multiple(images, self.stride_px))))
        for number, level in enumerate(self.levels):
            x = level(x)
            if number < len(self.down):
                x = self.down[number](x)
        return self.exit(x)


class ConvDecoder(nn.Module):
    """Latents to images of their stride times their size, in one pass."""

    def __init__(self, config: ConvConfig, channels: int):
        """``channels``: of the latent."""
        super().__init__()
        widths = list(config.widths)
        self.stride_px = config.stride_px
        self.entrance = conv(channels, widths[-1])
        self.levels = nn.ModuleList(
            nn.Sequential(*(Block(width, width) for _ in range(count)))
            for width, count in zip(widths, config.blocks, strict=True)
        )
        self.up = nn.ModuleList(_Up(coarser, finer) for finer, coarser in itertools.pairwise(widths))
        self.exit = conv(widths[0], 3 * config.patch**2)
        self.shuffle = nn.PixelShuffle(config.patch)
        settle(self)

    def forward(self, z: Tensor) -> Tensor:
        """(B, 3, s·h, s·w) in about [-1, 1] of ``z: (B, channels, h, w)``; the caller crops."""
        x = self.entrance(channels_last(z))
        for number in reversed(range(len(self.levels))):
            x = self.levels[number](x)
            if number:
                x = self.up[number - 1](x)
        return self.shuffle(self.exit(x))

    @property
    def last_layer(self) -> Tensor:
        """The weights that make the pixels: where an adversary's weight is measured (Esser et al. 2021)."""
        return self.exit.weight


class _Down(nn.Module):
    """Half the height and width; the shortcut is 2x2 pixels as channels, means of groups of them."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.conv = conv(width_in, width, stride=2)
        self.groups = 4 * width_in // width

    def forward(self, x: Tensor) -> Tensor:
        moved = F.pixel_unshuffle(x, 2)
        return self.conv(x) + moved.unflatten(1, (-1, self.groups)).mean(2)


class _Up(nn.Module):
    """Twice the height and width; the shortcut is channels as 2x2 pixels, repeated as `_Down` takes means."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.conv = conv(width_in, 4 * width)
        self.repeats = 4 * width // width_in

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x) + x.repeat_interleave(self.repeats, 1), 2)


def conv_reach_sites(config: ConvConfig) -> int:
    """A value of the lowest level, or of what is decoded from it, depends on none that is further away, in sites."""
    radius = 1.0  # exit and entrance at the lowest level
    for level in range(len(config.widths)):
        sites = 2.0 ** (level + 1 - len(config.widths))  # of this level, in those of the lowest
        radius += sites * (2 * config.blocks[level] + 2)
    return math.ceil(radius) + 1


def resize_to(z: Tensor, rows: int, columns: int) -> Tensor:
    """(B, C, ``rows``, ``columns``) the nearest of ``z: (B, C, h, w)``."""
    return F.interpolate(z, size=(rows, columns), mode="nearest") if z.shape[2:] != torch.Size((rows, columns)) else z
