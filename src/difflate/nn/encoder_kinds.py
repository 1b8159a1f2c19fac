"""The encoders that there are, as one choice that configurations hold."""

from dataclasses import dataclass
from typing import Literal

from difflate.errors import ConfigError
from difflate.nn.efficientnet import EFFICIENTNETS, STRIDES, EfficientNetEncoder
from difflate.nn.encoders import ConvConfig, ConvEncoder

EncoderKind = Literal["conv", "efficientnet-v2-s", "efficientnet-v2-l", "efficientnet-lite0"]
Encoder = ConvEncoder | EfficientNetEncoder
"""``forward(images: (B, 3, H, W)) -> (B, channels, ⌈H/s⌉, ⌈W/s⌉)``, with `stride_px` (s), `channels`; `reach`: sites
beyond a tile that its own depend on, by convolutions; `is_local`: whether nothing else makes them depend on more."""


@dataclass(frozen=True)
class EncoderConfig(ConvConfig):
    """Which encoder; `widths`, `blocks` and `patch` are those of kind conv."""

    kind: EncoderKind = "conv"
    """conv: convolutions of our own. efficientnet-v2-s, efficientnet-v2-l (Tan & Le 2021), efficientnet-lite0."""
    stride: int = 32
    """efficientnet: pixels between two sites, 16 or 32."""
    projections: int = 1
    """efficientnet: 1x1 convolutions to the latent's channels, 1 or 2."""
    pretrained: bool = True
    """efficientnet: training starts with ImageNet's weights. A model that was saved has its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in ("conv", *EFFICIENTNETS):
            raise ConfigError(f"`kind` (={self.kind!r}) must be one of {', '.join(('conv', *EFFICIENTNETS))}")
        if self.stride not in STRIDES:
            raise ConfigError(f"`stride` (={self.stride}) must be one of {', '.join(map(str, STRIDES))}")
        if self.projections not in (1, 2):
            raise ConfigError(f"`projections` (={self.projections}) must be 1 or 2")

    @classmethod
    def of(cls, config: ConvConfig) -> "EncoderConfig":
        """``config`` itself, or the encoder of convolutions that it describes."""
        return config if isinstance(config, cls) else cls(config.widths, config.blocks, config.patch)

    @property
    def stride_px(self) -> int:
        """Pixels between two sites of the latent."""
        return super().stride_px if self.kind == "conv" else self.stride


def build_encoder(config: EncoderConfig, channels: int) -> Encoder:
    """The encoder to ``channels``, with random weights. Raises ConfigError if a package is missing."""
    if config.kind == "conv":
        return ConvEncoder(config, channels)
    return EfficientNetEncoder(config.kind, channels, config.stride, config.projections)


def start_encoder(encoder: Encoder, config: EncoderConfig, allow_download: bool = False) -> None:
    """What a training does first: ImageNet's weights, where ``config`` asks for them and they are at hand.

    Raises ConfigError as `EfficientNetEncoder.load_imagenet`.
    """
    if isinstance(encoder, EfficientNetEncoder) and config.pretrained:
        encoder.load_imagenet(allow_download)
