"""Networks small enough for tests, in every option, and what they are given."""

import dataclasses

import torch

from difflate.nn import UNet, UNetConfig

SMALL = UNetConfig(widths=(8, 12), blocks=(1, 2), head_width=4)
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
