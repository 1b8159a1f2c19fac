"""Generators of images and latents."""

from pathlib import Path

from difflate.errors import ConfigError
from difflate.generate.pixel import PixelDiffusion
from difflate.generate.sampling import sample

__all__ = ["PixelDiffusion", "load_generator", "sample"]


def load_generator(name: str | Path, *, allow_download: bool = False) -> PixelDiffusion:
    """The generator in a model folder, or in the Hugging Face repository ``owner/name`` (see `hub.model_folder`).

    Raises ConfigError if there is none, ModelError if it is incomplete, damaged or not here.
    """
    from difflate.hub import model_folder

    folder = model_folder(name, allow_download=allow_download)
    if folder is None:
        raise ConfigError(f"{name}: no such folder; name the folder of a generator, as `difflate train` writes it")
    return PixelDiffusion.from_pretrained(folder)
