"""A tiny diffusion autoencoder for tests."""

from typing import Any

import torch

from difflate.diffusion import ProcessConfig
from difflate.models.bottlenecks import BottleneckConfig
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder, LatentDecoderConfig
from difflate.nn.encoders import ConvConfig
from difflate.nn.unet import UNetConfig

SHAPE: dict[str, Any] = {
    "encoder": ConvConfig((8, 16), (1, 1), 4),
    "bottleneck": BottleneckConfig("fsq", levels=[5, 8, 3]),
    "head": ConvConfig((8, 8), (1, 1), 4),
    "decoder": LatentDecoderConfig(steps=2),
    "network": UNetConfig(widths=(8, 8), blocks=(1, 1), patch=4),
    "process": ProcessConfig(times="logit-normal"),
}


def tiny(**others: Any) -> DiffusionAutoencoder:
    """Untrained, with a U-Net that says something and an encoder that uses all indices."""
    torch.manual_seed(0)
    model = DiffusionAutoencoder(**{**SHAPE, **others})
    torch.nn.init.normal_(model.unet.exit.weight, std=0.1)
    torch.nn.init.normal_(model.hidden, std=1.0)
    with torch.no_grad():
        model.autoencoder.encode.exit.weight.mul_(8)
    return model.eval()
