"""Transform models small enough for tests, whose means and scales vary as those of trained ones do."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from difflate.codecs.hyperprior import HyperpriorCodec
from difflate.models.transform_coder import TransformModel
from difflate.nn.entropy_network import HyperpriorConfig
from difflate.nn.transforms import TransformConfig, TransformKind

PHOTO = Path(__file__).parents[1] / "examples" / "kodim23.png"
HYPERPRIOR = HyperpriorConfig(channels=8, width=16, features=16)
GROUPS = (1, 2, 5)
"""Of 24 channels 3, 6 and 15."""


def tiny_transform(kind: TransformKind = "dct") -> TransformConfig:
    return TransformConfig(kind, latent_channels=24, widths=(8, 8, 16), blocks=(1, 1, 1))


def tiny_model(seed: int = 0, kind: TransformKind = "dct", groups: tuple[int, ...] = (1,)) -> TransformModel:
    """A model that was not trained, all of it moved away from the zeros and equal values that it starts from."""
    hyperprior = dataclasses.replace(HYPERPRIOR, groups=groups)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = TransformModel(tiny_transform(kind), hyperprior)
        entropy = model.entropy
        entropy.analysis[4].weight.mul_(12)  # so that z is seldom 0
        entropy.out.weight.normal_(std=0.2)
        entropy.near_values.weight.normal_(std=0.05)
        entropy.near_values.bias.normal_(std=0.3)
        entropy.near_mix.weight.normal_(std=0.2)
        # wide, because the escapes of values that are far outside are not in the estimate
        entropy.level_rungs.add_(1.5 + torch.randn_like(entropy.level_rungs) / 8)
        for layer, parameter in entropy.named_parameters():
            spread = {"lead": 0.03, "values": 0.1, "near_mix": 0.2, "out": 0.2}
            if layer.startswith("later") and layer.endswith("weight") and layer.split(".")[2] in spread:
                parameter.normal_(std=spread[layer.split(".")[2]])
        for gain in (model.gain, model.inverse_gain):
            gain.normal_(std=0.05)
        return model.eval()


def one_rate_model(seed: int = 0, kind: TransformKind = "dct") -> TransformModel:
    """The same without a hyperprior."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TransformModel(tiny_transform(kind), None, lmbda_min=0.01, lmbda_max=0.01).eval()


def tiny_codec(seed: int = 0, kind: TransformKind = "dct", groups: tuple[int, ...] = (1,)) -> HyperpriorCodec:
    """The codec of `tiny_model`."""
    model = tiny_model(seed, kind, groups)
    return HyperpriorCodec("tiny", model, model.exact_coder)


def one_rate_codec(seed: int = 0) -> HyperpriorCodec:
    """The codec of `one_rate_model`."""
    model = one_rate_model(seed)
    return HyperpriorCodec("one-rate", model, model.exact_coder)


@functools.cache
def photo(height: int = 512, width: int = 768, top: int = 0, left: int = 0) -> np.ndarray:
    """(3, height, width) uint8, of a photograph."""
    with Image.open(PHOTO) as image:
        pixels = np.asarray(image.convert("RGB"))
    return np.ascontiguousarray(pixels[top : top + height, left : left + width].transpose(2, 0, 1))


def as_images(pixels: np.ndarray) -> torch.Tensor:
    """(1, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(pixels)[None].float() / 127.5 - 1


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))
