"""Each layer of the networks against plain formulas, and as training starts."""

import math

import pytest
import torch
import torch.nn.functional as F

from difflate.nn.layers import (
    Attention,
    ChannelNorm,
    DepthwiseBlock,
    Downsample,
    LinearAttention,
    NoiseEmbedding,
    ResidualBlock,
    Upsample,
)
from difflate.nn.unet import parameters
from nn_helpers import alive, random

pytestmark = pytest.mark.usefixtures("one_thread")


def norm(x, weight=None, bias=None):
    """Ba et al. 2016 over the channels of (B, C, H, W)."""
    y = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    return y if weight is None else y * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)


def normed(x, module):
    return norm(x, module.weight, module.bias)


def scale_shift(h, modulation, embedding):
    values = embedding @ modulation.weight.T + modulation.bias
    return h * (1 + values[:, : h.shape[1], None, None]) + values[:, h.shape[1] :, None, None]


@pytest.mark.parametrize("affine", [False, True])
def test_channel_norm(affine):
    module = alive(ChannelNorm(6, affine).double())
    x = random(2, 6, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(module(x), normed(x, module) if affine else norm(x))
    assert parameters(module) == (12 if affine else 0)


@pytest.mark.parametrize("width", [6, 10])
def test_residual_block(width):
    b = alive(ResidualBlock(6, width, 5).double())
    x, e = random(2, 6, 4, 7, dtype=torch.float64), random(2, 5, dtype=torch.float64)
    h = F.conv2d(F.silu(normed(x, b.norm_in)), b.conv_in.weight, b.conv_in.bias, padding=1)
    h = F.silu(scale_shift(norm(h), b.modulation, e))
    h = F.conv2d(h, b.conv_out.weight, b.conv_out.bias, padding=1)
    around = x if width == 6 else torch.einsum("oi,bihw->bohw", b.shortcut.weight[:, :, 0, 0], x)
    torch.testing.assert_close(b(x, e), h + around + (0 if width == 6 else b.shortcut.bias.view(1, -1, 1, 1)))


@pytest.mark.parametrize("width", [6, 10])
def test_depthwise_block(width):
    b = alive(DepthwiseBlock(6, width, 5).double())
    x, e = random(2, 6, 4, 7, dtype=torch.float64), random(2, 5, dtype=torch.float64)
    y = x if width == 6 else F.conv2d(x, b.entrance.weight, b.entrance.bias)
    kernel = b.depthwise.weight
    assert kernel.shape == (width, 1, 3, 3)
    h = torch.stack([F.conv2d(y[:, c : c + 1], kernel[c : c + 1], padding=1)[:, 0] for c in range(width)], dim=1)
    h = scale_shift(norm(h + b.depthwise.bias.view(1, -1, 1, 1)), b.modulation, e)
    h = torch.einsum("oi,bihw->bohw", b.hidden.weight[:, :, 0, 0], h) + b.hidden.bias.view(1, -1, 1, 1)
    h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
    h = torch.einsum("oi,bihw->bohw", b.out.weight[:, :, 0, 0], h) + b.out.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(b(x, e), y + h)


def qkv(module, x, heads):
    """q, k, v: (B, heads, D, N)."""
    every = torch.einsum("oi,bihw->bohw", module.qkv.weight[:, :, 0, 0], normed(x, module.norm))
    every = (every + module.qkv.bias.view(1, -1, 1, 1)).flatten(2)
    return [part.unflatten(1, (heads, -1)) for part in every.chunk(3, dim=1)]


def projected(module, x, mixed):
    """``mixed: (B, heads, D, N)``."""
    y = torch.einsum("oi,bin->bon", module.out.weight[:, :, 0, 0], mixed.flatten(1, 2)) + module.out.bias.view(1, -1, 1)
    return x + y.view_as(x)


@pytest.mark.parametrize("size", [(1, 1), (4, 7)])
def test_full_attention(size):
    module, x = alive(Attention(12, 4).double()), random(2, 12, *size, dtype=torch.float64)
    q, k, v = qkv(module, x, heads=3)
    looks = (torch.einsum("bhdi,bhdj->bhij", q, k) / math.sqrt(4)).softmax(-1)
    torch.testing.assert_close(module(x), projected(module, x, torch.einsum("bhij,bhdj->bhdi", looks, v)))


@pytest.mark.parametrize("size", [(1, 1), (4, 7)])
def test_linear_attention(size):
    module, x = alive(LinearAttention(12, 4).double()), random(2, 12, *size, dtype=torch.float64)
    q, k, v = qkv(module, x, heads=3)
    looks = torch.einsum("bhdi,bhdj->bhij", q.softmax(2) / math.sqrt(4), k.softmax(3))
    torch.testing.assert_close(module(x), projected(module, x, torch.einsum("bhij,bhdj->bhdi", looks, v)))


def test_noise_embedding():
    module = NoiseEmbedding(6, 5, scale=1000)
    angles = [[1000 * t / 10_000 ** (i / 2) for i in range(3)] for t in (0.25, 0.75)]
    waves = torch.tensor([[math.sin(a) for a in row] + [math.cos(a) for a in row] for row in angles])
    expected = module.out(F.silu(module.hidden(waves)))
    torch.testing.assert_close(module(torch.tensor([0.25, 0.75])), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("features", [2, 3, 7])
def test_noise_embedding_of_any_width(features):
    assert NoiseEmbedding(features, 5, scale=1000)(torch.rand(4)).shape == (4, 5)


@pytest.mark.parametrize("size", [(1, 1), (7, 4), (8, 9)])
def test_resampling(size):
    x = random(2, 4, *size)
    down = Downsample(4, 6)
    torch.testing.assert_close(down(x), F.conv2d(x, down.conv.weight, down.conv.bias, stride=2, padding=1))
    small = down(x)
    up = Upsample(6, 4)
    rows = torch.tensor([i // 2 for i in range(size[0])])
    columns = torch.tensor([i // 2 for i in range(size[1])])
    nearest = small[:, :, rows][:, :, :, columns]
    torch.testing.assert_close(up(small, x.shape[2:]), F.conv2d(nearest, up.conv.weight, up.conv.bias, padding=1))


# The start of training


@pytest.mark.parametrize("block", [ResidualBlock, DepthwiseBlock])
@pytest.mark.parametrize("width", [8, 12])
def test_an_untrained_block_is_its_shortcut(block, width):
    module, x = block(8, width, 5), random(2, 8, 4, 6)
    around = getattr(module, "shortcut", None) or module.entrance
    assert torch.equal(module(x, random(2, 5)), around(x))
    assert isinstance(around, torch.nn.Identity) == (width == 8)
    assert not torch.equal(alive(module)(x, random(2, 5)), around(x))


@pytest.mark.parametrize("kind", [Attention, LinearAttention])
def test_untrained_attention_is_the_identity(kind):
    module, x = kind(8, 4), random(2, 8, 4, 6)
    assert torch.equal(module(x), x)
    assert not torch.equal(alive(module)(x), x)
