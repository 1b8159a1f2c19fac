"""Generators by name: bundled, in a folder or a Hugging Face repository, with the codec that decodes their latents."""

import importlib
from pathlib import Path

from difflate.errors import ConfigError, ModelError
from difflate.models.generator import Generator
from difflate.models.latent_diffusion import LatentDiffusion, LatentGenerator
from difflate.models.latent_space import latent_space
from difflate.models.refiner import load_refiner, open_refiner
from difflate.store.config import read_config
from difflate.store.hub import bundled_codecs, bundled_models, load, model_folder

_CLASSES = {
    "pixel-diffusion": "difflate.models.pixel_diffusion:PixelDiffusion",
    "latent-diffusion": "difflate.models.latent_diffusion:LatentDiffusion",
    "categorical-diffusion": "difflate.models.categorical_diffusion:CategoricalDiffusion",
}
"""What a generator's config.json calls its kind, and the class of the model."""


def load_generator(
    name: str | Path,
    *,
    codec: str | Path | None = None,
    refine: bool = False,
    refiner: str | Path | None = None,
    softness: float | None = None,
    allow_download: bool = False,
) -> Generator:
    """The bundled generator of that name, or that in a model folder, or in the Hugging Face repository ``owner/name``.

    ``codec``: name or folder of the codec of a model of latents, needed where it is not bundled. ``refine``: improve
    the images by the refiner bundled for the codec, or by ``refiner``, a folder. ``softness``: how far around a sampled
    number a continuous model of latents averages codewords; None: as the model says. Raises ConfigError if there is no
    such generator or it has no such option, ModelError if it, or its codec, is incomplete, damaged or not here.
    """
    model = _load_model(name, allow_download)
    if softness is not None:
        if not isinstance(model, LatentDiffusion):
            raise ConfigError(
                f"{name}: softness is of continuous models of latents, which this one is not; leave it out"
            )
        model.soften(softness)
    if not isinstance(model, LatentGenerator):
        if codec is not None or refine or refiner is not None:
            raise ConfigError(f"{name}: generates pixels, not latents of a codec; leave codec and refiner out")
        return model
    if codec is None and model.latent.codec not in bundled_codecs():
        raise ModelError(
            f"{name}: its codec {model.latent.codec} is not bundled; name the folder of the codec with --codec, or "
            "codec= in Python"
        )
    try:
        space = latent_space(load(codec or model.latent.codec, allow_download=allow_download))
        model.latent.check(space)
        own = None if refiner is None else open_refiner(refiner, allow_download=allow_download)
        return model.use_codec(space, load_refiner(space, own) if refine or own else None)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error


def _load_model(name: str | Path, allow_download: bool) -> Generator:
    """The model alone. Raises ConfigError, ModelError."""
    folder = model_folder(name, allow_download=allow_download)
    if folder is None:
        bundled = [name for name, config in bundled_models().items() if config.get("kind") in _CLASSES]
        raise ConfigError(
            f"generator {str(name)!r} is unknown; name {' or '.join(bundled)}, which is bundled, or a folder that "
            "`difflate train` wrote"
        )
    kind = read_config(folder).get("kind")
    if not isinstance(kind, str) or kind not in _CLASSES:
        kinds = ", ".join(_CLASSES)
        raise ModelError(f"{folder}: kind (={kind}) must be one of {kinds}; name the folder of a generator")
    module, _, cls = _CLASSES[kind].partition(":")
    return getattr(importlib.import_module(module), cls).from_pretrained(folder)
