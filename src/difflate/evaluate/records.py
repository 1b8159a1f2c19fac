"""What one codec setting made of one image."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from difflate.evaluate import measures


@dataclass(frozen=True)
class Record:
    """One codec setting on one image. There are no measurements where ``error`` is set."""

    image: str
    """File name."""
    codec: str
    quality: float | None
    setting: str
    """``codec:quality``, as it is written on the command line."""
    width: int | None = None
    """Width in pixels."""
    height: int | None = None
    """Height in pixels."""
    bytes: int | None = None
    """Size of the complete file."""
    values: Mapping[str, float | None] = field(default_factory=dict)
    """Values by the keys of `measures.MEASURES` that were asked for; None: the image is too small for it."""
    nets: Mapping[str, str] = field(default_factory=dict)
    """The networks of the measures that have a choice of them."""
    error: str | None = None
    """One sentence, if the image could not be measured."""
    exit_code: int = 0
    """0, or the exit code of ``error``."""

    @property
    def lossless(self) -> bool:
        """Whether the restored image is identical."""
        return math.inf in self.values.values()

    def to_json(self) -> dict[str, Any]:
        """The record as one flat dictionary of what JSON has: infinity becomes None, and so does what is not there."""
        data = {key: getattr(self, key) for key in ("image", "codec", "quality", "setting", "width", "height", "bytes")}
        for measure in measures.MEASURES:
            value = self.values.get(measure.key)
            data[measure.key] = None if value == math.inf else value
            if measure.nets:
                data[measure.net_key] = self.nets.get(measure.key)
        return data | {"error": self.error, "exit_code": self.exit_code}


def worst_exit_code(records: Iterable[Record]) -> int:
    """The highest exit code among ``records``, 0 if nothing failed."""
    return max((record.exit_code for record in records), default=0)
