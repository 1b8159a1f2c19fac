"""Generators of images and latents. Nothing heavy is imported until it is used."""

from typing import TYPE_CHECKING

from difflate.extras import import_on_use

if TYPE_CHECKING:
    from difflate.generate.loading import load_generator
    from difflate.generate.options import SampleOptions
    from difflate.generate.sampling import sample, trace, trajectory
    from difflate.models.categorical_diffusion import CategoricalDiffusion
    from difflate.models.generator import Generator
    from difflate.models.latent_diffusion import LatentDiffusion, LatentSpec
    from difflate.models.pixel_diffusion import PixelDiffusion

__all__ = [
    "CategoricalDiffusion",
    "Generator",
    "LatentDiffusion",
    "LatentSpec",
    "PixelDiffusion",
    "SampleOptions",
    "load_generator",
    "sample",
    "trace",
    "trajectory",
]

__getattr__ = import_on_use(
    __name__,
    {
        "difflate.generate.loading": ["load_generator"],
        "difflate.generate.options": ["SampleOptions"],
        "difflate.generate.sampling": ["sample", "trace", "trajectory"],
        "difflate.models.categorical_diffusion": ["CategoricalDiffusion"],
        "difflate.models.generator": ["Generator"],
        "difflate.models.latent_diffusion": ["LatentDiffusion", "LatentSpec"],
        "difflate.models.pixel_diffusion": ["PixelDiffusion"],
    },
)
