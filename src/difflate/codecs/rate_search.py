"""The best quality whose file is small enough."""

import math
from collections.abc import Callable

from difflate.codecs.base import Codec
from difflate.codecs.classical import PillowCodec
from difflate.errors import ConfigError

_CLOSE = 0.985
"""A file of this share of the bytes allowed is large enough."""
_TRIES = 16


def encode_within(codec: Codec, max_bytes: int, encode: Callable[[float], bytes]) -> bytes:
    """The bytes of a file of at most ``max_bytes``: of the best quality, or within 1.5 % of as many bytes.

    ``encode``: makes the file of a quality. Raises ConfigError if the codec has one quality only, or if its smallest
    file is larger.
    """
    if codec.quality_range is None:
        raise ConfigError(f"{codec.name} has one quality only, so a size cannot be asked for; choose another --codec")
    ends = [(encode(q), q) for q in codec.quality_range[:2]]
    (small, low), (large, high) = sorted(ends, key=lambda end: len(end[0]))  # jxl's numbers are distances
    if len(small) > max_bytes:
        raise ConfigError(
            f"{codec.name} takes {len(small)} bytes at its lowest quality, more than the {max_bytes} asked for; allow "
            "more, or make the image smaller"
        )
    if len(large) <= max_bytes:
        return large
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
            low, least, best = middle, len(data), max(data, best, key=len)
        else:
            high, most = middle, len(data)
    return best
