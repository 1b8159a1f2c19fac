"""Temporal compression: several frames' features to one latent frame, and back (Rampas 2024, 3.4.1).

    features, f_t frames ─ fold into channels ─ 1x1 ─ layers ─▶ one latent frame
    f_t frames ◀─ unfold from channels ─ 1x1 ─ layers ─ one latent frame

The thesis projects each frame alike and takes the mean over time. That keeps only what the frames of a group have in
common: a clip and its reverse become the same latent. Folding time into channels first keeps their order.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from difflate.errors import ConfigError
from difflate.nn.layers import by_frame, conv, settle
from difflate.nn.temporal import Past, TemporalConv
from difflate.nn.transforms import Block

FoldingKind = Literal["fold", "mean"]
_RATIOS = (1, 2, 4, 8, 16)
_MAX_WIDTH = 1 << 14


@dataclass(frozen=True)
class FoldingConfig:
    """Shape of a temporal compression and what undoes it."""

    ratio: int = 4
    """f_t: frames to a latent frame, 1, 2, 4, 8 or 16."""
    kind: FoldingKind = "fold"
    """fold: time moved into channels. mean: the thesis' projection and mean, for each factor of 2 one."""
    features: int = 64
    """Channels of each frame, of what the encoder gives and of what decoders are told."""
    width: int = 192
    """fold: channels of the layers between."""
    blocks: int = 1
    """fold: of these, each a residual block of every frame and a causal convolution along time."""

    def __post_init__(self) -> None:
        if self.ratio not in _RATIOS:
            raise ConfigError(f"`ratio` (={self.ratio}) must be one of {', '.join(map(str, _RATIOS))}")
        if self.kind not in get_args(FoldingKind):
            raise ConfigError(f"`kind` (={self.kind!r}) must be one of {', '.join(get_args(FoldingKind))}")
        for key in ("features", "width"):
            if not 1 <= getattr(self, key) <= _MAX_WIDTH:
                raise ConfigError(f"`{key}` (={getattr(self, key)}) must be from 1 to {_MAX_WIDTH}")
        if not 0 <= self.blocks <= 64:
            raise ConfigError(f"`blocks` (={self.blocks}) must be from 0 to 64")

    def latent_frames(self, frames: int) -> int:
        """Of a clip of ``frames`` frames: the last one may stand for fewer."""
        return -(-frames // self.ratio)


class _Layers(nn.Module):
    """What compression and its inverse have between their projections."""

    def __init__(self, width: int, count: int):
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, width) for _ in range(count))
        self.convs = nn.ModuleList(TemporalConv(width) for _ in range(count))

    def forward(self, x: Tensor, past: Past | None) -> Tensor:
        for block, temporal in zip(self.blocks, self.convs, strict=True):
            x = temporal(by_frame(block, x), past)
        return x


class Compression(nn.Module):
    """Features of frames to those of latent frames."""

    def __init__(self, config: FoldingConfig, channels: int):
        """``channels``: of a latent frame."""
        super().__init__()
        self.config = config
        if config.kind == "mean":
            self.projections = nn.ModuleList(
                conv(config.features, config.features, 1) for _ in range(config.ratio.bit_length() - 1)
            )
            self.exit = conv(config.features, channels, 1)
        else:
            self.entrance = conv(config.features * config.ratio, config.width, 1)
            self.layers = _Layers(config.width, config.blocks)
            self.exit = conv(config.width, channels)
        settle(self)

    def forward(self, features: Tensor, past: Past | None = None) -> Tensor:
        """(B, channels, T/f_t, h, w) of ``features: (B, features, T, h, w)``; f_t divides T."""
        if self.config.kind == "mean":
            for projection in self.projections:
                features = projection(features).unflatten(2, (-1, 2)).mean(3)
            return self.exit(features)
        return self.exit(self.layers(self.entrance(fold(features, self.config.ratio)), past))


class Expansion(nn.Module):
    """Latent frames to what decoders are told of each frame."""

    def __init__(self, config: FoldingConfig, channels: int):
        """``channels``: of a latent frame."""
        super().__init__()
        self.config = config
        if config.kind == "mean":
            self.entrance = conv(channels, config.features, 1)
            self.projections = nn.ModuleList(
                conv(config.features, 2 * config.features, 1) for _ in range(config.ratio.bit_length() - 1)
            )
        else:
            self.entrance = conv(channels, config.width)
            self.layers = _Layers(config.width, config.blocks)
            self.exit = conv(config.width, config.features * config.ratio, 1)
        settle(self)

    def forward(self, z: Tensor, past: Past | None = None) -> Tensor:
        """(B, features, f_t·T', h, w) of ``z: (B, channels, T', h, w)``."""
        x = self.entrance(z)
        if self.config.kind == "mean":
            for projection in self.projections:
                x = unfold(projection(x), 2)
            return x
        return unfold(self.exit(self.layers(x, past)), self.config.ratio)


def fold(x: Tensor, ratio: int) -> Tensor:
    """(B, ratio·C, T/ratio, H, W) of ``x: (B, C, T, H, W)``: the channels of the first frame of each group first."""
    return x.unflatten(2, (-1, ratio)).transpose(2, 3).transpose(1, 2).flatten(1, 2)


def unfold(x: Tensor, ratio: int) -> Tensor:
    """The inverse of `fold`: (B, C, ratio·T', H, W) of ``x: (B, ratio·C, T', H, W)``."""
    return x.unflatten(1, (ratio, -1)).transpose(1, 2).transpose(2, 3).flatten(2, 3)


def padded(frames: Tensor, ratio: int) -> Tensor:
    """``frames: (B, C, T, H, W)`` with the last one repeated until ``ratio`` divides their number."""
    missing = -frames.shape[2] % ratio
    return torch.cat([frames, frames[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2) if missing else frames
