"""Configurations and conditions of the U-Net that cannot be are named."""

import dataclasses
import math

import pytest
import torch

from difflate.errors import ConfigError
from difflate.nn import UNet
from nn_helpers import SMALL, random

pytestmark = pytest.mark.usefixtures("one_thread")


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
