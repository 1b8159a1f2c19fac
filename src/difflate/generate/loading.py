"""Generators by name: bundled, in a folder or a Hugging Face repository, with the codec that decodes their latents."""

from pathlib import Path

from difflate import registry
from difflate.codecs.loading import load
from difflate.errors import ConfigError, ModelError
from difflate.models.generator import Generator
from difflate.models.latent_diffusion import LatentDiffusion, LatentGenerator
from difflate.models.latent_space import latent_space
from difflate.models.refiner import load_refiner, open_refiner
from difflate.store.config import read_config
from difflate.store.hub import bundled_models, model_folder


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
    if codec is None and model.latent.codec not in bundled_models("codec"):
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
        bundled = " or ".join(bundled_models("generator"))
        raise ConfigError(
            f"generator {str(name)!r} is unknown; name {bundled}, which is bundled, or a folder of `difflate train`"
        )
    config = read_config(folder)
    kind = registry.kind_of(config)
    if kind is None or kind.role != "generator":
        own = config.get("kind", config.get("codec"))
        known = [kind.name for kind in registry.KINDS.values() if kind.role == "generator"]
        raise ModelError(f"{folder}: kind (={own}) must be one of {', '.join(known)}; name the folder of a generator")
    return kind.load_class().load(folder)
