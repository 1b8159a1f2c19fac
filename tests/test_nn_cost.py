"""What networks cost: the weights of the presets, and multiply-adds."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from difflate.nn import PRESETS, UNet, UNetConfig
from difflate.nn.unet import multiply_adds, parameters
from nn_helpers import OPTIONS, inputs, run, unet

pytestmark = pytest.mark.usefixtures("one_thread")


# Presets


@pytest.mark.parametrize(
    ("name", "count"),
    [("latent", 48_690_438), ("refiner", 1_718_739), ("cdc", 39_900_739), ("diffae-700m", 702_989_904)],
)
def test_presets_have_the_sizes_of_the_papers(name, count):
    with torch.device("meta"):
        assert parameters(UNet(PRESETS[name])) == count


@pytest.mark.parametrize(
    ("name", "millions", "billions"),
    [("diffae-156m", 156, 58.4), ("diffae-280m", 280, 103.5), ("diffae-700m", 700, 255.7), ("diffae-3b", 3000, 1069)],
)
def test_diffusion_autoencoders_have_the_sizes_of_the_thesis(name, millions, billions):
    config = PRESETS[name]
    with torch.device("meta"):
        assert parameters(UNet(config)) == pytest.approx(millions * 1e6, rel=0.02)
    assert multiply_adds(config, 128, 128) == pytest.approx(billions * 1e9, rel=0.01)  # 512x512 px at f4


@pytest.mark.parametrize("name", PRESETS)
def test_presets_give_an_image_of_the_size_they_take(name):
    config = PRESETS[name]
    with torch.device("meta"):
        args, conditions = inputs(config, 33, 18)
        frames = () if config.temporal == "none" else (3,)  # of clips T stands before H
        (x, t, *rest), spatial = args, conditions.pop("spatial")
        told = [
            cond if cond is None else cond.new_empty(*cond.shape[:2], *frames, *cond.shape[2:], device="meta")
            for cond in spatial
        ]
        x = x.new_empty(*x.shape[:2], *frames, *x.shape[2:], device="meta")
        y = UNet(config)(x, t.to("meta"), *(arg.to("meta") for arg in rest), spatial=told, **conditions)
    assert y.shape == (2, config.out_channels, *frames, 33, 18)


# Multiply-adds


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
    assert multiply_adds(PRESETS["diffae-700m"], 4096, 4096) > 10**14  # 64 GiB, were it run
