"""What there is, one row each: the kinds of models, and the recipes that train them.

Whatever depends on a kind reads its row: finding and loading models, `difflate compress`, `decompress`, `info`,
`codecs`, `verify`, `eval`, `sample` and `train`, the Pillow plugin. Imports no torch: a row names what is imported when
it is used.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from difflate import options
from difflate.errors import ConfigError
from difflate.format import sections

Role = Literal["codec", "refiner", "restorer", "generator"]
WEIGHTS = Path(__file__).parent / "weights"
QUALITY_STEPS = 65535
"""A quality in files: this is 100."""
_QUALITY = (0.0, 100.0, 50.0)
_SAMPLE = "difflate sample FOLDER -n 16 -o grid.png"


@dataclass(frozen=True)
class Kind:
    """A kind of model: what config.json calls it, and what difflate does with it."""

    name: str
    """The entry `kind` of config.json."""
    role: Role
    target: str
    """``module:Class``; the class has ``load(folder)``."""
    verb: str = ""
    """A command that uses a model of this kind, for its card and for errors."""
    models: Path = WEIGHTS
    """Folder of the models of this kind that are found by their names."""
    number: int | None = None
    """The codec's number in files, 1 to 14: registered in docs/format.md and never given to another."""
    encoding: type[options.Encoding] = options.Encoding
    decoding: type[options.Options] = options.Options
    clips_only: bool = False
    """Its codecs code clips, not images."""
    quality: tuple[float, float, float] | None = None
    """(smallest, largest, default) quality of a codec; None: it has one only."""
    about: Callable[[Mapping[str, Any]], str] = lambda config: ""
    """A few words for lists, from a model's config.json."""
    ratios: Callable[[Mapping[str, Any]], dict[str, float]] = lambda config: {}
    """How many times smaller than 24 bits a pixel latents are, as papers count, from a model's config.json."""
    settings: Callable[[Mapping[int, bytes]], dict[str, Any]] = lambda kept: {}
    """How a file was made, and is to be restored, from its sections."""

    def load_class(self) -> Any:
        """The class of `target`, imported now."""
        module, _, name = self.target.partition(":")
        return getattr(importlib.import_module(module), name)


def _about_vq(config: Mapping[str, Any]) -> str:
    bits, pixels = sum(config["plane_bits"]), config["patch_px"] ** 2
    return f"{config['method'].upper()}, {bits} bits a patch at fixed rate: 1:{24 * pixels / bits:.0f}"


def quality_settings(kept: Mapping[int, bytes]) -> dict[str, Any]:
    """{"quality": …} of a file with one latent for all rates; empty where the section is missing or cut."""
    data = kept.get(sections.LATENT, b"")
    return {"quality": round(100 * int.from_bytes(data[:2], "little") / QUALITY_STEPS, 2)} if len(data) >= 2 else {}


def _cdc_settings(kept: Mapping[int, bytes]) -> dict[str, Any]:
    hints = options.DiffusionDecoding.from_sections(kept)
    values = {key: getattr(hints, key) for key in ("steps", "gamma", "seed")}
    return quality_settings(kept) | {key: value for key, value in values.items() if value is not None}


def _diffae_settings(kept: Mapping[int, bytes]) -> dict[str, Any]:
    hints = options.SamplingDecoding.from_sections(kept)
    values = {key: getattr(hints, key) for key in ("steps", "guidance", "seed", "text")}
    return _latent_settings(kept) | {key: value for key, value in values.items() if value is not None}


def latent_ratios(config: Mapping[str, Any]) -> dict[str, float]:
    """How many times smaller than 24 bits a pixel the latent of an autoencoder is: each of its numbers as 16 bits
    (Rampas 2024: 96), and quantised, at the fixed rate (1536); {} where config.json says nothing of a latent."""
    latent = config.get("latent") or {}
    pixel_bits = 24 * latent.get("stride_px", 0) ** 2 * latent.get("frames", 1)
    ratios = {"numbers_16_bits": 16 * latent.get("channels", 0), "fixed_rate": sum(latent.get("plane_bits") or ())}
    return {name: pixel_bits / bits for name, bits in ratios.items() if bits}


def _about_diffae(config: Mapping[str, Any]) -> str:
    fixed = latent_ratios(config).get("fixed_rate")
    return "a coarse latent, restored by diffusion" + (f": 1:{fixed:.0f} at fixed rate" if fixed else "")


def _about_video(config: Mapping[str, Any]) -> str:
    fixed = latent_ratios(config).get("fixed_rate")
    return "clips: few latent frames, restored by diffusion" + (f": 1:{fixed:.0f} at fixed rate" if fixed else "")


def _rate_settings(kept: Mapping[int, bytes]) -> dict[str, Any]:
    return {"fixed_rate": sections.FIXED in kept}


def _latent_settings(kept: Mapping[int, bytes]) -> dict[str, Any]:
    return {} if sections.LATENT in kept else _rate_settings(kept)


KINDS: dict[str, Kind] = {}


def register(kind: Kind) -> Kind:
    """Adds ``kind``, of difflate or of a program of its own. Raises ConfigError for a name or number that is taken."""
    for other in KINDS.values():
        if other.name == kind.name or (kind.number is not None and other.number == kind.number):
            raise ConfigError(f"kind {kind.name!r} (number {kind.number}) is taken by {other.name!r}; choose another")
    KINDS[kind.name] = kind
    return kind


def unregister(name: str) -> None:
    """Takes a kind out again. Raises KeyError."""
    del KINDS[name]


for _row in (
    Kind(
        "vq", "codec", "difflate.codecs.vq:VqCodec", "difflate compress photo.png --codec FOLDER", number=1,
        encoding=options.IndexEncoding, decoding=options.IndexDecoding, about=_about_vq, settings=_rate_settings,
    ),
    Kind(
        "hyperprior", "codec", "difflate.codecs.hyperprior:HyperpriorCodec",
        "difflate compress photo.png --codec FOLDER --bpp 0.4", number=2,
        encoding=options.TransformEncoding, decoding=options.TransformDecoding, quality=_QUALITY,
        about=lambda config: "transform coding with a scale hyperprior, any rate; fast", settings=quality_settings,
    ),
    Kind(
        "cdc", "codec", "difflate.codecs.cdc:CdcCodec", "difflate compress photo.png --codec FOLDER --bpp 0.4",
        number=3, encoding=options.DiffusionEncoding, decoding=options.DiffusionDecoding, quality=_QUALITY,
        about=lambda config: "the same, restored by a few steps of diffusion", settings=_cdc_settings,
    ),
    Kind(
        "autoencoder", "codec", "difflate.codecs.autoencoder:AutoencoderCodec",
        "difflate compress photo.png --codec FOLDER", number=4,
        encoding=options.AutoencoderEncoding, decoding=options.AutoencoderDecoding,
        about=lambda config: f"an encoder and a decoder, {config['bottleneck']['kind']} between",
        ratios=latent_ratios, settings=_latent_settings,
    ),
    Kind(
        "diffae", "codec", "difflate.codecs.diffae:DiffaeCodec", "difflate compress photo.png --codec FOLDER", number=5,
        encoding=options.SamplingEncoding, decoding=options.SamplingDecoding, about=_about_diffae,
        ratios=latent_ratios, settings=_diffae_settings,
    ),
    Kind(
        "diffae-video", "codec", "difflate.codecs.diffae_video:DiffaeVideoCodec",
        "difflate compress clip.mp4 --codec FOLDER", number=6, clips_only=True, encoding=options.SamplingEncoding,
        decoding=options.SamplingDecoding, about=_about_video, ratios=latent_ratios, settings=_diffae_settings,
    ),
    Kind(
        "video-autoencoder", "codec", "difflate.codecs.video_autoencoder:VideoAutoencoderCodec",
        "difflate compress clip.mp4 --codec FOLDER", number=7, encoding=options.AutoencoderEncoding,
        decoding=options.AutoencoderDecoding,
        about=lambda config: f"clips: an encoder and a decoder, {config['bottleneck']['kind']} between",
        ratios=latent_ratios, settings=_latent_settings,
    ),
    Kind("refiner", "refiner", "difflate.models.refiner:Refiner", "difflate decompress photo.dfl --refiner FOLDER"),
    Kind("restorer", "restorer", "difflate.models.restorer:Restorer", "difflate restore photo.jpg --model FOLDER"),
    Kind("pixel-diffusion", "generator", "difflate.models.pixel_diffusion:PixelDiffusion", _SAMPLE),
    Kind("latent-diffusion", "generator", "difflate.models.latent_diffusion:LatentDiffusion", _SAMPLE),
    Kind("categorical-diffusion", "generator", "difflate.models.categorical_diffusion:CategoricalDiffusion", _SAMPLE),
):  # fmt: skip
    register(_row)


def kind_of(config: Mapping[str, Any]) -> Kind | None:
    """The kind of a model with that config.json; None: it is unknown."""
    # vq models of before version 1 say codec where all others say kind; a refiner's codec is the name of another model
    name = config.get("kind") or config.get("codec")
    return KINDS.get(name) if isinstance(name, str) else None


def codec_kinds() -> list[Kind]:
    """Those that are codecs, by their numbers."""
    return sorted((kind for kind in KINDS.values() if kind.role == "codec"), key=lambda kind: kind.number or 0)


def kind_of_number(number: int) -> Kind | None:
    """The codec with that number in files."""
    return next((kind for kind in codec_kinds() if kind.number == number), None)


RECIPES = {
    "vq": "difflate.train.recipes.vq",
    "pixel": "difflate.train.recipes.pixel",
    "latent": "difflate.train.recipes.latent",
    "hyperprior": "difflate.train.recipes.hyperprior",
    "cdc": "difflate.train.recipes.cdc",
    "autoencoder": "difflate.train.recipes.autoencoder",
    "video-autoencoder": "difflate.train.recipes.video_autoencoder",
    "refiner": "difflate.train.recipes.refiner",
    "restorer": "difflate.train.recipes.restorer",
    "distil": "difflate.train.recipes.distil",
    "diffae": "difflate.train.recipes.diffae",
    "diffae-video": "difflate.train.recipes.diffae_video",
}
"""What a configuration's key `recipe` names, and the module whose ``RECIPE`` trains it."""


def recipe(name: str) -> Any:
    """The `difflate.train.recipe.Recipe` of that name. Raises KeyError."""
    return importlib.import_module(RECIPES[name]).RECIPE
