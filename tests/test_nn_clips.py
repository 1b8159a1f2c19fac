"""Layers take clips (B, C, T, H, W) as they take images: a clip of one frame is its image, frame by frame."""

import pytest
import torch

from difflate.nn.layers import (
    Attention,
    ChannelNorm,
    DepthwiseBlock,
    Downsample,
    LinearAttention,
    ResidualBlock,
    Upsample,
    channels_last,
    conv,
    modulate,
)
from difflate.nn.padding import pad_to_multiple
from nn_helpers import OPTIONS, alive, inputs, random, unet

LAYERS = {
    "norm": lambda x: ChannelNorm(8)(x),
    "convolution": lambda x: alive(conv(8, 12, stride=2))(x),
    "edge repeated": lambda x: alive(conv(8, 8, padding_mode="replicate"))(x),
    "modulation": lambda x: modulate(x, random(len(x), 16, seed=1)),
    "residual block": lambda x: alive(ResidualBlock(8, 12, 6))(x, random(len(x), 6, seed=1)),
    "depthwise block": lambda x: alive(DepthwiseBlock(8, 12, 6))(x, random(len(x), 6, seed=1)),
    "downsample": lambda x: alive(Downsample(8, 12))(x),
    "upsample": lambda x: alive(Upsample(8, 12))(x, torch.Size([*x.shape[2:-2], 9, 14])),
    "padding": lambda x: pad_to_multiple(x, 4),
}
ATTENTION = {
    "attention": lambda x: alive(Attention(8, 4))(x),
    "linear attention": lambda x: alive(LinearAttention(8, 4))(x),
}


@pytest.mark.parametrize("name", [*LAYERS, *ATTENTION])
def test_a_clip_of_one_frame_is_its_image(name):
    layer, image = (LAYERS | ATTENTION)[name], channels_last(random(2, 8, 5, 7))
    torch.manual_seed(0)
    expected = layer(image)
    torch.manual_seed(0)
    assert torch.equal(layer(channels_last(image[:, :, None])), expected[:, :, None])


@pytest.mark.parametrize("name", LAYERS)
def test_frames_are_apart(name):
    layer, clip = LAYERS[name], channels_last(random(2, 8, 3, 5, 7))
    torch.manual_seed(0)
    whole = layer(clip)
    for t in range(3):
        torch.manual_seed(0)
        torch.testing.assert_close(whole[:, :, t], layer(clip[:, :, t]))


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_looks_at_all_frames_as_at_one_large_image(name):
    layer, clip = ATTENTION[name], random(2, 8, 3, 5, 7)
    torch.manual_seed(0)
    whole = layer(clip)
    torch.manual_seed(0)
    below = layer(clip.flatten(2, 3))  # the frames below each other
    torch.testing.assert_close(whole.flatten(2, 3), below)


@torch.no_grad()
@pytest.mark.parametrize("name", OPTIONS)
def test_the_network_makes_of_a_clip_of_one_frame_what_it_makes_of_the_image(name):
    network = unet(OPTIONS[name])
    args, conditions = inputs(network.config)
    expected = network(*args, **conditions)
    clip = [x[:, :, None] if x.ndim == 4 else x for x in args]
    conditions["spatial"] = [None if x is None else x[:, :, None] for x in conditions["spatial"]]
    assert torch.equal(network(*clip, **conditions), expected[:, :, None])


def test_padding_repeats_the_edge_of_each_frame_and_keeps_type_and_time():
    for dtype in (torch.uint8, torch.float64, torch.bfloat16):
        clip = (random(1, 2, 3, 5, 6) * 50 + 100).to(dtype)
        padded = pad_to_multiple(clip, 4)
        assert padded.dtype == dtype
        assert padded.shape == (1, 2, 3, 8, 8)
        assert torch.equal(padded[..., :5, :6], clip)
        assert torch.equal(padded[..., 5:, :6], clip[..., 4:, :].expand(-1, -1, -1, 3, -1))
        assert torch.equal(padded[..., 6:], padded[..., 5:6].expand(-1, -1, -1, -1, 2))
