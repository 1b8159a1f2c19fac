"""Codecs and qualities to evaluate, as they are written on the command line."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from difflate.codecs.base import Codec
from difflate.errors import ConfigError
from difflate.evaluate.options import load_with_options

MAX_SETTINGS_PER_RANGE = 101
_RANGE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class CodecSetting:
    """A codec at one quality."""

    codec: str
    """The name that `difflate.load` knows."""
    quality: float | None = None
    """None: the codec has one quality only, or its default is meant (`parse_codecs` puts that in its place)."""

    def __str__(self) -> str:
        return self.codec if self.quality is None else f"{self.codec}:{self.quality:.10g}"


def parse_codecs(text: str, load: Callable[[str], Codec] | None = None) -> list[CodecSetting]:
    """The settings in ``text``: ``jpeg:50,webp:10..90..20,vq-8-8-8``, in order and each once.

    ``name`` is the codec at its default quality, ``name:quality`` at that quality, and ``name:low..high..step`` at
    low, low + step … up to high; options stand behind the name: ``cdc-small+steps=1+gamma=0:50``.
    Raises ConfigError for an unknown codec, a quality that is not a number or outside of the codec's range, and a
    quality for a codec that has only one; ModelError for a model that is damaged.
    """
    plain = load or load_codec
    settings: dict[CodecSetting, None] = {}
    for item in (part.strip() for part in text.split(",")):
        if not item:
            continue
        name, colon, wanted = item.partition(":")
        codec = load_with_options(name, plain)
        for quality in _qualities(item, wanted) if colon else [None]:
            settings[CodecSetting(name, _quality_of(codec, item, quality))] = None
    if not settings:
        raise ConfigError(f"codecs (='{text}') names no codec; give a list such as jpeg:50,opq-32-8-8")
    return list(settings)


def load_codec(name: str) -> Codec:
    """What `difflate.codecs.loading.load` has for that name, imported when used."""
    from difflate.codecs import loading

    return loading.load(name)


def _qualities(item: str, text: str) -> list[float | None]:
    """The numbers that ``50`` or ``10..90..20`` stands for."""
    try:
        numbers = [float(part) for part in text.split("..")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and math.isfinite(numbers[0]):
        return [numbers[0]]
    if len(numbers) == 3 and all(map(math.isfinite, numbers)):
        low, high, step = numbers
        if low <= high and step > 0 and (high - low) / step < MAX_SETTINGS_PER_RANGE:
            count = math.floor((high - low) / step + _RANGE_TOLERANCE) + 1
            return [round(low + i * step, 9) for i in range(count)]
    raise ConfigError(f"codec setting '{item}' needs a number or low..high..step after the colon")


def _quality_of(codec: Codec, item: str, quality: float | None) -> float | None:
    """``quality``, or the codec's default for None. Raises ConfigError if the codec does not take it."""
    if codec.quality_range is None:
        if quality is None:
            return None
        raise ConfigError(f"codec setting '{item}' has a quality but {codec.name} has one only; write {codec.name}")
    low, high, default = codec.quality_range
    if quality is None:
        return float(default)
    if not low <= quality <= high:
        raise ConfigError(f"codec setting '{item}' has quality {quality:g}, {codec.name} takes {low:g} to {high:g}")
    return quality
