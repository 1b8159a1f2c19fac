"""Analysis and synthesis transforms: images to latents at 1/16 of their height and width, and back.

Three kinds: `gdn` (Ballé et al. 2018), `residual` (the layout of Yang & Mandt 2023), and `dct`, whose first and last
layers start as a block transform, so that training begins where JPEG is (`difflate.nn.dct`).

All take (B, 3, H, W) float32 in [-1, 1] and a quality (B,) in [0, 1], and any height and width from 1 on.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.errors import ConfigError
from difflate.nn.dct import DctAnalysis, DctSynthesis
from difflate.nn.entropy_models import lower_bound
from difflate.nn.layers import channels_last, conv, settle

TransformKind = Literal["dct", "gdn", "residual"]
LMBDA_MIDDLE = 0.0067
"""λ in the middle of the quality range, in bits per squared error of one 8-bit step: transforms count in the quantizer
step that is best there, what the synthesis leaves was measured from there, and losses are weighted relative to it."""
_MAX_CHANNELS = 4096
_DCT_MAX_CHANNELS = 376


@dataclass(frozen=True)
class TransformConfig:
    """Shape of an analysis and a synthesis transform, which mirror each other."""

    kind: TransformKind = "dct"
    latent_channels: int = 256
    """Channels M of the latent y."""
    widths: list[int] | tuple[int, ...] = (64, 128, 192)
    """gdn, residual: channels at 1/2, 1/4 and 1/8 of the size. dct: of the networks at 1/4, 1/8 and 1/16."""
    blocks: list[int] | tuple[int, ...] = (1, 1, 2)
    """dct only: residual blocks of each network."""
    analysis_blocks: list[int] | tuple[int, ...] | None = None
    """dct only: those of the analysis, if it has others: it runs once, the synthesis wherever a file is read."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(TransformKind):
            raise ConfigError(f"`kind` (={self.kind!r}) must be one of {', '.join(get_args(TransformKind))}")
        if len(self.widths) != 3 or len(self.blocks) != 3:
            raise ConfigError(f"`widths` and `blocks` (={list(self.widths)}, {list(self.blocks)}) must have 3 entries")
        if not all(1 <= n <= _MAX_CHANNELS for n in (*self.widths, self.latent_channels)):
            raise ConfigError(f"`widths` and `latent_channels` must be from 1 to {_MAX_CHANNELS}")
        if self.kind == "dct" and self.latent_channels > _DCT_MAX_CHANNELS:
            raise ConfigError(
                f"`latent_channels` (={self.latent_channels}) must be at most {_DCT_MAX_CHANNELS} for dct: a block has "
                "256 frequencies of brightness"
            )
        if not all(0 <= n <= 64 for n in self.blocks):
            raise ConfigError(f"`blocks` (={list(self.blocks)}) must be from 0 to 64")
        own = self.analysis_blocks
        if own is not None and (self.kind != "dct" or len(own) != 3 or not all(0 <= n <= 64 for n in own)):
            raise ConfigError(f"`analysis_blocks` (={list(own)}) must be 3 numbers from 0 to 64, of the kind dct")

    @property
    def stride_px(self) -> int:
        """Pixels between two sites of the latent, down and sideways."""
        return 2 << len(self.widths)  # sizes are halved to come to each width, and once more to the latent


def transforms(config: TransformConfig) -> tuple[nn.Module, nn.Module]:
    """(analysis, synthesis) of a kind: (images, quality) -> latents, (latents, quality) -> images."""
    if config.kind == "dct":
        shape = config.latent_channels, config.widths
        return DctAnalysis(*shape, config.analysis_blocks or config.blocks), DctSynthesis(*shape, config.blocks)
    halves = _gdn(config) if config.kind == "gdn" else _residual(config)
    return _Plain(halves[0]), _Plain(halves[1])


class GDN(nn.Module):
    """x / √(β + γ·x²) over the channels of each pixel, or its inverse x·√(β + γ·x²) (Ballé et al. 2016)."""

    def __init__(self, width: int, inverse: bool = False):
        super().__init__()
        self.inverse = inverse
        # stored as square roots, which keeps both positive and their gradients alive near 0
        self.beta = nn.Parameter(torch.ones(width, dtype=torch.float32))
        self.gamma = nn.Parameter((0.1 * torch.eye(width, dtype=torch.float32) + _PEDESTAL).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """``x: (B, C, H, W)``, same shape."""
        beta = lower_bound(self.beta, _BETA_MIN).square()
        gamma = lower_bound(self.gamma, _PEDESTAL**0.5).square() - _PEDESTAL
        norm = F.conv2d(x.square(), gamma[:, :, None, None], beta)
        if not torch.is_grad_enabled():  # new memory takes longer than the arithmetic
            return (norm.sqrt_() if self.inverse else norm.rsqrt_()).mul_(x)
        return x * (norm.sqrt() if self.inverse else norm.rsqrt())


_PEDESTAL = 2.0**-36
_BETA_MIN = 1e-3


def _gdn(config: TransformConfig) -> tuple[nn.Sequential, nn.Sequential]:
    a, b, c = config.widths
    m = config.latent_channels
    down, up = nn.Sequential(), nn.Sequential()
    for before, after in ((3, a), (a, b), (b, c), (c, m)):
        down.append(conv(before, after, 5, stride=2))
        if len(down) < 7:
            down.append(GDN(after))
    for before, after in ((m, c), (c, b), (b, a), (a, 3)):
        up.append(nn.ConvTranspose2d(before, after, 5, 2, 2, 1))
        if len(up) < 7:
            up.append(GDN(after, inverse=True))
    return down, up


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.conv_in, self.conv_out = conv(width_in, width), conv(width, width)
        self.shortcut = conv(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) of ``x: (B, width_in, H, W)``."""
        h = F.leaky_relu(self.conv_in(x), 0.2)
        return self.shortcut(x) + F.leaky_relu(self.conv_out(h), 0.2)


def _residual(config: TransformConfig) -> tuple[nn.Sequential, nn.Sequential]:
    sizes = (*config.widths, config.latent_channels)
    down, up, before = nn.Sequential(), nn.Sequential(), 3
    for width in sizes:
        down.extend([Block(before, width), conv(width, width, stride=2)])
        before = width
    for width in (*reversed(config.widths), 3):
        up.extend([Block(before, before), nn.ConvTranspose2d(before, width, 4, 2, 1)])
        before = width
    return down, up


class _Plain(nn.Module):
    """A transform that is the same at all qualities; gains alone set the rate (Cui et al. 2021)."""

    def __init__(self, layers: nn.Sequential):
        super().__init__()
        self.layers = layers
        settle(self)

    def forward(self, x: Tensor, quality: Tensor) -> Tensor:
        """Latents of images, or images of latents; ``quality`` is not used."""
        return self.layers(channels_last(x))
