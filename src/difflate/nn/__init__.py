"""Networks: layers, the U-Net that the diffusion models share, and its presets."""

from difflate.nn.presets import PRESETS
from difflate.nn.unet import UNet, UNetConfig

__all__ = ["PRESETS", "UNet", "UNetConfig"]
