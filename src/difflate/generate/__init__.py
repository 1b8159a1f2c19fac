"""Generators of images and latents."""

from pathlib import Path

from difflate.errors import ConfigError, ModelError
from difflate.generate.sampling import sample, trace, trajectory
from difflate.models.categorical_diffusion import CategoricalDiffusion
from difflate.models.generator import Generator
from difflate.models.latent_diffusion import LatentDiffusion, LatentGenerator, LatentSpec
from difflate.models.pixel_diffusion import PixelDiffusion
from difflate.store.config import read_config

__all__ = [
    "CategoricalDiffusion",
    "Generator",
    "LatentDiffusion",
    "LatentSpec",
    "PixelDiffusion",
    "load_generator",
    "sample",
    "trace",
    "trajectory",
]

_KINDS: dict[str, type[Generator]] = {cls.kind: cls for cls in (PixelDiffusion, LatentDiffusion, CategoricalDiffusion)}


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

    ``codec``: of a model of latents, by name or folder, needed where it is not bundled. ``refine``: improve its images
    by the refiner bundled for the codec, or by ``refiner``, a folder. ``softness``: of a continuous model of latents,
    how far around a sampled number codewords are averaged; None: as the model says. Raises ConfigError if there is no
    such generator or it has no such option, ModelError if it, or its codec, is incomplete, damaged or not here.
    """
    from difflate.codecs.loading import load
    from difflate.models.refiner import load_refiner, open_refiner
    from difflate.store.hub import bundled_models, model_folder

    folder = model_folder(name, allow_download=allow_download)
    if folder is None:
        bundled = (name for name, config in bundled_models().items() if config.get("kind") in _KINDS)
        raise ConfigError(
            f"generator {str(name)!r} is unknown; name {' or '.join(bundled)}, which is bundled, or a folder that "
            "`difflate train` wrote"
        )
    kind = read_config(folder).get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ModelError(f"{folder}: kind (={kind}) must be one of {', '.join(_KINDS)}; name the folder of a generator")
    model = _KINDS[kind].from_pretrained(folder)
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
        found = model.latent.check(load(codec or model.latent.codec, allow_download=allow_download))
        given = None if refiner is None else open_refiner(refiner, allow_download=allow_download)
        chosen = load_refiner(found, given) if refine or refiner is not None else None
        return model.use_codec(found, chosen)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
