"""Exact frame times in Matroska and WebM, whose own are whole milliseconds in every file that ffmpeg writes."""

from __future__ import annotations

import re
from fractions import Fraction

KEY = "DIFFLATE_TIMES"
"""A tag of the video stream: time base and rate of the clip, ``1001/30000 30000/1001``."""
_FORM = re.compile(r"([1-9]\d{0,9})/([1-9]\d{0,9}) ([1-9]\d{0,9})/([1-9]\d{0,9})")
_MILLI = Fraction(1, 1000)


def to_tag(time_base: Fraction, rate: Fraction) -> str:
    return f"{time_base.numerator}/{time_base.denominator} {rate.numerator}/{rate.denominator}"


def from_tag(tag: str) -> tuple[Fraction, Fraction] | None:
    """Time base and rate; None for what `to_tag` does not write."""
    match = _FORM.fullmatch(tag)
    if not match:
        return None
    a, b, c, d = map(int, match.groups())
    return Fraction(a, b), Fraction(c, d)


def to_milliseconds(time: int, time_base: Fraction) -> int:
    """The nearest, half upwards, as the muxer rounds it."""
    return (time * time_base / _MILLI + Fraction(1, 2)).__floor__()


def from_milliseconds(milliseconds: int, time_base: Fraction, rate: Fraction) -> int:
    """The time in ``time_base`` that was rounded to ``milliseconds``: a whole number of frames at ``rate`` if one was.

    So times at a constant rate, or some of them, are exact in any time base, and all times in one above a millisecond.
    """
    seconds = milliseconds * _MILLI
    on_grid = round(seconds * rate) / rate
    time = on_grid / time_base
    if time.denominator == 1 and abs(on_grid - seconds) <= _MILLI / 2:
        return int(time)
    return round(seconds / time_base)
