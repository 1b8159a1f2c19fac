"""Finding a codec: by the name of a classical or bundled one, by a model's folder, or by what a file says.

Imports torch only when a learned codec is loaded.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from difflate import registry
from difflate.codecs.base import Codec
from difflate.codecs.classical import classical_codecs, sniff
from difflate.codecs.classical_video import classical_video_codecs
from difflate.errors import ConfigError, ImageError, ModelError
from difflate.format import container
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.store.config import read_config
from difflate.store.former import former_model
from difflate.store.hub import bundled_folder, bundled_models, model_folder


def load(name: str | Path, *, allow_download: bool = False) -> Codec:
    """The codec of that name (``jpeg``, ``opq-32-8-8`` …), or in the folder that `model_folder` finds.

    ``avc``, ``hevc`` and ``av1`` are a `difflate.codecs.base.ClipCodec` alone. Raises ConfigError if there
    is none, ModelError if the folder's model is incomplete, altered or not here.
    """
    classical: dict[str, Any] = {**classical_codecs(), **classical_video_codecs()}
    if str(name) in classical:
        return classical[str(name)]
    if str(name).lower() in bundled_models("codec"):
        return _load_bundled(bundled_folder(str(name).lower()))
    folder = model_folder(name, allow_download=allow_download)
    if folder is not None:
        return _load_folder(folder)  # not cached: training may have written it anew
    known = ", ".join([*classical, *bundled_models("codec")])
    raise ConfigError(f"codec {str(name)!r} is unknown; choose one of {known}, or name a model's folder")


def load_for_files(name: str | Path, allow_download: bool = False) -> Codec:
    """The learned codec that .dfl files are to be read with. Raises ConfigError for a classical one, and as `load`."""
    codec = load(name, allow_download=allow_download)
    if codec.suffix != ".dfl":
        raise ConfigError(f"`codec` (={name}) must be a model's folder; {codec.suffix} files need none: leave it out")
    return codec


def config_for_files(name: str | Path) -> dict[str, Any]:
    """The config.json of the model of .dfl files. Raises ConfigError, ModelError; imports no torch."""
    folder = model_folder(name)
    if folder is None:
        raise ConfigError(f"`codec` (={name}) must be a model's folder, or the name of a bundled one")
    return read_config(folder)


def check_written_with(config: Mapping[str, Any], file: container.DflFile) -> None:
    """Raises ModelError if ``file`` was not written with the model of that config.json."""
    kind, fingerprint = registry.kind_of(config), str(config.get("fingerprint", ""))
    if kind is None or kind.number != file.codec or not fingerprint.startswith(file.model_id.hex()):
        raise ModelError(f"written with model {file.model_id.hex()}, not with {fingerprint[:8]}; name the right folder")


@functools.cache
def _load_bundled(folder: Path) -> Codec:
    return _load_folder(folder)


def _load_folder(folder: Path) -> Codec:
    config = read_config(folder)
    kind = registry.kind_of(config)
    if kind is None:
        name = config.get("kind", config.get("codec"))
        raise ModelError(f"{folder}: kind (={name}) is unknown to this version; update difflate or get another model")
    if kind.role != "codec":
        raise ModelError(f"{folder}: is a {kind.role}, not a codec; use it with: {kind.verb}")
    return kind.load_class().load(folder)


def codec_for(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Codec:
    """The codec that reads the file ``data``. Raises FormatError, ModelError (its model is not here), LimitExceeded."""
    if data[:4] == container.MAGIC or not data:
        return codec_of(container.read_dfl(data, limits))
    name = sniff(data)
    if name is None:
        if container.MAGIC.startswith(data[:4]):
            container.read_dfl(data, limits)
        raise ImageError("neither a .dfl file nor a JPEG, WebP, AVIF, PNG or JPEG XL image; nothing to restore")
    return classical_codecs()[name]


def model_of(file: container.DflFile) -> str | None:
    """The name of the bundled model that a file was written with; None if it is another. Imports no torch."""
    kind = registry.kind_of_number(file.codec)
    for name, config in bundled_models("codec").items():
        # a diffusion codec has the entropy model of the transform codec that it was made from
        if registry.kind_of(config) == kind and config["fingerprint"].startswith(file.model_id.hex()):
            return name
    return None


_used: list[Codec] = []


def use_model(name: str | Path, *, allow_download: bool = False) -> Codec:
    """The codec of a model that is not bundled; from now on this process finds it for the files that it wrote.

    So Pillow and imageio open them too. Raises as `load`, and ConfigError for a classical codec.
    """
    codec = load_for_files(name, allow_download)
    _used.insert(0, codec)
    return codec


def codec_of(file: container.DflFile) -> Codec:
    """The codec that a .dfl file was written with. Raises ModelError if its model is not here."""
    for codec in _used:
        if (codec.kind.number, codec.model_id) == (file.codec, file.model_id):  # type: ignore[attr-defined]
            return codec
    name = model_of(file)
    if name is not None:
        return load(name)
    former = former_model(file.codec, file.model_id)
    if former is not None:
        raise ModelError(former.error)
    raise ModelError(
        f"written with model {file.model_id.hex()}, which is not bundled; name its folder "
        "with --codec, or codec= or difflate.use_model() in Python"
    )
