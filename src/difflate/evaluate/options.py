"""Codecs with options: ``cdc-small+steps=1+gamma=0`` or ``avif+speed=0`` as a codec of its own in an evaluation."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from difflate.codecs.base import Codec, codec_of_clips, codec_of_pictures
from difflate.errors import ConfigError
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.clip import Clip
from difflate.media.picture import Picture
from difflate.options import Options, type_of

_WITH_OPTIONS = re.compile(r"(?P<name>[^+]+)(?P<options>(\+\w+=[^+=]*)+)")


def load_with_options(name: str, load: Callable[[str], Codec]) -> Codec:
    """The codec that ``load`` has for ``name`` without its options, decoding with them; what decoding does not take
    is for encoding.

    Raises ConfigError for an option that it does not take, or whose value cannot be.
    """
    parts = _WITH_OPTIONS.fullmatch(name)
    if parts is None:
        return load(name)
    codec = load(parts["name"])
    given: dict[type[Options], dict[str, Any]] = {codec.encoding: {}, codec.decoding: {}}
    for item in parts["options"][1:].split("+"):
        key, _, text = item.partition("=")
        side = codec.encoding if key in _names(codec.encoding) - _names(codec.decoding) else codec.decoding
        given[side][key] = _value(side, name, key, text)
    for side, options in given.items():
        side.of(options, codec.name)
    return _WithOptions(name, codec, given[codec.encoding], given[codec.decoding])


def _names(side: type[Options]) -> set[str]:
    return {field.name for field in dataclasses.fields(side)}


def _value(side: type[Options], name: str, key: str, text: str) -> Any:
    """``text`` as what the option ``key`` holds. Raises ConfigError."""
    value_type = type_of(side, key) if key in _names(side) else str  # the codec says that it has no such option
    try:
        return bool(int(text)) if value_type is bool else value_type(text)
    except ValueError as error:
        wanted = "0 or 1" if value_type is bool else "a number"
        raise ConfigError(f"{name}: {key} (={text}) must be {wanted}") from error


class _WithOptions:
    """A codec whose files are made and decoded with options."""

    def __init__(self, name: str, codec: Codec, encoding: dict[str, Any], decoding: dict[str, Any]):
        self.name, self.codec, self.given = name, codec, (encoding, decoding)
        self.suffix, self.quality_range = codec.suffix, codec.quality_range
        self.encoding, self.decoding = codec.encoding, Options

    def encode(
        self, picture: Picture, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> bytes:
        codec = codec_of_pictures(self.codec)
        return codec.encode(picture, quality=quality, limits=limits, **{**self.given[0], **options})

    def decode(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> Picture:
        return self.codec.decode(data, limits=limits, **{**self.given[1], **options})

    def encode_clip(
        self, clip: Clip, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> bytes:
        codec = codec_of_clips(self.codec)
        return codec.encode_clip(clip, quality=quality, limits=limits, **{**self.given[0], **options})

    def decode_clip(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> Clip:
        return codec_of_clips(self.codec).decode_clip(data, limits=limits, **{**self.given[1], **options})
