"""Whether a training may go on from a checkpoint: it must be the same training."""

from pathlib import Path
from typing import Any

from difflate.data.crops import Samples
from difflate.errors import ConfigError
from difflate.train.settings import FREE_ON_RESUME


def check_same(before: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    """Raises ConfigError for a setting that a training cannot change when it goes on."""
    free = FREE_ON_RESUME | {"out", "init_from"}
    old, new = _flat(before), _flat(now)
    for key in [*new, *(key for key in old if key not in new)]:
        # what only `new` has was added by a later version of the program
        if key.rsplit(".", 1)[-1] not in free and key in old and old[key] != new.get(key):
            raise ConfigError(
                f"{key} (={new.get(key)}) is {old[key]} in {path}; give it that value to go on, choose another out, "
                "or set force=true to start anew"
            )


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Keys of sections as section.key; what is a dict inside of a section is one value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def names_of(samples: Samples, held_back: Samples | None) -> dict[str, Any]:
    """What tells whether the data are the same as before: their order follows from their number."""
    none = "0 images, names 00000000"  # as `Crops.identity` would say, which older checkpoints have
    return {
        "training_images": samples.identity(),
        "held_back_images": held_back.identity() if held_back else none,
    }
