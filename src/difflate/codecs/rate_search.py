"""A picture encoded as it is asked for: at a quality, or at the best one whose file is small enough."""

import dataclasses
import functools
import logging
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from difflate.codecs.base import Codec, codec_of_pictures
from difflate.codecs.classical import PillowCodec
from difflate.codecs.groups import one_by_one
from difflate.errors import ConfigError
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture

log = logging.getLogger(__name__)

_CLOSE = 0.985
"""A file of this share of the bytes allowed is large enough."""
_TRIES = 16
_EFFORT_TRIES = 4


class _TooLarge(ConfigError):
    """The smallest file is larger than asked for."""


@dataclass(frozen=True)
class Coded:
    """A file, and how it was reached."""

    data: bytes
    short: bool = False
    """More was allowed than the codec gives at its best quality."""
    quality: float | None = None
    """What a search for a size ended at."""


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
    codec_of_pictures(codec)
    if bpp is None and max_bytes is None:
        return Coded(codec.encode(picture, quality=quality, limits=limits, **options))
    pixels = picture.width * picture.height
    allowed = max_bytes if bpp is None else math.floor(bpp * pixels / 8)
    assert allowed is not None

    def search(options: Mapping[str, Any]) -> Coded:
        return _search(codec, picture, allowed, limits, options)

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


def encode_pictures(
    codec: Codec,
    pictures: Sequence[Picture],
    *,
    quality: float | None = None,
    bpp: float | None = None,
    max_bytes: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    options: Mapping[str, Any],
) -> list[Coded | Exception]:
    """What `encode_picture` gives, or raises, of each of ``pictures``: at once, where the codec can and no size is
    asked for. Raises ConfigError for what is wrong with all of them."""
    many = getattr(codec, "encode_many", None)
    if many is None or bpp is not None or max_bytes is not None:
        asked: dict[str, Any] = {"quality": quality, "bpp": bpp, "max_bytes": max_bytes, "limits": limits}
        return one_by_one(pictures, lambda picture: encode_picture(codec, picture, **asked, options=options))
    made = many(pictures, quality=quality, limits=limits, **options)
    return [each if isinstance(each, Exception) else Coded(each) for each in made]


def _search(codec: Codec, picture: Picture, max_bytes: int, limits: Limits, options: Mapping[str, Any]) -> Coded:
    """The file of `encode_within`, or of `encode_with_effort` if ``options`` have one."""
    codec.encoding.of(options, codec.name)

    def encode(quality: float, options: Mapping[str, Any] = options) -> bytes:
        return codec.encode(picture, quality=quality, limits=limits, **options)

    if options.get("effort") in (None, 1):
        return encode_within(codec, max_bytes, encode)
    quick = {**options, "effort": None}
    return encode_with_effort(codec, max_bytes, functools.partial(encode, options=quick), encode)


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
        return Coded(large, len(large) < _CLOSE * max_bytes, high)
    best, quality, least, most = small, low, len(small), len(large)
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
            low, least = middle, len(data)
            if falls_back or len(data) >= len(best):
                best, quality = data, middle
        else:
            high, most = middle, len(data)
    return Coded(best, quality=quality)


def _falls_back(codec: Codec) -> bool:
    """Whether the codec has another way to code what its own transform fails at."""
    return "learned_only" in {field.name for field in dataclasses.fields(codec.encoding)}


def encode_with_effort(
    codec: Codec, max_bytes: int, quick: Callable[[float], bytes], thorough: Callable[[float], bytes]
) -> Coded:
    """A file of ``thorough`` of at most ``max_bytes``, as `encode_within` gives it, by few calls of it.

    Its files are smaller than those of ``quick``, which takes no effort, by a share that changes little with the
    quality. So quick files that are larger by that share show which quality to take. Raises ConfigError.
    """
    quick, thorough = functools.cache(quick), functools.cache(thorough)
    plain = encode_within(codec, max_bytes, quick)
    assert codec.quality_range is not None  # or no size could be asked for
    least = min(len(quick(quality)) for quality in codec.quality_range[:2])
    first, best = plain, None
    for _ in range(_EFFORT_TRIES):
        assert plain.quality is not None
        data = thorough(plain.quality)
        fits, close = len(data) <= max_bytes, len(data) >= _CLOSE * max_bytes
        if fits and (best is None or len(data) > len(best.data)):
            best = Coded(data, plain.short and not close, plain.quality)
        allowed = max_bytes * len(plain.data) // len(data)
        if (fits and (close or plain.short)) or allowed < least:
            break
        plain = encode_within(codec, allowed, quick)
    return best or first
