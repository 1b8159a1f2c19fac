"""The U-Net's arithmetic: memory formats, bfloat16, gradients."""

import pytest
import torch

from difflate.nn import UNetConfig
from difflate.nn.layers import NoiseEmbedding
from nn_helpers import OPTIONS, alive, inputs, random, run, unet

pytestmark = pytest.mark.usefixtures("one_thread")


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
