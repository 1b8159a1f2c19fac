"""Codecs with options of decoding: ``cdc-small+steps=1+gamma=0`` as a codec of its own in an evaluation."""

import re
from collections.abc import Callable
from typing import Any

from difflate.codecs.base import Codec, options_for
from difflate.errors import ConfigError
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture

_WITH_OPTIONS = re.compile(r"(?P<name>[^+]+)(?P<options>(\+\w+=[^+=]*)+)")


def load_with_options(name: str, load: Callable[[str], Codec]) -> Codec:
    """The codec that ``load`` has for ``name`` without its options, decoding with them.

    Raises ConfigError for an option that it does not take, or whose value is no number.
    """
    found = _WITH_OPTIONS.fullmatch(name)
    if found is None:
        return load(name)
    codec = load(found["name"])
    options: dict[str, Any] = {}
    for item in found["options"][1:].split("+"):
        key, _, text = item.partition("=")
        try:
            value = float(text)
        except ValueError as error:
            raise ConfigError(f"{name}: {key} (={text}) must be a number") from error
        options[key] = int(value) if value == int(value) else value
    return _Decoding(name, codec, options_for(codec, codec.decode, options))


class _Decoding:
    """A codec whose files are decoded with ``options``."""

    def __init__(self, name: str, codec: Codec, options: dict[str, Any]):
        self.name, self.codec, self.options = name, codec, options
        self.suffix, self.quality_range = codec.suffix, codec.quality_range

    def encode(self, picture: Picture, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS) -> bytes:
        return self.codec.encode(picture, quality=quality, limits=limits)

    def decode(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> Picture:
        return self.codec.decode(data, limits=limits, **self.options)
