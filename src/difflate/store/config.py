"""The config.json of a model folder."""

import json
from pathlib import Path
from typing import Any

from difflate.errors import ModelError

CONFIG, CARD = "config.json", "README.md"
_CONFIG_MAX_BYTES = 1 << 20


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model folder. Raises ModelError."""
    path = folder / CONFIG
    try:
        if path.stat().st_size > _CONFIG_MAX_BYTES:
            raise ModelError(f"{path}: larger than {_CONFIG_MAX_BYTES} bytes; it is not a model's configuration")
        config = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: is not a model folder, {CONFIG} is missing; name another folder") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); get the model folder again") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: must be a JSON object; get the model folder again")
    return config
