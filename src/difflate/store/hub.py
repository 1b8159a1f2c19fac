"""Finding a codec: by the name of a classical or bundled one, by a model's folder, or by what a file says.

Imports torch only when a learned codec is loaded.
"""

import functools
import json
import re
from pathlib import Path

from difflate import DEFAULT_CODEC
from difflate.codecs.base import Codec
from difflate.codecs.classical import classical_codecs, sniff
from difflate.errors import ConfigError, ImageError, ModelError
from difflate.format import container
from difflate.limits import DEFAULT_LIMITS, Limits

MODEL_FILES = ["config.json", "README.md", "training.yaml", "*.safetensors", "*.safetensors.index.json"]
"""All that is ever fetched of a repository."""
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"


def bundled_models() -> dict[str, dict]:
    """Name to config.json of each model that ships with the package. Imports no torch."""
    found = {}
    for path in sorted(WEIGHTS_FOLDER.glob("*/config.json")):
        config = json.loads(path.read_text("utf-8"))
        found[path.parent.name] = config
    return found


def bundled_codecs() -> dict[str, dict]:
    """Those of `bundled_models` that are codecs."""
    return {name: config for name, config in bundled_models().items() if _kind(config) in _NUMBERS}


def _kind(config: dict) -> str:
    # a refiner's codec is the name of the one that it is for
    return config.get("kind") or config["codec"]


def load(name: str | Path = DEFAULT_CODEC, *, allow_download: bool = False) -> Codec:
    """The codec of that name (``jpeg``, ``opq-32-8-8`` …), or in the model folder that `model_folder` finds.

    Raises ConfigError if there is none, ModelError if the folder's model is incomplete, altered or not here.
    """
    classical = classical_codecs()
    if str(name) in classical:
        return classical[str(name)]
    if str(name).lower() in bundled_codecs():
        return _load_bundled(str(name).lower())
    folder = model_folder(name, allow_download=allow_download)
    if folder is not None:
        from difflate.codecs.loading import load_model

        return load_model(folder)  # not cached: training may have written it anew
    known = ", ".join([*classical, *bundled_codecs()])
    raise ConfigError(f"codec {str(name)!r} is unknown; choose one of {known}, or name a model's folder")


def model_folder(name: str | Path, *, allow_download: bool = False) -> Path | None:
    """The folder of a bundled model, of that name, or of a Hugging Face repository ``owner/name``; None: it is none.

    A repository is looked for in the local cache and, only if ``allow_download``, fetched: no more than config,
    safetensors and card. Raises ModelError if it is not in the cache, or cannot be fetched.
    """
    if str(name).lower() in bundled_models():
        return WEIGHTS_FOLDER / str(name).lower()
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not _REPOSITORY.fullmatch(str(name)):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = snapshot_download(str(name), allow_patterns=MODEL_FILES, local_files_only=not allow_download)
    except LocalEntryNotFoundError as error:
        if not allow_download:
            raise ModelError(
                f"{name}: is no folder, and not in the cache of Hugging Face models; fetch it with --allow-download of "
                "the commands that have it, or allow_download=True in Python"
            ) from error
        raise ModelError(f"{name}: cannot be fetched ({_reason(error)}); check the name and the network") from error
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors
        raise ModelError(f"{name}: cannot be fetched ({_reason(error)}); check the name and the network") from error
    return Path(found)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@functools.cache
def _load_bundled(name: str) -> Codec:
    from difflate.codecs.loading import load_model

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


_NUMBERS = {"vq": container.CODEC_VQ, "hyperprior": container.CODEC_HYPERPRIOR, "cdc": container.CODEC_CDC}


def model_of(file: container.DflFile) -> str | None:
    """The name of the bundled model that a file was written with; None if it is another. Imports no torch."""
    for name, config in bundled_codecs().items():
        # a diffusion codec has the entropy model of the hyperprior that it was made from
        if _NUMBERS[_kind(config)] == file.codec and config["fingerprint"].startswith(file.model_id.hex()):
            return name
    return None


def _codec_of_model(file: container.DflFile) -> Codec:
    name = model_of(file)
    if name is not None:
        return load(name)
    raise ModelError(
        f"written with model {file.model_id.hex()}, which is not bundled; name its folder "
        "with --codec, or codec= in Python"
    )
