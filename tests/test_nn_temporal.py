"""Layers along time: causal, equal in chunks and at once; temporal compression and what the thesis' cannot tell."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from difflate.errors import ConfigError
from difflate.nn import PRESETS
from difflate.nn.folding import Compression, Expansion, FoldingConfig, fold, padded, unfold
from difflate.nn.temporal import KERNEL, WINDOW, Past, TemporalAttention, TemporalConv
from difflate.nn.unet import UNet, UNetConfig, parameters
from nn_helpers import alive, random

NETWORK = {
    "widths": (8, 16), "blocks": (2, 1), "attention": ("none", "full"), "head_width": 8, "patch": 2,
    "cond_channels": (3, 0), "up_blocks": (2, 2), "up_repeats": 2,
}  # fmt: skip


def layers() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"conv": alive(TemporalConv(8)), "attention": alive(TemporalAttention(8, 4))}


def in_chunks(layer: nn.Module, x: Tensor, cuts: list[int]) -> Tensor:
    past, parts = Past(), []
    for part in x.tensor_split(cuts, dim=2):
        past.begin()
        parts.append(layer(part, past))
    return torch.cat(parts, dim=2)


@torch.no_grad()
@settings(deadline=None, max_examples=20)
@given(st.integers(1, 20), st.sets(st.integers(1, 19), max_size=4))
def test_chunks_are_the_whole(frames: int, cuts: set[int]) -> None:
    x = random(2, 8, frames, 3, 2)
    for layer in layers().values():
        torch.testing.assert_close(in_chunks(layer, x, sorted(cut for cut in cuts if cut < frames)), layer(x))


@torch.no_grad()
@pytest.mark.parametrize(("name", "seen"), [("conv", KERNEL), ("attention", WINDOW)])
def test_what_is_to_come_and_what_is_long_gone_is_not_seen(name: str, seen: int) -> None:
    layer, x = layers()[name], random(1, 8, 14, 2, 2)
    changed = x.clone()
    changed[:, :, 5] = random(1, 8, 2, 2, seed=3)
    differs = (layer(x) - layer(changed)).abs().amax((0, 1, 3, 4)) > 1e-6
    assert differs.tolist() == [5 <= t < 5 + seen for t in range(14)]


@torch.no_grad()
def test_a_clip_that_stands_still_stays_so_under_convolution() -> None:
    x = random(1, 8, 1, 3, 3).expand(-1, -1, 6, -1, -1)
    y = layers()["conv"](x)
    torch.testing.assert_close(y, y[:, :, :1].expand_as(y))


@torch.no_grad()
@pytest.mark.parametrize("temporal", ["conv", "attention"])
def test_the_network_in_chunks_is_the_network(temporal: str) -> None:
    torch.manual_seed(0)
    network = alive(UNet(UNetConfig(**NETWORK, temporal=temporal)))
    x, z, t = random(1, 3, 13, 9, 11), random(1, 3, 13, 5, 6, seed=1), torch.tensor([0.3])
    whole, past, parts = network(x, t, spatial=[z]), Past(), []
    for start, stop in ((0, 1), (1, 4), (4, 12), (12, 13)):
        past.begin()
        parts.append(network(x[:, :, start:stop], t, spatial=[z[:, :, start:stop]], past=past))
    torch.testing.assert_close(torch.cat(parts, dim=2), whole)
    assert not torch.allclose(network(x[:, :, 6:], t, spatial=[z[:, :, 6:]]), whole[:, :, 6:])  # the past is seen


@torch.no_grad()
def test_layers_along_time_start_as_nothing() -> None:
    torch.manual_seed(0)
    video = UNet(UNetConfig(**NETWORK, temporal="attention"))
    image = alive(UNet(UNetConfig(**NETWORK)))
    own = {name for name in video.state_dict() if ".convs." in name or ".looks." in name}
    assert set(video.state_dict()) - own == set(image.state_dict())
    video.load_state_dict(image.state_dict(), strict=False)
    x, z, t = random(1, 3, 2, 4, 4), random(1, 3, 2, 2, 2, seed=1), torch.tensor([0.3])
    frames = [image(x[:, :, i], t, spatial=[z[:, :, i]]) for i in range(2)]
    torch.testing.assert_close(video(x, t, spatial=[z]), torch.stack(frames, dim=2))


def test_gradients_reach_all_layers_with_and_without_checkpointing() -> None:
    torch.manual_seed(0)
    network = alive(UNet(UNetConfig(**NETWORK, temporal="attention")))
    x, z, t = random(1, 3, 3, 4, 4), random(1, 3, 3, 2, 2, seed=1), torch.tensor([0.3])
    found = []
    for network.gradient_checkpointing in (False, True):
        network.zero_grad()
        network(x, t, spatial=[z]).square().sum().backward()
        found.append([parameter.grad for parameter in network.parameters()])
    for plain, again in zip(*found, strict=True):
        assert plain is not None
        assert plain.abs().max() > 0
        torch.testing.assert_close(plain, again)


def test_folding_keeps_the_frames_of_a_group_in_order() -> None:
    x = random(2, 3, 8, 4, 5)
    folded = fold(x, 4)
    assert folded.shape == (2, 12, 2, 4, 5)
    assert torch.equal(folded[:, 6:9, 1], x[:, :, 6])
    assert torch.equal(unfold(folded, 4), x)
    assert torch.equal(padded(x[:, :, :7], 4)[:, :, 7], x[:, :, 6])
    assert padded(x, 4) is x


@torch.no_grad()
@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_the_mean_cannot_tell_a_clip_from_its_reverse_and_folding_can(ratio: int) -> None:
    torch.manual_seed(0)
    clip = random(1, 6, ratio, 4, 5)
    latents = {}
    for kind in ("mean", "fold"):
        compress = alive(Compression(FoldingConfig(ratio, kind, features=6, width=8), 5))
        latents[kind] = [compress(x) for x in (clip, clip.flip(2))]
    torch.testing.assert_close(*latents["mean"])
    assert (latents["fold"][0] - latents["fold"][1]).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("kind", ["fold", "mean"])
def test_compression_and_expansion_in_chunks(kind: str) -> None:
    torch.manual_seed(0)
    config = FoldingConfig(4, kind, features=6, width=8, blocks=2)
    compress, expand = alive(Compression(config, 5)), alive(Expansion(config, 5))
    x = random(1, 6, 24, 3, 4)
    z = compress(x)
    told = expand(z)
    assert (z.shape, told.shape) == ((1, 5, 6, 3, 4), (1, 6, 24, 3, 4))
    torch.testing.assert_close(in_chunks(compress, x, [4, 16]), z)
    torch.testing.assert_close(in_chunks(expand, z, [1, 4]), told)


@pytest.mark.parametrize(("name", "count"), [("diffae-video-734m", 735.2), ("diffae-video-1.3b", 1311.8)])
def test_presets_have_the_counts_of_the_thesis(name: str, count: float) -> None:
    with torch.device("meta"):
        assert round(parameters(UNet(PRESETS[name])) / 1e6, 1) == count


@pytest.mark.parametrize(
    ("values", "message"),
    [({"ratio": 3}, "ratio"), ({"kind": "max"}, "kind"), ({"width": 0}, "width"), ({"blocks": 65}, "blocks")],
)
def test_what_cannot_be_folded_is_refused(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FoldingConfig(**values)
    with pytest.raises(ConfigError, match="temporal"):
        UNetConfig(**NETWORK, temporal="3d")
