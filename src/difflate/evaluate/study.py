"""A blind comparison by people: pairs of pictures of one image in files of equal size, on a page that asks which."""

import base64
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from difflate.errors import ConfigError
from difflate.evaluate.html import render
from difflate.evaluate.pictures import PictureFolder
from difflate.evaluate.records import Record
from difflate.evaluate.results import Results
from difflate.seeds import Stream, numpy_generator

ANSWERS_VERSION = 1
"""Of the answers that a page writes."""
QUESTIONS = {False: "better", True: "closer"}
"""Without and with the original in sight: which looks better, which is closer to the original."""


@dataclass(frozen=True)
class Pairing:
    """Which pairs a study shows."""

    tolerance: float = 0.05
    """How much larger than the smaller file the other may be, as a part of it."""
    bpp_range: tuple[float, float] | None = None
    """Only files within these rates; None: all."""
    codecs: tuple[str, ...] = ()
    """Only pairs of these; empty: of all."""
    most: int = 40
    """No more pairs than these, of the pairs of codecs in turn."""
    seed: int = 0
    """Which of them, where there are more."""
    original: bool = False
    """Whether the page shows the original too, and asks which picture is closer to it."""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 1:
            raise ConfigError(f"tolerance (={self.tolerance:g}) must be from 0 to 1, such as 0.05")
        if self.most < 1:
            raise ConfigError(f"pairs (={self.most}) must be at least 1")
        if self.bpp_range is not None and not 0 < self.bpp_range[0] < self.bpp_range[1]:
            low, high = self.bpp_range
            raise ConfigError(f"bpp (={low:g}, {high:g}) must be two rising rates above 0, such as 0.15 0.5")


def pairs(records: Sequence[Record], pairing: Pairing) -> list[tuple[Record, Record]]:
    """The pairs of a study, in no particular order: of each image and two codecs the two settings nearest in size.

    Pictures without an error are left out: there is nothing to prefer. Raises ConfigError for codecs that the records
    do not have, and where no two files are of equal size within the tolerance.
    """
    codecs = list(dict.fromkeys(record.codec for record in records))
    for codec in pairing.codecs:
        if codec not in codecs:
            raise ConfigError(f"codecs (={codec}) is not in the report, which has {', '.join(codecs)}")
    by_image: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        if record.error is None and not record.lossless and _wanted(record, pairing):
            by_image.setdefault(record.image, {}).setdefault(record.codec, []).append(record)
    found: dict[tuple[str, str], list[tuple[Record, Record]]] = {}
    for names in itertools.combinations([codec for codec in codecs if codec in (pairing.codecs or codecs)], 2):
        for of in by_image.values():
            all_pairs = itertools.product(of.get(names[0], []), of.get(names[1], []))
            near = min(all_pairs, key=_difference, default=None)
            if near is not None and _difference(near) <= pairing.tolerance:
                found.setdefault(names, []).append(near)
    if not found:
        raise ConfigError(
            f"no two codecs of the report have files of one image within {pairing.tolerance:.0%} of each other's size"
            + (" at these rates" if pairing.bpp_range else "")
            + "; evaluate more qualities, or raise --tolerance"
        )
    random = numpy_generator(pairing.seed, Stream.STUDY_PAIRS)
    shuffled = [[of[i] for i in random.permutation(len(of))] for of in found.values()]
    in_turn = [pair for row in itertools.zip_longest(*shuffled) for pair in row if pair is not None]
    return in_turn[: pairing.most]


def study_page(results: Results, folder: PictureFolder, pairing: Pairing) -> tuple[str, int]:
    """The page, and how many pairs it has; its pictures are pixel for pixel those of the report.

    Raises ConfigError as `pairs` does and where the report has no pictures.
    """
    if not results.protocol.get("pictures"):
        raise ConfigError("the report has no pictures; evaluate images without --no-pictures")
    chosen = pairs(results.records, pairing)
    sources: dict[str, str] = {}

    def source(path: Any) -> str:
        folder.read(path)  # damage is told now, not in front of people
        data = path.read_bytes()
        name = hashlib.sha256(data).hexdigest()[:16]
        sources[name] = f"data:image/{path.suffix[1:]};base64,{base64.b64encode(data).decode()}"
        return name

    trials = []
    for pair in chosen:
        sides = [{"setting": record.setting, "codec": record.codec, "bytes": record.bytes} for record in pair]
        hidden = json.dumps({"image": pair[0].image, "sides": sides})
        trials.append(
            {
                # so that nobody who looks into the page reads by mistake what he is to judge blindly
                "key": base64.b64encode(hidden.encode()).decode(),
                "pictures": [source(folder.restored(record)) for record in pair],
                "original": source(folder.original(pair[0])) if pairing.original else None,
                "width": pair[0].width,
                "height": pair[0].height,
            }
        )
    data = {
        "version": ANSWERS_VERSION,
        "report": results.digest,
        "question": QUESTIONS[pairing.original],
        "tolerance": pairing.tolerance,
        "trials": trials,
        "sources": sources,
    }
    data["study"] = hashlib.sha256(json.dumps(data).encode()).hexdigest()
    return render("study_page", ("page.js",), data), len(trials)


def _wanted(record: Record, pairing: Pairing) -> bool:
    rate = record.values.get("bpp")
    if rate is None or not record.bytes:
        return False
    return pairing.bpp_range is None or pairing.bpp_range[0] <= rate <= pairing.bpp_range[1]


def _difference(pair: tuple[Record, Record]) -> float:
    sizes = sorted(record.bytes or 0 for record in pair)
    return sizes[1] / sizes[0] - 1
