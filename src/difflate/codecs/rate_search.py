"""A picture encoded as it is asked for: at a quality, or at the best one whose file is small enough."""

import dataclasses
import logging
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from difflate.codecs.base import Codec
from difflate.codecs.classical import PillowCodec
from difflate.errors import ConfigError
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture

log = logging.getLogger(__name__)

_CLOSE = 0.985
"""A file of this share of the bytes allowed is large enough."""
_TRIES = 16


class _TooLarge(ConfigError):
    """The smallest file is larger than asked for."""


@dataclass(frozen=True)
class Coded:
    """A file, and how it was reached."""

    data: bytes
    short: bool = False
    """More was allowed than the codec gives at its best quality."""


def encode_picture(
    codec: Codec,
    picture: Picture,
    *,
    quality: float | None = None,
    bpp: float | None = None,
    max_bytes: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    options: Mapping[str, Any],
) -> Coded:
    """``picture`` at ``quality``, or within ``bpp`` bits per pixel or ``max_bytes``, whichever one is given.

    Raises ConfigError for more than one of them, and if the codec's smallest file is larger than asked for.
    """
    check_request(quality, bpp, max_bytes)
    if bpp is None and max_bytes is None:
        return Coded(codec.encode(picture, quality=quality, limits=limits, **options))
    pixels = picture.width * picture.height
    allowed = max_bytes if bpp is None else math.floor(bpp * pixels / 8)
    assert allowed is not None

    def search(options: Mapping[str, Any]) -> Coded:
        return encode_within(codec, allowed, lambda q: codec.encode(picture, quality=q, limits=limits, **options))

    try:
        coded = search(options)
    except _TooLarge:
        # what a transform fails at is coded better, in more bytes; a size that is asked for goes before that
        if not _falls_back(codec):
            raise
        coded = search({**options, "learned_only": True})
    if coded.short:
        log.info(
            "%d bytes (%.3f bpp) are the most that %s gives", len(coded.data), 8 * len(coded.data) / pixels, codec.name
        )
    return coded


def check_request(quality: float | None, bpp: float | None, max_bytes: int | None) -> None:
    """Raises ConfigError for more than one of them, and for a size that is no number above 0."""
    given = {"quality": quality, "bpp": bpp, "max_bytes": max_bytes}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(f'`{name}`' for name in given)} exclude each other; give one of them")
    for name in ("bpp", "max_bytes"):
        wanted = given.get(name, 1)
        if not isinstance(wanted, numbers.Real):
            raise ConfigError(f"`{name}` (={wanted!r}) must be a number")
        if not 0 < float(wanted) < math.inf:
            raise ConfigError(f"`{name}` (={float(wanted):g}) must be a number above 0")


def encode_within(codec: Codec, max_bytes: int, encode: Callable[[float], bytes]) -> Coded:
    """A file of at most ``max_bytes``: of the best quality, or within 1.5 % of as many bytes.

    ``encode``: makes the file of a quality. Raises ConfigError if the codec has one quality only, or if its smallest
    file is larger.
    """
    if codec.quality_range is None:
        raise ConfigError(f"{codec.name} has one quality only, so a size cannot be asked for; choose another codec")
    ends = [(encode(q), q) for q in codec.quality_range[:2]]
    falls_back = _falls_back(codec)  # then the file of a higher quality, perhaps without loss, may be the smaller one
    if not falls_back:
        ends.sort(key=lambda end: len(end[0]))  # jxl's numbers are distances
    (small, low), (large, high) = ends
    if min(len(small), len(large)) > max_bytes:
        raise _TooLarge(
            f"{codec.name} takes {len(small)} bytes at its lowest quality, more than the {max_bytes} asked for; allow "
            "more, or make the image smaller"
        )
    if len(large) <= max_bytes:
        return Coded(large, short=len(large) < _CLOSE * max_bytes)
    best, least, most = small, len(small), len(large)
    whole = isinstance(codec, PillowCodec)
    for turn in range(_TRIES):
        if len(best) >= _CLOSE * max_bytes or (whole and abs(high - low) <= 1):
            break
        # sizes grow about exponentially with quality; every third turn by halves, for where they do not
        share = math.log(max_bytes / least) / math.log(most / least) if turn % 3 < 2 and most > least else 0.5
        middle = low + (high - low) * min(max(share, 0.02), 0.98)
        if whole:
            middle = min(max(round(middle), min(low, high) + 1), max(low, high) - 1)
        data = encode(middle)
        if len(data) <= max_bytes:
            low, least, best = middle, len(data), data if falls_back else max(data, best, key=len)
        else:
            high, most = middle, len(data)
    return Coded(best)


def _falls_back(codec: Codec) -> bool:
    """Whether the codec has another way to code what its own transform fails at."""
    return "learned_only" in {field.name for field in dataclasses.fields(codec.encoding)}
