"""Refiners small enough for tests."""

import torch

import difflate
from coder_helpers import photo
from difflate.codecs.vq import VqCodec
from difflate.models.refiner import Refiner
from difflate.nn import UNetConfig

TINY = UNetConfig(widths=(8, 12), blocks=(1, 1))


def codec_of(name: str = "opq-32-8-8") -> VqCodec:
    codec = difflate.load(name)
    assert isinstance(codec, VqCodec)
    return codec


def refiner_of(network: UNetConfig = TINY, *, trained: bool = True, codec: str = "opq-32-8-8") -> Refiner:
    """A refiner that changes each pixel by about ten levels; ``trained`` false: as training starts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Refiner(network, codec, codec_of(codec).fingerprint.hex())
        for name, parameter in made.named_parameters():
            if trained and name.endswith("weight"):
                torch.nn.init.normal_(parameter, std=0.2 if "exit" in name else 0.3 / parameter[0].numel() ** 0.5)
    return made.eval()


def as_pixels(*size: int, top: int = 100, left: int = 0) -> torch.Tensor:
    return torch.from_numpy(photo(*size, top, left).copy())[None]
