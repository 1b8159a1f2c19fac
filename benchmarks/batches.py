"""Encoding and decoding several images at once against one after the other: images a second on a device."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

import difflate
from benchmarks.codecs import Clock
from benchmarks.timing import Fact, Results, Stopwatch, Timings, stopwatch
from difflate.codecs.learned import LearnedCodec
from difflate.media.picture import Picture

CODECS = ("opq-32-8-8", "hyperprior-small", "cdc-small", "diffae-small")
SIZE_PX = 224
BATCHES = (1, 4, 16, 64)
LEAST = 16
"""Images that are coded, if batches are smaller."""
ROUNDS_SHARE = 41


def run(image: Image.Image, rounds: int, device: str) -> Results:
    """Ratios to batches of one, for crops of ``image``, of whole files: the entropy coder's part of a batch is done
    image by image, on the CPU."""
    pictures = crops(image, max(BATCHES))
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    parts = [_codec(codec, pictures, max(1, rounds // ROUNDS_SHARE), device) for codec in CODECS]
    facts = [Fact(f"batches of {SIZE_PX} x {SIZE_PX} px, device", name)]
    return Results(
        [row for part in parts for row in part.rows], facts + [fact for part in parts for fact in part.facts]
    )


def crops(image: Image.Image, count: int) -> list[Picture]:
    """``count`` squares of ``image``, the same ones each time."""
    pixels = np.array(image.convert("RGB")).transpose(2, 0, 1)
    random = np.random.default_rng(0)
    corners = random.integers(0, [side - SIZE_PX for side in pixels.shape[1:]], (count, 2), endpoint=True)
    return [Picture(np.ascontiguousarray(pixels[:, y : y + SIZE_PX, x : x + SIZE_PX])) for y, x in corners]


def _codec(name: str, pictures: list[Picture], rounds: int, device: str) -> Results:
    codec: Any = difflate.load(name)
    assert isinstance(codec, LearnedCodec)
    codec.to(device)
    files = [made for made in codec.encode_many(pictures) if isinstance(made, bytes)]
    verbs: dict[str, tuple[Callable[[list[Any]], list[Any]], list[Any], tuple[object, str]]] = {
        "encode": (codec.encode_many, pictures, (codec, "analyse")),
        "decode": (codec.decode_many, files, (codec.restorer, "restore")),
    }
    programs: dict[str, Stopwatch] = {}
    networks: dict[str, list[float]] = {}
    for verb, (work, given, network) in verbs.items():
        for batch in BATCHES:
            what = f"{name}, {verb} {batch} at once"
            networks[what] = []
            programs[what] = _timed(work, given, batch, network, networks[what])
    timings = Timings(programs, rounds, warm_up=1)
    codec.to("cpu")  # bundled codecs are kept loaded
    rows, facts = [], []
    for verb in verbs:
        one, *others = (f"{name}, {verb} {batch} at once" for batch in BATCHES)
        for what, batch in zip(others, BATCHES[1:], strict=True):
            rows.append(timings.row(what, what, one, scale=_count(batch) / _count(1)))
        for what, batch in zip((one, *others), BATCHES, strict=True):
            facts.append(Fact(f"{what}, images/s", _count(batch) / timings.ms(what) * 1e3))
            share = float(np.median(networks[what][-rounds:])) * 1e5 / timings.ms(what)
            facts.append(Fact(f"{what}, large network, % of the time", share))
    return Results(rows, facts)


def _count(batch: int) -> int:
    return max(batch, LEAST)


def _timed(
    work: Callable[[list[Any]], list[Any]], given: list[Any], batch: int, network: tuple[object, str], into: list[float]
) -> Stopwatch:
    """Times ``work`` on as many of ``given`` as `_count` says, ``batch`` at a time; the seconds of ``network``, an
    object and the name of its method, go ``into`` a list."""

    def all_batches() -> None:
        for start in range(0, _count(batch), batch):
            for made in work(given[start : start + batch]):
                if isinstance(made, Exception):
                    raise made

    def run_once() -> float:
        clock = Clock()
        with clock.watching(network):
            seconds = stopwatch(all_batches)()
        into.append(clock.seconds)
        return seconds

    return run_once
