"""What one codec setting made of one image or clip."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from difflate.evaluate import measures


@dataclass(frozen=True)
class Record:
    """One codec setting on one image or clip. There are no measurements where ``error`` is set."""

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
    kind: measures.Kind = "images"
    frames: int | None = None
    """Of a clip."""
    jobs: int | None = field(default=None, compare=False)
    """So many workers, each with one thread, measured at once; None: one process with all of its threads."""
    peak_memory_bytes: int | None = field(default=None, compare=False)
    """The most memory that the process that measured it had had resident by then."""

    @property
    def lossless(self) -> bool:
        """Whether the restored image is identical, or all frames are."""
        infinite = [self.values.get(m.key) for m in measures.measures_for(self.kind) if m.infinite]
        return math.inf in infinite and all(value in (math.inf, None) for value in infinite)

    def to_json(self) -> dict[str, Any]:
        """The record as one flat dictionary of what JSON has: infinity becomes None, and so does what is not there."""
        data = {key: getattr(self, key) for key in ("image", "codec", "quality", "setting", "width", "height", "bytes")}
        if self.kind == "clips":
            data = {"clip": data.pop("image"), **data, "frames": self.frames}
        for measure in measures.measures_for(self.kind):
            value = self.values.get(measure.key)
            data[measure.key] = None if value == math.inf else value
            if measure.nets:
                data[measure.net_key] = self.nets.get(measure.key)
        return data | {"error": self.error, "exit_code": self.exit_code}


def worst_exit_code(records: Iterable[Record]) -> int:
    """The highest exit code among ``records``, 0 if nothing failed."""
    return max((record.exit_code for record in records), default=0)


def failures(records: Iterable[Record]) -> list[str]:
    """A line for each image and error: the settings that it was the error of, unless it was of all."""
    settings: dict[str, list[str]] = {}
    failed: dict[tuple[str, str], list[str]] = {}
    for record in records:
        settings.setdefault(record.image, []).append(record.setting)
        if record.error:
            failed.setdefault((record.image, record.error), []).append(record.setting)
    lines = []
    for (image, error), of in failed.items():
        which = image if of == settings[image] else f"{image}, {', '.join(of)}"
        lines.append(" ".join(f"{which}: {error}".splitlines()))
    return lines


def kind_of(records: Iterable[Record]) -> measures.Kind:
    """What the records are of; no run is of both."""
    for record in records:
        return record.kind
    return "images"
