"""What the studio does with a photograph: encode it with several codecs, decode the files, measure."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from difflate import registry
from difflate.codecs.base import Codec, codec_of_pictures
from difflate.codecs.classical import classical_codecs
from difflate.codecs.learned import LearnedCodec
from difflate.codecs.loading import load
from difflate.codecs.rate_search import Coded, encode_picture
from difflate.errors import ConfigError, DifflateError
from difflate.format.webp import fallback_notes
from difflate.limits import Limits
from difflate.media.picture import Picture
from difflate.metrics.distortion import psnr
from difflate.store.hub import bundled_models
from difflate.studio.errors import told
from difflate.studio.watching import Canvas, streamed


@dataclass(frozen=True)
class Wish:
    """How a photograph is to be encoded; what a codec does not take it is not given."""

    bpp: float | None = None
    """At most so many bits per pixel; a codec that has one quality only takes what it takes."""
    quality: float | None = None
    """The codec's own number, in the place of ``bpp``; neither: its default."""
    steps: int | None = None
    """Of diffusion; None: as the model says."""
    seed: int | None = None
    """Of the noise that diffusion starts from."""


@dataclass(frozen=True)
class Moment:
    """A step of diffusion, as it happens."""

    codec: str
    step: int
    """From 0."""
    pixels: np.ndarray
    """(3, H, W) uint8."""


@dataclass(frozen=True)
class Outcome:
    """A file, and what is decoded from it."""

    codec: str
    name: str
    """Of the file: ``photo.cdc-small.dfl``."""
    data: bytes
    restored: Picture
    bpp: float
    psnr: float
    """dB; inf if nothing was lost."""
    encode_s: float
    decode_s: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """A codec that cannot do what was wished for."""

    codec: str
    message: str


Happening = Moment | Outcome | Refusal


def picture_codecs() -> list[str]:
    """The names of all bundled and classical codecs of images."""
    kinds = {name: registry.kind_of(config) for name, config in bundled_models("codec").items()}
    return [*(name for name, kind in kinds.items() if kind and not kind.clips_only), *classical_codecs()]


def compress(
    picture: Picture, name: str, codecs: Sequence[str], wish: Wish, limits: Limits, device: str = "cpu"
) -> Iterator[Happening]:
    """What happens while ``picture``, of a file ``name``, is encoded with ``codecs`` and decoded, one after the other:
    for each an `Outcome` or a `Refusal`, and `Moment`s before it where diffusion restores.

    Raises ConfigError for no codec.
    """
    if not codecs:
        raise ConfigError("no codec is chosen; choose at least one")

    def work(tell: Callable[[Happening], None]) -> None:
        for codec in codecs:
            try:
                tell(_tried(codec, picture, name, wish, limits, device, tell))
            except DifflateError as error:
                tell(Refusal(codec, told(error)))

    return streamed(work)


def _tried(
    name: str, picture: Picture, file: str, wish: Wish, limits: Limits, device: str, tell: Callable[[Happening], None]
) -> Outcome:
    """Raises DifflateError."""
    codec = loaded(name, device)
    began = time.perf_counter()
    coded, notes = _encoded(codec_of_pictures(codec), picture, wish, limits)
    encoded = time.perf_counter()

    def show(step: int, pixels: np.ndarray) -> None:
        tell(Moment(name, step, pixels))

    watch = {"watch": Canvas(picture.height, picture.width, show)} if isinstance(codec, LearnedCodec) else {}
    restored = codec.decode(coded.data, limits=limits, **watch)  # as it is written in the file
    done = time.perf_counter()
    return Outcome(
        codec=name,
        name=file_name(file, codec),
        data=coded.data,
        restored=restored,
        bpp=8 * len(coded.data) / (picture.width * picture.height),
        psnr=psnr(picture, restored),
        encode_s=encoded - began,
        decode_s=done - encoded,
        notes=(*notes, *fallback_notes(coded.data, limits)),
    )


def _encoded(codec: Codec, picture: Picture, wish: Wish, limits: Limits) -> tuple[Coded, list[str]]:
    """The file, and what of ``wish`` was not to be had. Raises DifflateError."""
    notes, bpp, quality = [], wish.bpp, wish.quality
    if codec.quality_range is None and (bpp is not None or quality is not None):
        notes.append("has one quality only")
        bpp = quality = None
    options = given(codec, steps=wish.steps, seed=wish.seed)
    coded = encode_picture(codec, picture, quality=quality, bpp=bpp, limits=limits, options=options)
    if coded.short:
        notes.append("gives no more than this")
    if coded.quality is not None:
        notes.append(f"quality {coded.quality:.3g}")
    return coded, notes


def loaded(name: str, device: str) -> Any:
    """The codec of that name, a learned one on ``device``. Raises ConfigError, ModelError."""
    codec = load(name)
    return codec.to(device) if isinstance(codec, LearnedCodec) else codec


def given(codec: Any, **options: Any) -> dict[str, Any]:
    """Those of ``options`` that ``codec`` takes for encoding and that are not None."""
    known = {field.name for field in dataclasses.fields(codec.encoding)}
    return {name: value for name, value in options.items() if value is not None and name in known}


def file_name(of: str, codec: Any) -> str:
    """``photo.cdc-small.dfl``: the name, without its folder, of a file that ``codec`` makes of the file ``of``."""
    return f"{PurePath(of).stem}.{codec.name}{codec.suffix}"
