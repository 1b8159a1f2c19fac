"""The one protocol of every codec, JPEG included."""

import numbers
from typing import Any, Protocol, runtime_checkable

from difflate.errors import ConfigError
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.clip import Clip
from difflate.media.picture import Picture
from difflate.options import Options


@runtime_checkable
class Codec(Protocol):
    """Turns pictures into the bytes of a complete file, and back.

    Learned codecs write ``.dfl`` files (docs/format.md); classical ones write their own (``.jpg``, ``.avif`` …), so
    that the rates compared are those of real files without a wrapper.
    """

    name: str
    """The name under which `difflate.load` finds it, e.g. ``opq-32-8-8`` or ``jpeg``."""
    suffix: str
    """File name suffix with the dot, e.g. ``.dfl``."""
    quality_range: tuple[float, float, float] | None
    """(smallest, largest, default) of ``quality``; None: the codec has one quality only.

    Higher is better, except for ``jxl``, where it is a distance from the original and 0 is lossless.
    """

    @property
    def encoding(self) -> type[Options]:
        """What `encode` can be told beside the quality."""
        ...

    @property
    def decoding(self) -> type[Options]:
        """What `decode` can be told."""
        ...

    def encode(
        self, picture: Picture, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> bytes:
        """The bytes of a complete file. Raises ConfigError (quality, options), LimitExceeded (size)."""
        ...

    def decode(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> Picture:
        """The picture in ``data``, same H and W as encoded. Raises FormatError, ModelError, LimitExceeded."""
        ...


@runtime_checkable
class ClipCodec(Protocol):
    """Turns clips into the bytes of a complete file, and back; otherwise as `Codec`.

    Codecs of images that are learned are also codecs of clips, frame by frame.
    """

    name: str
    suffix: str
    quality_range: tuple[float, float, float] | None

    @property
    def encoding(self) -> type[Options]:
        """What `encode_clip` can be told beside the quality."""
        ...

    @property
    def decoding(self) -> type[Options]:
        """What `decode_clip` can be told."""
        ...

    def encode_clip(
        self, clip: Clip, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> bytes:
        """The bytes of a complete file. Frames are read once and let go of. Raises as `Codec.encode`, and ImageError
        where a frame cannot be read."""
        ...

    def decode_clip(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> Clip:
        """The clip in ``data``, with the size, rate and times that it was encoded with; its frames are decoded as they
        are asked for. Raises FormatError, ModelError, LimitExceeded."""
        ...


class Latent(Protocol):
    """What a learned codec's file holds of a picture, or of a group of frames: integers, the same on every machine."""

    def symbols(self) -> bytes:
        """Them as little-endian 16-bit integers: what the file's check of symbols is taken of."""
        ...


def codec_of_pictures(codec: Codec | ClipCodec) -> Codec:
    """``codec``. Raises ConfigError if it codes only clips."""
    if isinstance(codec, Codec):
        return codec
    raise ConfigError(f"codec {codec.name} codes clips, not images; choose another, see `difflate codecs`")


def codec_of_clips(codec: Codec | ClipCodec) -> ClipCodec:
    """``codec``. Raises ConfigError if it codes only images."""
    if isinstance(codec, ClipCodec):
        return codec
    raise ConfigError(
        f"codec {codec.name} codes images, not clips; choose one that writes .dfl files, or avc, hevc or av1"
    )


def quality_for(codec: Codec | ClipCodec, quality: float | None) -> float | None:
    """``quality``, or the codec's default for None. Raises ConfigError if the codec does not take it."""
    if quality is not None and not isinstance(quality, numbers.Real):
        raise ConfigError(f"quality (={quality!r}) must be a number")
    if codec.quality_range is None:
        if quality is not None:
            raise ConfigError(
                f"quality (={quality:g}) has no meaning for {codec.name}, which has only one; leave it out"
            )
        return None
    low, high, default = codec.quality_range
    if quality is None:
        return default
    # written so that NaN fails too
    if not low <= quality <= high:
        raise ConfigError(f"quality (={quality:g}) must be from {low:g} to {high:g} for {codec.name}")
    return quality
