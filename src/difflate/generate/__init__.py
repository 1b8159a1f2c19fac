"""Generators of images and latents. Nothing heavy is imported until it is used."""

import importlib
from typing import TYPE_CHECKING, Any

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

_MODULES = {
    "CategoricalDiffusion": "difflate.models.categorical_diffusion",
    "Generator": "difflate.models.generator",
    "LatentDiffusion": "difflate.models.latent_diffusion",
    "LatentSpec": "difflate.models.latent_diffusion",
    "PixelDiffusion": "difflate.models.pixel_diffusion",
    "SampleOptions": "difflate.generate.options",
    "load_generator": "difflate.generate.loading",
    "sample": "difflate.generate.sampling",
    "trace": "difflate.generate.sampling",
    "trajectory": "difflate.generate.sampling",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
