"""Finding a codec: by the name of a classical or bundled one, by a model's folder, or by what a file says.

Imports torch only when a learned codec is loaded.
"""

import functools
import json
from pathlib import Path

from difflate import DEFAULT_CODEC, container
from difflate.codecs.base import Codec
from difflate.codecs.classical import classical_codecs, sniff
from difflate.errors import ConfigError, ImageError, ModelError
from difflate.limits import DEFAULT_LIMITS, Limits

WEIGHTS_FOLDER = Path(__file__).parent / "weights"


def bundled_models() -> dict[str, dict]:
    """Name to config.json of each model that ships with the package. Imports no torch."""
    found = {}
    for path in sorted(WEIGHTS_FOLDER.glob("*/config.json")):
        config = json.loads(path.read_text("utf-8"))
        found[config["name"]] = config
    return found


def load(name: str | Path = DEFAULT_CODEC) -> Codec:
    """The codec of that name (``jpeg``, ``opq-32-8-8`` …) or in that model folder.

    Raises ConfigError if there is none, ModelError if the folder's model is incomplete or altered.
    """
    classical = classical_codecs()
    if str(name) in classical:
        return classical[str(name)]
    if str(name).lower() in bundled_models():
        return _load_bundled(str(name).lower())
    folder = Path(name)
    if folder.is_dir():
        from difflate.models import load_model

        return load_model(folder)  # not cached: training may have written it anew
    known = ", ".join([*classical, *bundled_models()])
    raise ConfigError(f"codec {str(name)!r} is unknown; choose one of {known}, or name a model's folder")


@functools.cache
def _load_bundled(name: str) -> Codec:
    from difflate.models import load_model

    return load_model(WEIGHTS_FOLDER / name)


def codec_for(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Codec:
    """The codec that reads the file ``data``. Raises FormatError, ModelError (its model is not here), LimitExceeded."""
    if data[:4] == container.MAGIC or not data:
        return _codec_of_model(container.read_dfl(data, limits))
    name = sniff(data)
    if name is None:
        if container.MAGIC.startswith(data[:4]):
            container.read_dfl(data, limits)
        raise ImageError("neither a .dfl file nor a JPEG, WebP, AVIF, PNG or JPEG XL image; nothing to restore")
    return classical_codecs()[name]


def _codec_of_model(file: container.DflFile) -> Codec:
    for name, config in bundled_models().items():
        if config["fingerprint"].startswith(file.model_id.hex()):
            return load(name)
    raise ModelError(
        f"written with model {file.model_id.hex()}, which is not bundled; name its folder "
        "with --codec, or codec= in Python"
    )
