"""The U-Net of all three systems: Scribano's latent denoiser and refiner, CDC's decoder, the diffusion autoencoder.

    x ─unshuffle─ entrance ─ level 0 ────────────────────────── level 0 ─ exit ─shuffle─ y
                               └─ level 1 ──────────── level 1 ──┘
                                    └─ lowest level ─────┘

A level is blocks on the way down, blocks on the way up, and attention behind either, where it is asked for. What the
way down ends with is concatenated to the input of the way up, once a level, as in CDC and Rampas 2024. Any height and
width from 1 on; nothing in the network depends on the size or on the other items of the batch. For clips layers along
time may stand behind each block; no stride is along time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from difflate.errors import ConfigError
from difflate.nn.layers import (
    Attention,
    ChannelNorm,
    DepthwiseBlock,
    Downsample,
    LinearAttention,
    NoiseEmbedding,
    ResidualBlock,
    Upsample,
    by_frame,
    channels_last,
    conv,
    settle,
    zero_weights,
)
from difflate.nn.padding import pad_to_multiple
from difflate.nn.temporal import Past, TemporalAttention, TemporalConv

AttentionKind = Literal["none", "linear", "full"]
BlockKind = Literal["residual", "depthwise"]
TemporalKind = Literal["none", "conv", "attention"]
_BLOCKS = {"residual": ResidualBlock, "depthwise": DepthwiseBlock}
_ATTENTION = {"linear": LinearAttention, "full": Attention}

_MAX_LEVELS = 12
_BOUNDS = (
    ("in_channels", 1, 1 << 14),
    ("out_channels", 1, 1 << 14),
    ("widths", 2, 1 << 14),
    ("blocks", 1, 256),
    ("up_blocks", 1, 256),
    ("up_repeats", 1, 16),
    ("head_width", 1, 1 << 14),
    ("patch", 1, 64),
    ("cond_channels", 0, 1 << 14),
    ("vector_channels", 0, 1 << 16),
)
"""A configuration comes from files: nothing in it may order more memory than a network can need."""


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a `UNet`; lists have one entry for each level, the highest resolution first."""

    in_channels: int = 3
    """Channels of x, without x0_prev and conditions."""
    out_channels: int = 3
    widths: list[int] | tuple[int, ...] = (64, 128, 256)
    """Channels of each level; each level has half the height and width of the one before."""
    blocks: list[int] | tuple[int, ...] = (2, 2, 2)
    """Blocks of each level on the way down."""
    up_blocks: list[int] | tuple[int, ...] | None = None
    """Blocks on the way up; null: as many as down."""
    up_repeats: int = 1
    """Times that each block on the way up is run, with the same weights; the one that merges two levels runs once."""
    block: BlockKind = "residual"
    """residual: two 3x3 convolutions; depthwise: a 3x3 convolution per channel and a perceptron."""
    attention: list[AttentionKind] | tuple[AttentionKind, ...] | None = None
    """none, linear or full for each level; null: none anywhere."""
    attention_each: bool = False
    """Attention behind each block of a level, not only behind the last."""
    head_width: int = 32
    """Channels of an attention head; divides the widths of the levels with attention."""
    patch: int = 1
    """Side of the patches that PixelUnshuffle moves into the channels; sizes that it does not divide are padded."""
    self_condition: bool = False
    """The network is also given its last x0 (Chen et al. 2023)."""
    cond_channels: list[int] | tuple[int, ...] | None = None
    """Channels of the spatial condition concatenated to each level's input on the way down; 0 or null: none."""
    vector_channels: int = 0
    """Length of the global condition that is added to the noise embedding; 0: none."""
    temporal: TemporalKind = "none"
    """For clips. conv: a causal convolution along time behind each block. attention: the same, and attention along time
    behind each attention. With either, attention sees each frame alone; with none it sees all frames of a clip at once,
    and nothing else sees more than one."""
    noise_scale: float = 1000.0
    """The noise condition times this should reach over about a thousand: 1000 for t and n/N, 25 for logSNR."""

    def __post_init__(self) -> None:
        levels = len(self.widths)
        if not 1 <= levels <= _MAX_LEVELS:
            raise ConfigError(f"`widths` (={levels} levels) must have from 1 to {_MAX_LEVELS}")
        for name in ("blocks", "up_blocks", "attention", "cond_channels"):
            value = getattr(self, name)
            if value is not None and len(value) != levels:
                raise ConfigError(f"`{name}` (={list(value)}) must have an entry for each of `widths` (={levels})")
        for name, least, most in _BOUNDS:
            values = getattr(self, name)
            for value in [values] if isinstance(values, int) else values or ():
                if not least <= value <= most:
                    raise ConfigError(f"`{name}` (={value}) must be from {least} to {most}")
        if not 0 < self.noise_scale < math.inf:
            raise ConfigError(f"`noise_scale` (={self.noise_scale}) must be above 0")
        if self.up_repeats > 1 and any(count == 1 for count in (self.up_blocks or self.blocks)[: levels - 1]):
            raise ConfigError(
                f"`up_repeats` (={self.up_repeats}) repeats nothing on a level of one block, which merges the skip; "
                "give the upper levels 2 or more in `up_blocks`"
            )
        if self.block not in _BLOCKS:
            raise ConfigError(f"`block` (={self.block!r}) must be one of {', '.join(_BLOCKS)}")
        if self.temporal not in get_args(TemporalKind):
            raise ConfigError(f"`temporal` (={self.temporal!r}) must be one of {', '.join(get_args(TemporalKind))}")
        for width, kind in zip(self.widths, self.attention or (), strict=False):
            if kind not in get_args(AttentionKind):
                raise ConfigError(f"`attention` (={kind!r}) must be one of {', '.join(get_args(AttentionKind))}")
            if kind != "none" and width % self.head_width:
                raise ConfigError(f"`widths` (={width}) must be divisible by `head_width` (={self.head_width})")

    @property
    def stride_px(self) -> int:
        """Pixels from one site of the lowest level to the next."""
        return self.patch << (len(self.widths) - 1)


def with_following(network: UNetConfig, follows: Mapping[str, Any], whence: str) -> UNetConfig:
    """``network`` with ``follows``, the settings that follow from others, those of ``whence``.

    Raises ConfigError for one that was given another value.
    """
    for key, value in follows.items():
        given = getattr(network, key)
        given = list(given) if isinstance(given, tuple) else given
        if given not in (getattr(UNetConfig, key), value):
            raise ConfigError(f"`{key}` (={given}) follows from {whence} (={value}); leave it out")
    return replace(network, **follows)


class _Path(nn.Module):
    """The blocks of a level in one direction, with its attention."""

    def __init__(self, config: UNetConfig, level: int, width_in: int, count: int, repeats: int = 1):
        super().__init__()
        width, embedding = config.widths[level], 2 * config.widths[0]
        kind = config.attention[level] if config.attention else "none"
        self.repeats = repeats
        self.blocks = nn.ModuleList(
            _BLOCKS[config.block](width_in if i == 0 else width, width, embedding) for i in range(count)
        )
        behind = [kind != "none" and (config.attention_each or i == count - 1) for i in range(count)]
        self.attention = nn.ModuleList(
            _ATTENTION[kind](width, config.head_width) if there else nn.Identity() for there in behind
        )
        # of a network of images these two are empty
        temporal = config.temporal != "none"
        self.convs = nn.ModuleList(TemporalConv(width) for _ in range(count * temporal))
        self.looks = nn.ModuleDict(
            {
                str(i): TemporalAttention(width, config.head_width)
                for i, there in enumerate(behind)
                if there and config.temporal == "attention"
            }
        )

    def forward(self, x: Tensor, embedding: Tensor, save_memory: bool, past: Past | None) -> Tensor:
        for turn in range(self.repeats):
            for number, block in enumerate(self.blocks):
                if turn and block.width_in != x.shape[1]:
                    continue  # it merges what comes from elsewhere, which is done once
                if save_memory:
                    x = checkpoint(self._step, number, x, embedding, past, use_reentrant=False)
                else:
                    x = self._step(number, x, embedding, past)
        return x

    def _step(self, number: int, x: Tensor, embedding: Tensor, past: Past | None) -> Tensor:
        """A block with all that stands behind it."""
        x = self.blocks[number](x, embedding)
        if not self.convs:
            return self.attention[number](x)
        x = by_frame(self.attention[number], self.convs[number](x, past))
        return self.looks[str(number)](x, past) if str(number) in self.looks else x


class UNet(nn.Module):
    """The network ``(x, noise condition[, x0_prev]) -> target`` that `difflate.diffusion` calls a model."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        """Compute the blocks again going back instead of keeping what is inside of them; for training."""
        widths, lowest = config.widths, len(config.widths) - 1
        embedding, area = 2 * widths[0], config.patch**2
        conds = config.cond_channels or [0] * len(widths)
        up_blocks = config.up_blocks or config.blocks
        self.unshuffle, self.shuffle = nn.PixelUnshuffle(config.patch), nn.PixelShuffle(config.patch)
        self.noise_embedding = NoiseEmbedding(widths[0], embedding, config.noise_scale)
        self.vector_embedding = nn.Linear(config.vector_channels, embedding) if config.vector_channels else None
        inputs = config.in_channels + (config.out_channels if config.self_condition else 0)
        self.entrance = conv(inputs * area, widths[0])
        self.down = nn.ModuleList(_Path(config, i, widths[i] + conds[i], config.blocks[i]) for i in range(len(widths)))
        self.up = nn.ModuleList(
            _Path(config, i, widths[i] * (1 if i == lowest else 2), up_blocks[i], config.up_repeats)
            for i in range(len(widths))
        )
        self.downsample = nn.ModuleList(Downsample(widths[i], widths[i + 1]) for i in range(lowest))
        self.upsample = nn.ModuleList(Upsample(widths[i + 1], widths[i]) for i in range(lowest))
        self.norm = ChannelNorm(widths[0])
        self.exit = zero_weights(conv(widths[0], config.out_channels * area))
        settle(self)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        x0_prev: Tensor | None = None,
        *,
        spatial: Sequence[Tensor | None] = (),
        vector: Tensor | None = None,
        past: Past | None = None,
    ) -> Tensor:
        """(B, out_channels, H, W) of ``x: (B, in_channels, H, W)`` and the noise ``condition: (B,)``.

        ``x0_prev``: (B, out_channels, H, W), with `self_condition`. ``spatial``: for each level with `cond_channels` a
        condition (B, cond_channels, ⌈H/(patch·2^level)⌉, ⌈W/(patch·2^level)⌉). ``vector``: (B, vector_channels).
        Clips have T before H everywhere; with `temporal` they are clips. ``past``: of a clip that comes in chunks, see
        `difflate.nn.temporal`. Raises ConfigError for a condition that the network does not take, or lacks.
        """
        height, width = x.shape[-2:]
        if self.config.self_condition:
            if x0_prev is None:
                raise ConfigError("`x0_prev` is missing; the network is self-conditioned: give zeros at first")
            x = torch.cat([x, x0_prev], dim=1)
        elif x0_prev is not None:
            raise ConfigError("`x0_prev` is given to a network without `self_condition`; leave it out")
        embedding = F.silu(self._embed(condition, vector))
        if self.config.patch > 1:  # of 1 it would copy all channels
            x = by_frame(self.unshuffle, pad_to_multiple(x, self.config.patch))
        x = self.entrance(channels_last(x))
        save_memory = self.gradient_checkpointing and self.training
        kept: list[Tensor] = []
        conds = self._conditions(spatial)
        for level, path in enumerate(self.down):
            cond = conds[level]
            if cond is not None:
                if cond.shape[2:] != x.shape[2:]:
                    raise ConfigError(
                        f"`spatial[{level}]` (={_size(cond)}) must be as large as that level (={_size(x)})"
                    )
                x = torch.cat([x, cond], dim=1)
            x = path(x, embedding, save_memory, past)
            if level < len(self.downsample):
                kept.append(x)
                x = self.downsample[level](x)
        x = self.up[-1](x, embedding, save_memory, past)
        for level in reversed(range(len(self.upsample))):
            same = kept.pop()
            x = torch.cat([self.upsample[level](x, same.shape[2:]), same], dim=1)
            x = self.up[level](x, embedding, save_memory, past)
        y = self.exit(F.silu(self.norm(x)))
        if self.config.patch > 1:
            y = by_frame(self.shuffle, y)
        return y[..., :height, :width]

    def _embed(self, condition: Tensor, vector: Tensor | None) -> Tensor:
        embedding = self.noise_embedding(condition)
        length = 0 if vector is None else vector.shape[1]
        if length != self.config.vector_channels:
            raise ConfigError(
                f"`vector` (={length} values) must have `vector_channels` (={self.config.vector_channels})"
            )
        return embedding if self.vector_embedding is None else embedding + self.vector_embedding(vector)

    def _conditions(self, spatial: Sequence[Tensor | None]) -> list[Tensor | None]:
        channels = list(self.config.cond_channels or [0] * len(self.down))
        given = list(spatial) + [None] * (len(channels) - len(spatial))
        widths = [0 if cond is None else cond.shape[1] for cond in given]
        if widths != channels:
            raise ConfigError(f"`spatial` (channels {widths}) must have `cond_channels` (={channels}), level by level")
        return given


def _size(x: Tensor) -> str:
    return " x ".join(map(str, x.shape[2:]))


def multiply_adds(config: UNetConfig, height: int, width: int) -> int:
    """Multiplications of one forward pass for an image, or a frame, of that size, counted on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    def blank(channels: int, *size: int) -> Tensor | None:
        size = (1, *size) if config.temporal != "none" and size else size
        return torch.empty(1, channels, *size, dtype=torch.float32) if channels else None

    with torch.device("meta"):
        network = UNet(config)
        x = blank(config.in_channels, height, width)
        assert x is not None
        prev = blank(config.out_channels, height, width) if config.self_condition else None
        high, wide = -(-height // config.patch), -(-width // config.patch)
        spatial = []
        for channels in config.cond_channels or ():
            spatial.append(blank(channels, high, wide))
            high, wide = -(-high // 2), -(-wide // 2)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(x, torch.empty(1, dtype=torch.float32), prev, spatial=spatial, vector=blank(config.vector_channels))
    return counter.get_total_flops() // 2


def reach_px(config: UNetConfig) -> int:
    """A pixel of the output depends on none of the input that is further away, sideways or down; attention aside."""
    each = 2 if config.block == "residual" else 1
    lowest = len(config.widths) - 1
    radius = 0  # of a level and those below it, in its own sites
    for level in reversed(range(len(config.widths))):
        if level < lowest:
            radius = 2 * radius + 3  # a convolution of stride 2, the level below, the nearest site, a convolution
        radius += each * (config.blocks[level] + (config.up_blocks or config.blocks)[level] * config.up_repeats)
    return (radius + 2) * config.patch + config.patch - 1  # entrance and exit


def parameters(module: nn.Module) -> int:
    """Number of trained numbers of ``module``."""
    return sum(math.prod(p.shape) for p in module.parameters())
