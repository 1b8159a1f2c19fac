"""The layers of the U-Net, for images (B, C, H, W) and clips (B, C, T, H, W) alike.

Convolutions see each frame of a clip alone, attention all frames together. All are fastest in channels-last.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.diffusion.process import expand

PaddingMode = Literal["zeros", "replicate"]


def channels_last(x: Tensor) -> Tensor:
    """``x: (B, C, H, W)`` or (B, C, T, H, W), in memory with the channels last."""
    return x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)


def settle(network: nn.Module) -> None:
    """Makes all of ``network`` float32, whatever torch's default is, and its convolutions channels-last."""
    network.to(torch.float32)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.no_grad()
def rescale(parameter: Tensor, factor: float | Tensor) -> None:
    """Multiplies the initial values of ``parameter`` by ``factor``; on the meta device there are none."""
    if not parameter.is_meta:  # arithmetic there takes torch seconds to import
        parameter.mul_(factor.to(parameter.device) if isinstance(factor, Tensor) else factor)


def by_frame(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``layer``, which takes images, applied to ``x: (B, C, H, W)``, or to each frame of ``x: (B, C, T, H, W)``."""
    if x.ndim == 4:
        return layer(x)
    frames = layer(frames_of(x))
    return frames.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


def frames_of(x: Tensor) -> Tensor:
    """(B·T, C, H, W): the frames of ``x: (B, C, T, H, W)``, clip after clip; images (B, C, H, W) as they are."""
    return x if x.ndim == 4 else x.transpose(1, 2).flatten(0, 1)


class ChannelNorm(nn.LayerNorm):
    """Each pixel's channels with mean 0 and variance 1.

    All three papers' networks normalise so. Unlike group normalisation it is local: a pixel depends on no far one, so
    an image may be computed in tiles, and its size changes nothing. In channels-last it is the faster one as well.
    """

    def __init__(self, width: int, affine: bool = True):
        super().__init__(width, eps=1e-6, elementwise_affine=affine)

    def forward(self, input: Tensor) -> Tensor:
        """``input: (B, C, …)``, same shape."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class Conv(nn.Conv2d):
    """A convolution of images, or of each frame of clips."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C', …, H', W') of ``input: (B, C, …, H, W)``."""
        return by_frame(super().forward, input)


def conv(
    width_in: int,
    width_out: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    padding_mode: PaddingMode = "zeros",
) -> Conv:
    """A convolution that keeps the size of the image, or divides it by ``stride``, rounded up."""
    return Conv(
        width_in, width_out, kernel, stride=stride, padding=kernel // 2, groups=groups, padding_mode=padding_mode
    )


def zero_weights(module: nn.Conv2d) -> nn.Conv2d:
    """``module`` with weights and bias 0: a residual branch that ends so starts as the identity."""
    nn.init.zeros_(module.weight)
    assert module.bias is not None
    nn.init.zeros_(module.bias)
    return module


class NoiseEmbedding(nn.Module):
    """Sines and cosines of the noise condition, then a perceptron of one hidden layer (Ho et al. 2020)."""

    def __init__(self, features: int, width: int, scale: float):
        super().__init__()
        self.scale = scale
        self.features = features
        self.hidden = nn.Linear(2 * (features // 2), width)
        self.out = nn.Linear(width, width)

    def forward(self, condition: Tensor) -> Tensor:
        """(B, width) of ``condition: (B,)``."""
        half = self.features // 2
        # float32 whatever autocast says: bfloat16 cannot tell 500/1000 from 501/1000
        steps = torch.arange(half, device=condition.device, dtype=torch.float32) / max(half - 1, 1)
        angles = self.scale * condition.float()[:, None] * torch.exp(-math.log(10_000) * steps)
        features = torch.cat([angles.sin(), angles.cos()], dim=1).to(self.hidden.weight.dtype)
        return self.out(F.silu(self.hidden(features)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around the modulation by noise (He et al. 2016, Dhariwal & Nichol 2021)."""

    def __init__(self, width_in: int, width: int, embedding: int):
        super().__init__()
        self.width_in = width_in
        self.norm_in = ChannelNorm(width_in)
        self.conv_in = conv(width_in, width)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.norm_out = ChannelNorm(width, affine=False)
        self.conv_out = zero_weights(conv(width, width))
        self.shortcut = conv(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, width, …) of ``x: (B, width_in, …)`` and ``embedding: (B, E)``."""
        h = self.conv_in(F.silu(self.norm_in(x)))
        h = modulate(self.norm_out(h), self.modulation(embedding))
        return self.shortcut(x) + self.conv_out(F.silu(h))


class DepthwiseBlock(nn.Module):
    """A 3x3 convolution of each channel, then a perceptron of each pixel (Rampas 2024, 3.3.1; Liu et al. 2022)."""

    def __init__(self, width_in: int, width: int, embedding: int):
        super().__init__()
        self.width_in = width_in
        self.entrance = conv(width_in, width, 1) if width_in != width else nn.Identity()
        self.depthwise = conv(width, width, groups=width)
        self.norm = ChannelNorm(width, affine=False)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.hidden = conv(width, 4 * width, 1)
        self.out = zero_weights(conv(4 * width, width, 1))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """(B, width, …) of ``x: (B, width_in, …)`` and ``embedding: (B, E)``."""
        x = self.entrance(x)
        h = modulate(self.norm(self.depthwise(x)), self.modulation(embedding))
        return x + self.out(F.gelu(self.hidden(h)))


def modulate(h: Tensor, modulation: Tensor) -> Tensor:
    """``h: (B, C, …)`` times 1 + scale, plus shift, each half of ``modulation: (B, 2·C)`` (Perez et al. 2018)."""
    scale, shift = expand(modulation, h).chunk(2, dim=1)
    return torch.addcmul(shift, h, 1 + scale)


class _AttentionLayer(nn.Module):
    """Pixels look at each other, beside what they are; how is `mix`."""

    mix: Callable[[Tensor, Tensor, Tensor], Tensor]
    """q, k, v: (B, heads, N, D), N = (T·)H·W pixels, to a tensor of that shape."""

    def __init__(self, width: int, head_width: int):
        super().__init__()
        self.heads = width // head_width
        self.norm = ChannelNorm(width)
        self.qkv = conv(width, 3 * width, 1)
        self.out = zero_weights(conv(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``x: (B, C, …)``, same shape."""
        q, k, v = _heads(self.qkv(self.norm(x)), self.heads)
        return x + self.out(_grid(self.mix(q, k, v), x))


class Attention(_AttentionLayer):
    """Every pixel looks at every other (Vaswani et al. 2017); N² work."""

    mix = staticmethod(F.scaled_dot_product_attention)


def _through_summary(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    summary = k.softmax(dim=2).transpose(2, 3) @ v  # (B, heads, D, D)
    return (q.softmax(dim=3) * q.shape[3] ** -0.5) @ summary


class LinearAttention(_AttentionLayer):
    """Attention through a summary of head_width² numbers (Shen et al. 2021), which CDC uses; N work."""

    mix = staticmethod(_through_summary)


def _heads(qkv: Tensor, heads: int) -> tuple[Tensor, ...]:
    """q, k, v: (B, heads, N, D) of ``qkv: (B, 3·heads·D, …)``, N pixels."""
    return qkv.flatten(2).transpose(1, 2).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _grid(tokens: Tensor, like: Tensor) -> Tensor:
    """(B, heads·D, …) of ``tokens: (B, heads, N, D)``, in the shape of ``like``."""
    return tokens.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, like.shape[2:])


class Downsample(nn.Module):
    """Half the height and width, rounded up, by a convolution of stride 2."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.conv = conv(width_in, width, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, …, ⌈H/2⌉, ⌈W/2⌉) of ``x: (B, width_in, …, H, W)``."""
        return self.conv(x)


class Upsample(nn.Module):
    """The nearest pixel, then a convolution."""

    def __init__(self, width_in: int, width: int):
        super().__init__()
        self.conv = conv(width_in, width)

    def forward(self, x: Tensor, size: torch.Size) -> Tensor:
        """(B, width, *size) of ``x: (B, width_in, …, H, W)``; ``size`` ends with 2H or 2H - 1, and as wide."""
        doubled = F.interpolate(x, scale_factor=(*[1.0] * (x.ndim - 4), 2.0, 2.0), mode="nearest")
        return self.conv(doubled[..., : size[-2], : size[-1]])
