"""Generators of images and latents."""

from difflate.generate.pixel import PixelDiffusion
from difflate.generate.sampling import sample

__all__ = ["PixelDiffusion", "sample"]
