"""The U-Net: the sizes it takes, its start, its options, and how far a pixel reaches."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from difflate.nn import PRESETS, UNet, UNetConfig
from difflate.nn.layers import Attention, DepthwiseBlock, LinearAttention, ResidualBlock
from difflate.nn.unet import parameters
from nn_helpers import OPTIONS, SMALL, inputs, random, run, unet

pytestmark = pytest.mark.usefixtures("one_thread")


# Shapes


@st.composite
def configs(draw):
    levels = draw(st.integers(1, 3))
    each = lambda of: st.lists(of, min_size=levels, max_size=levels)  # noqa: E731
    repeats = draw(st.integers(1, 2))
    return UNetConfig(
        in_channels=draw(st.integers(1, 4)),
        out_channels=draw(st.integers(1, 4)),
        widths=draw(each(st.sampled_from([4, 8]))),
        blocks=draw(each(st.integers(repeats, 2))),
        up_blocks=draw(st.none() | each(st.integers(repeats, 2))),
        up_repeats=repeats,
        block=draw(st.sampled_from(["residual", "depthwise"])),
        attention=draw(st.none() | each(st.sampled_from(["none", "linear", "full"]))),
        attention_each=draw(st.booleans()),
        head_width=4,
        patch=draw(st.integers(1, 4)),
        self_condition=draw(st.booleans()),
        cond_channels=draw(st.none() | each(st.integers(0, 3))),
        vector_channels=draw(st.integers(0, 3)),
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(configs(), st.integers(1, 19), st.integers(1, 19))
def test_any_network_takes_any_size_and_each_image_for_itself(config, height, width):
    network = unet(config)
    args, conditions = inputs(config, height, width, batch=3)
    y = network(*args, **conditions)
    assert y.shape == (3, config.out_channels, height, width)
    assert y.isfinite().all()

    def item(value):
        return None if value is None else value[1:2]

    spatial = [item(cond) for cond in conditions["spatial"]]
    alone = network(*map(item, args), spatial=spatial, vector=item(conditions["vector"]))
    torch.testing.assert_close(alone, y[1:2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("patch", [2, 3, 5])
def test_the_last_row_and_column_are_repeated_where_the_patch_does_not_divide(patch):
    network = unet(patch=patch)
    x, t = random(2, 3, 7, 11), torch.tensor([0.2, 0.7])
    padded = F.pad(x, (0, -11 % patch, 0, -7 % patch), mode="replicate")
    torch.testing.assert_close(network(x, t), network(padded, t)[:, :, :7, :11])


# The start of training


@pytest.mark.parametrize("config", [SMALL, PRESETS["refiner"]])
def test_an_untrained_network_gives_0(config):
    assert run(UNet(config), 16, 16).abs().max() == 0


# Options


@pytest.mark.parametrize("name", OPTIONS)
def test_every_weight_and_every_input_matters(name):
    network = unet(OPTIONS[name])
    args, conditions = inputs(network.config)
    given = {"x": args[0], "x0_prev": args[2] if len(args) > 2 else None, "vector": conditions["vector"]}
    given |= {f"spatial {level}": cond for level, cond in enumerate(conditions["spatial"])}
    given = {key: value.requires_grad_() for key, value in given.items() if value is not None}
    y = network(*args, **conditions)
    (y * random(*y.shape, seed=3)).sum().backward()
    for key, value in (*network.named_parameters(), *given.items()):
        assert value.grad is not None, key
        assert value.grad.abs().max() > 1e-6, key
        if key in given:  # of both items, everywhere
            assert value.grad.abs().flatten(1).max(1).values.min() > 1e-6, key


@pytest.mark.parametrize("condition", [0.0, 0.3, 1.0])
def test_the_noise_condition_matters(condition):
    network, x = unet(), random(1, 3, 6, 6)
    one, other = (network(x, torch.tensor([value])) for value in (condition, condition + 0.05))
    assert (one - other).abs().max() > 1e-2


def test_the_levels_are_joined_as_drawn():
    network, x, t = unet(), random(2, 3, 9, 7), torch.tensor([0.2, 0.7])
    embedding = F.silu(network.noise_embedding(t))

    def through(path, h):
        for block in path.blocks:
            h = block(h, embedding)
        return h

    high = through(network.down[0], network.entrance(x))
    low = through(network.up[1], through(network.down[1], network.downsample[0](high)))
    h = through(network.up[0], torch.cat([network.upsample[0](low, high.shape[2:]), high], dim=1))
    torch.testing.assert_close(network(x, t), network.exit(F.silu(network.norm(h))))


def kinds(network, kind):
    return [name for name, module in network.named_modules() if isinstance(module, kind)]


def test_attention_is_where_it_is_asked_for():
    network = UNet(UNetConfig(widths=(8, 8, 8), blocks=(2, 2, 2), attention=("none", "linear", "full"), head_width=4))
    assert kinds(network, LinearAttention) == ["down.1.attention.1", "up.1.attention.1"]
    assert kinds(network, Attention) == ["down.2.attention.1", "up.2.attention.1"]
    network = UNet(dataclasses.replace(network.config, attention_each=True, up_blocks=(1, 1, 3)))
    assert kinds(network, LinearAttention) == ["down.1.attention.0", "down.1.attention.1", "up.1.attention.0"]
    assert len(kinds(network, Attention)) == 2 + 3


@pytest.mark.parametrize(("block", "kind"), [("residual", ResidualBlock), ("depthwise", DepthwiseBlock)])
def test_blocks_are_of_the_kind_and_number_asked_for(block, kind):
    network = UNet(UNetConfig(widths=(8, 8), blocks=(1, 2), up_blocks=(3, 4), block=block))
    assert len(kinds(network, kind)) == 1 + 2 + 3 + 4
    assert len(kinds(network, (ResidualBlock, DepthwiseBlock))) == 10
    assert [len(path.blocks) for path in (*network.down, *network.up)] == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["residual", "depthwise"])
@pytest.mark.parametrize("each", [False, True])
def test_repeats_are_the_same_blocks_again(kind, each):
    """As a network that has the blocks several times; the one that merges two levels runs once."""
    config = UNetConfig(
        widths=(8, 8), blocks=(1, 1), up_blocks=(2, 2), block=kind, up_repeats=2,
        attention=("linear", "full"), attention_each=each, head_width=4,
    )  # fmt: skip
    repeated = unet(config)
    once = UNet(dataclasses.replace(config, up_repeats=1))
    once.load_state_dict(repeated.state_dict())
    assert parameters(once) == parameters(repeated)
    assert (run(once) - run(repeated)).abs().max() > 1e-2

    again = UNet(dataclasses.replace(config, up_repeats=1, up_blocks=(3, 4), attention_each=True))
    state = {key: value for key, value in repeated.state_dict().items() if not key.startswith("up.")}
    for level, order in ((0, (0, 1, 1)), (1, (0, 1, 0, 1))):
        for to, source in enumerate(order):
            block, attention = repeated.up[level].blocks[source], repeated.up[level].attention[source]
            if isinstance(attention, torch.nn.Identity):
                again.up[level].attention[to] = attention
            state |= {f"up.{level}.blocks.{to}.{key}": value for key, value in block.state_dict().items()}
            state |= {f"up.{level}.attention.{to}.{key}": value for key, value in attention.state_dict().items()}
    again.load_state_dict(state)
    torch.testing.assert_close(run(again), run(repeated))


def test_a_scaled_noise_condition_is_the_same_condition():
    one, other = unet(), UNet(dataclasses.replace(SMALL, noise_scale=25.0))
    other.load_state_dict(one.state_dict())
    x, t = random(2, 3, 5, 5), torch.tensor([0.25, 0.75])
    torch.testing.assert_close(other(x, 40 * t), one(x, t))
    assert (other(x, t) - one(x, t)).abs().max() > 1e-2


# Locality


def reach(config, side=48):
    """Columns, from the left, of the output that change with the first column of the input."""
    network = unet(config)
    x, t = random(1, 3, 8, side), torch.tensor([0.5])
    changed = x.clone()
    changed[:, :, :, 0] += 1
    moved = (network(changed, t) - network(x, t)).abs().amax(dim=(0, 1, 2))
    return int(moved.nonzero().max()) + 1


def test_without_attention_a_far_pixel_changes_nothing():
    # entrance and exit reach 1 px each, a residual block 2, a depthwise one 1
    assert reach(UNetConfig(widths=(8,), blocks=(1,))) == 1 + 1 + 2 * 2 + 1
    assert reach(UNetConfig(widths=(8,), blocks=(1,), block="depthwise")) == 1 + 1 + 2 * 1 + 1
    assert reach(UNetConfig(widths=(8,), blocks=(1,), up_repeats=2)) == 1 + 1 + 3 * 2 + 1
    # patches: six steps as above, of 3 px each, and the rest of the patch
    assert reach(UNetConfig(widths=(8,), blocks=(1,), patch=3)) == 3 * (6 + 1)
    assert 7 < reach(UNetConfig(widths=(8, 8), blocks=(1, 1))) <= 1 + 17


@pytest.mark.parametrize("kind", ["linear", "full"])
def test_with_attention_a_far_pixel_matters(kind):
    assert reach(UNetConfig(widths=(8,), blocks=(1,), attention=(kind,), head_width=4)) == 48


def test_an_image_may_be_computed_in_tiles():
    network = unet()
    x, t = random(1, 3, 8, 64), torch.tensor([0.5])
    torch.testing.assert_close(network(x[..., :40], t)[..., :16], network(x, t)[..., :16])
