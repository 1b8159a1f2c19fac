"""The U-Net and its layers: sizes, options, locality, gradients, and each layer against plain formulas."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from difflate.errors import ConfigError
from difflate.nn import PRESETS, UNet, UNetConfig
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
from difflate.nn.unet import multiply_adds, parameters


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The tensors are so small that several threads mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SMALL = UNetConfig(widths=(8, 12), blocks=(1, 2), head_width=4)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def alive(module, seed=1):
    """``module`` with random numbers in place of the weights that start at 0, which would hide what is behind them."""
    generator = seeded(seed)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim > 1 and weight.any():
                weight.normal_(std=weight[0].numel() ** -0.5, generator=generator)
            else:
                weight.normal_(std=0.3, generator=generator)
    return module


def unet(config=SMALL, **changes):
    return alive(UNet(dataclasses.replace(config, **changes)))


def inputs(config, height=9, width=7, batch=2):
    """Everything that a network of ``config`` is given: positional arguments, keyword arguments."""
    high, wide = -(-height // config.patch), -(-width // config.patch)
    spatial = []
    for level, channels in enumerate(config.cond_channels or ()):
        side = 2**level
        spatial.append(random(batch, channels, -(-high // side), -(-wide // side), seed=level) if channels else None)
    prev = [random(batch, config.out_channels, height, width, seed=8)] if config.self_condition else []
    vector = random(batch, config.vector_channels, seed=9) if config.vector_channels else None
    args = [random(batch, config.in_channels, height, width), torch.linspace(0.1, 0.9, batch), *prev]
    return args, {"spatial": spatial, "vector": vector}


def run(network, height=9, width=7, batch=2):
    args, conditions = inputs(network.config, height, width, batch)
    return network(*args, **conditions)


# Presets


@pytest.mark.parametrize(
    ("name", "count"),
    [("latent", 48_690_438), ("refiner", 1_718_739), ("cdc", 39_900_739), ("diffae", 702_989_904)],
)
def test_presets_have_the_sizes_of_the_papers(name, count):
    with torch.device("meta"):
        assert parameters(UNet(PRESETS[name])) == count


@pytest.mark.parametrize("name", PRESETS)
def test_presets_give_an_image_of_the_size_they_take(name):
    config = PRESETS[name]
    with torch.device("meta"):
        args, conditions = inputs(config, 33, 18)
        conditions["spatial"] = [cond if cond is None else cond.to("meta") for cond in conditions["spatial"]]
        y = UNet(config)(*(arg.to("meta") for arg in args), **conditions)
    assert y.shape == (2, config.out_channels, 33, 18)


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


@pytest.mark.parametrize("config", [SMALL, PRESETS["refiner"]])
def test_an_untrained_network_gives_0(config):
    assert run(UNet(config), 16, 16).abs().max() == 0


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


# Options

OPTIONS = {
    "plain": SMALL,
    "depthwise": dataclasses.replace(SMALL, block="depthwise"),
    "linear attention": dataclasses.replace(SMALL, attention=("linear", "linear")),
    "full attention": dataclasses.replace(SMALL, attention=("full", "full")),
    "attention behind each block": dataclasses.replace(SMALL, attention=("linear", "full"), attention_each=True),
    "more blocks on the way up": dataclasses.replace(SMALL, up_blocks=(3, 1)),
    "repeats": dataclasses.replace(SMALL, up_blocks=(2, 2), up_repeats=3),
    "patches": dataclasses.replace(SMALL, patch=3),
    "conditions": dataclasses.replace(SMALL, self_condition=True, cond_channels=(2, 3), vector_channels=4),
    "condition below": dataclasses.replace(SMALL, cond_channels=(0, 3), block="depthwise", patch=2),
}


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


# Layers against formulas


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


# Numbers


@pytest.mark.parametrize("name", OPTIONS)
def test_memory_format_changes_nothing(name):
    network = unet(OPTIONS[name])
    args, conditions = inputs(network.config)
    expected = network(*args, **conditions)
    args = [arg.contiguous(memory_format=torch.channels_last) if arg.ndim == 4 else arg for arg in args]
    torch.testing.assert_close(network(*args, **conditions), expected)
    strided = random(2, 9, 3, 7).transpose(1, 2)  # neither of the two
    torch.testing.assert_close(
        network(strided, *args[1:], **conditions), network(strided.contiguous(), *args[1:], **conditions)
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_bfloat16_is_near_float32(name):
    network = unet(OPTIONS[name])
    exact = run(network)
    with torch.autocast("cpu", torch.bfloat16):
        rough = run(network)
    assert rough.dtype == torch.bfloat16
    assert rough.isfinite().all()
    assert (rough - exact).square().mean().sqrt() < 0.03 * exact.square().mean().sqrt()


def test_bfloat16_tells_neighbouring_noise_levels_apart():
    module, t = alive(NoiseEmbedding(64, 32, scale=1000)), torch.tensor([0.5, 0.501])
    one, other = module(t)
    with torch.autocast("cpu", torch.bfloat16):
        rough_one, rough_other = module(t)
        assert torch.equal(*t.bfloat16().unbind())  # which would be lost
    torch.testing.assert_close((rough_one - rough_other).float(), one - other, rtol=0, atol=0.02)
    assert (one - other).abs().max() > 0.05


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": ("linear", "full")},
        {"block": "depthwise", "patch": 2, "cond_channels": (1, 2), "vector_channels": 2, "self_condition": True},
    ],
)
def test_gradients(changes):
    config = UNetConfig(in_channels=2, out_channels=1, widths=(4, 4), blocks=(1, 1), head_width=2)
    network = unet(config, **changes).double()
    args, conditions = inputs(network.config, 3, 3, batch=1)
    t = args.pop(1)
    given = [*args, *conditions["spatial"], conditions["vector"]]
    given = [value.double().requires_grad_() for value in given if value is not None]
    weights = list(network.parameters())

    def f(*values):
        values = list(values[: len(given)])
        x, prev = values.pop(0), values.pop(0) if network.config.self_condition else None
        vector = values.pop() if network.config.vector_channels else None
        return network(x, t, prev, spatial=values, vector=vector)

    assert torch.autograd.gradcheck(f, (*given, *weights), fast_mode=True)


@pytest.mark.parametrize("name", ["plain", "attention behind each block", "repeats", "conditions"])
def test_gradient_checkpointing_changes_no_gradient(name):
    network = unet(OPTIONS[name]).train()
    calls = []  # of the first block, which is asked again on the way back
    network.down[0].blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))

    def gradients(checkpointing):
        network.gradient_checkpointing = checkpointing
        network.zero_grad()
        calls.clear()
        loss = run(network).square().mean()
        loss.backward()
        return loss, [weight.grad for weight in network.parameters()], len(calls)

    loss, kept, once = gradients(False)
    again, computed, twice = gradients(True)
    assert (once, twice) == (1, 2)
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close(computed, kept)
    network.eval()
    assert gradients(True)[2] == 1


# Cost


def test_multiply_adds_by_hand():
    pixels, e = 2 * 3, 8
    embedding = 4 * e + e * e
    block = 2 * 9 * 4 * 4 * pixels + 2 * 4 * e
    entrance, end = 9 * 2 * 4 * pixels, 9 * 4 * 1 * pixels
    config = UNetConfig(in_channels=2, out_channels=1, widths=(4,), blocks=(1,), head_width=2)
    assert multiply_adds(config, 2, 3) == entrance + embedding + 2 * block + end
    project = 4 * (3 * 4 + 4) * pixels
    full = dataclasses.replace(config, attention=("full",))
    assert multiply_adds(full, 2, 3) == entrance + embedding + 2 * (block + project + 2 * 4 * pixels**2) + end
    linear = dataclasses.replace(config, attention=("linear",))
    assert multiply_adds(linear, 2, 3) == entrance + embedding + 2 * (block + project + 2 * 4 * 2 * pixels) + end


@pytest.mark.parametrize("name", OPTIONS)
def test_multiply_adds_are_those_of_a_forward_pass(name):
    network = unet(OPTIONS[name])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run(network, 9, 7, batch=1)
    assert multiply_adds(network.config, 9, 7) == counter.get_total_flops() // 2


def test_multiply_adds_allocate_nothing():
    assert multiply_adds(PRESETS["diffae"], 4096, 4096) > 10**14  # 64 GiB, were it run


# Errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": ()}, "`widths` (=0 levels) must have from 1 to 12"),
        ({"widths": (8,) * 13}, "`widths` (=13 levels) must have from 1 to 12"),
        ({"widths": (8, 1)}, "`widths` (=1) must be from 2 to 16384"),
        ({"blocks": (1,)}, "`blocks` (=[1]) must have an entry for each of `widths` (=2)"),
        ({"up_blocks": (1, 1, 1)}, "`up_blocks` (=[1, 1, 1]) must have an entry for each of `widths` (=2)"),
        ({"attention": ("none",)}, "`attention` (=['none']) must have an entry"),
        ({"cond_channels": ()}, "`cond_channels` (=[]) must have an entry"),
        ({"blocks": (1, 0)}, "`blocks` (=0) must be from 1 to 256"),
        ({"up_blocks": (257, 1)}, "`up_blocks` (=257) must be from 1 to 256"),
        ({"cond_channels": (-1, 0)}, "`cond_channels` (=-1) must be from 0 to 16384"),
        ({"in_channels": 0}, "`in_channels` (=0) must be from 1 to 16384"),
        ({"out_channels": 16385}, "`out_channels` (=16385) must be from 1 to 16384"),
        ({"up_repeats": 2, "up_blocks": [1, 2]}, "`up_repeats` (=2) repeats nothing on a level of one block"),
        ({"noise_scale": 0.0}, "`noise_scale` (=0.0) must be above 0"),
        ({"noise_scale": math.nan}, "`noise_scale` (=nan) must be above 0"),
        ({"up_repeats": 0}, "`up_repeats` (=0) must be from 1 to 16"),
        ({"head_width": 0}, "`head_width` (=0) must be from 1 to 16384"),
        ({"patch": 65}, "`patch` (=65) must be from 1 to 64"),
        ({"vector_channels": -1}, "`vector_channels` (=-1) must be from 0 to 65536"),
        ({"block": "dense"}, "`block` (='dense') must be one of residual, depthwise"),
        ({"attention": ("none", "some")}, "`attention` (='some') must be one of none, linear, full"),
        ({"attention": ("none", "full"), "head_width": 5}, "`widths` (=12) must be divisible by `head_width` (=5)"),
    ],
)
def test_wrong_configurations_are_named(changes, message):
    with pytest.raises(ConfigError) as error:
        dataclasses.replace(SMALL, **changes)
    assert message in str(error.value)


def test_head_width_is_free_without_attention():
    assert dataclasses.replace(SMALL, head_width=5, attention=("none", "none")).head_width == 5


CONDITIONED = dataclasses.replace(SMALL, self_condition=True, cond_channels=(2, 3), vector_channels=4)


@pytest.mark.parametrize(
    ("config", "conditions", "message"),
    [
        (CONDITIONED, {"x0_prev": None}, "`x0_prev` is missing"),
        (SMALL, {"x0_prev": torch.zeros(1, 3, 8, 8)}, "`x0_prev` is given to a network without `self_condition`"),
        (CONDITIONED, {"vector": None}, "`vector` (=0 values) must have `vector_channels` (=4)"),
        (SMALL, {"vector": torch.zeros(1, 4)}, "`vector` (=4 values) must have `vector_channels` (=0)"),
        (CONDITIONED, {"spatial": ()}, "`spatial` (channels [0, 0]) must have `cond_channels` (=[2, 3])"),
        (CONDITIONED, {"spatial": [torch.zeros(1, 2, 8, 8)]}, "`spatial` (channels [2, 0]) must have"),
        (SMALL, {"spatial": [None, torch.zeros(1, 3, 4, 4)]}, "`spatial` (channels [0, 3]) must have"),
        (CONDITIONED, {"vector": torch.zeros(1, 5)}, "`vector` (=5 values) must have `vector_channels` (=4)"),
        (
            CONDITIONED,
            {"spatial": [torch.zeros(1, 2, 8, 8), torch.zeros(1, 3, 4, 5)]},
            "`spatial[1]` (=4 x 5) must be as large as that level (=4 x 4)",
        ),
        (SMALL, {"spatial": [None, None, None]}, "`spatial` (channels [0, 0, 0]) must have"),
    ],
)
def test_wrong_conditions_are_named(config, conditions, message):
    right = {"x0_prev": torch.zeros(1, 3, 8, 8), "vector": torch.zeros(1, 4)}
    right |= {"spatial": [torch.zeros(1, 2, 8, 8), torch.zeros(1, 3, 4, 4)]}
    with pytest.raises(ConfigError) as error:
        UNet(config)(random(1, 3, 8, 8), torch.zeros(1), **((right if config is CONDITIONED else {}) | conditions))
    assert message in str(error.value)
