"""Whether a training may go on from a checkpoint: it must be the same training."""

import zlib
from pathlib import Path
from typing import Any

from difflate.data.crops import Crops
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


def names_of(crops: Crops, held_back: Crops | None) -> dict[str, Any]:
    """What tells whether the images are the same as before: their order follows from their number and names."""
    found = {}
    for name, items in (("training", crops.items), ("held_back", held_back.items if held_back else [])):
        names = "\n".join(f"{Path(item.path).name} {item.offset} {item.label}" for item in items)
        found[f"{name}_images"] = (
            f"{len(items)} images, names {zlib.crc32(names.encode('utf-8', 'surrogateescape')):08x}"
        )
    return found
