"""The .dfl container: every byte matters, and no file makes a reader do more than its limits allow."""

import contextlib
import sys
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from difflate.errors import (
    ChecksumError,
    DifflateError,
    FormatError,
    LimitExceeded,
    NotDflError,
    TruncatedError,
    VersionError,
)
from difflate.format.container import MAGIC, DflFile, read_dfl, write_dfl
from difflate.limits import Limits

UNLIMITED = Limits(pixels=None, side_px=None, sections=None, metadata_bytes=None)


def make(**changes) -> DflFile:
    values = dict(
        codec=1,
        model_id=b"abcd",
        width=768,
        height=512,
        grey=False,
        symbols_crc=0x1234,
        sections=((1, b"payload"),),
    )
    return DflFile(**(values | changes))


SAMPLE = write_dfl(make(sections=((1, bytes(range(60))), (3, b"\0alpha"), (0x41, b"II*\0exif"))))


def with_crc(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


def test_an_ordinary_photograph_has_24_bytes_of_overhead():
    payload = bytes(26_000)
    assert len(write_dfl(make(sections=((1, payload),)))) - len(payload) == 24


@settings(max_examples=200)
@given(
    st.integers(1, 14),
    st.binary(min_size=4, max_size=4),
    st.integers(1, 2**35 - 1),
    st.integers(1, 2**35 - 1),
    st.booleans(),
    st.integers(0, 65535),
    st.dictionaries(st.sampled_from([1, 2, 3, 0x41, 0x42, 0x43]), st.binary(max_size=300), min_size=1),
)
def test_whatever_is_written_reads_back(codec, model_id, width, height, grey, crc, sections):
    file = DflFile(codec, model_id, width, height, grey, crc, tuple(sections.items()))
    assert read_dfl(write_dfl(file, UNLIMITED), UNLIMITED) == file


def test_every_truncation_is_told():
    for length in range(len(SAMPLE)):
        with pytest.raises(TruncatedError):
            read_dfl(SAMPLE[:length])


def test_every_flipped_bit_is_told():
    for bit in range(8 * len(SAMPLE)):
        damaged = bytearray(SAMPLE)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            read_dfl(bytes(damaged))


def test_each_kind_of_damage_has_its_exception():
    damaged = bytearray(SAMPLE)
    damaged[30] ^= 1
    with pytest.raises(ChecksumError, match="checksum"):
        read_dfl(bytes(damaged))
    with pytest.raises(TruncatedError, match="empty"):
        read_dfl(b"")
    with pytest.raises(NotDflError, match="8F 44 46 4C"):
        read_dfl(b"hello, world")
    with pytest.raises(FormatError, match="1 bytes follow"):
        read_dfl(SAMPLE + b"\0")
    newer = bytearray(SAMPLE)
    newer[4] = 0x20
    with pytest.raises(VersionError, match=r"2\.0"):
        read_dfl(bytes(newer))


def test_a_later_minor_version_is_read():
    body = bytearray(SAMPLE[:-4])
    body[4] = 0x17
    assert read_dfl(with_crc(bytes(body))) == read_dfl(SAMPLE)


def test_unknown_flags_and_sections_are_refused_and_unknown_optional_sections_skipped():
    body = bytearray(SAMPLE[:-4])
    body[5] |= 0x40
    with pytest.raises(VersionError, match="flags"):
        read_dfl(with_crc(bytes(body)))
    with pytest.raises(VersionError, match="section type 9"):
        read_dfl(write_dfl(make(sections=((1, b"x"), (9, b"y")))))
    assert read_dfl(write_dfl(make(sections=((1, b"x"), (0x49, b"y"))))).sections == ((1, b"x"),)


def test_a_section_twice_is_refused():
    with pytest.raises(FormatError, match="twice"):
        read_dfl(write_dfl(make(sections=((1, b"x"), (1, b"y")))))


def test_a_number_without_end_is_refused():
    with pytest.raises(FormatError, match="5 bytes"):
        read_dfl(MAGIC + b"\x10\x01abcd" + b"\xff" * 40)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (dict(width=65535, height=65535), "pixels"),
        (dict(width=65536, height=1), "side"),
        (dict(width=2**34, height=2**34), "side"),
        (dict(sections=tuple((i % 64, b"") for i in range(65))), "sections"),
        (dict(sections=((1, b"x"), (0x42, bytes(2**20 + 1)))), "metadata"),
    ],
)
def test_limits_are_kept_by_reader_and_writer(changes, what):
    with pytest.raises(LimitExceeded, match=what):
        read_dfl(write_dfl(make(**changes), UNLIMITED))
    if what != "sections":
        with pytest.raises(LimitExceeded, match=what):
            write_dfl(make(**changes))


def test_no_pixels_are_refused():
    with pytest.raises(FormatError, match="0x5"):
        read_dfl(write_dfl(make(width=0, height=5)))


def test_absurd_claims_are_refused_at_once_and_without_memory():
    """65535 x 65535 pixels, a section of 2^34 bytes, and 10^9 sections, each in a file of a few bytes."""
    pixels = write_dfl(make(width=65535, height=65535), UNLIMITED)
    section = with_crc(MAGIC + b"\x10\x01abcd\x05\x05\x01\xff\xff\xff\xff\x3f")
    sections = with_crc(MAGIC + b"\x10\x01abcd\x05\x05" + b"\x01\x00" * 1000)
    for data in (pixels, section, sections):
        calls = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal calls
            calls += 1

        tracemalloc.start()
        sys.setprofile(count)
        try:
            with pytest.raises(DifflateError):
                read_dfl(data)
        finally:
            sys.setprofile(None)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 1_000_000
        assert calls < 3000  # calls and returns of functions: below a millisecond's worth


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_crash_the_reader(data):
    for prefix in (b"", MAGIC, MAGIC + b"\x10\x01abcd"):
        with contextlib.suppress(DifflateError):
            read_dfl(prefix + data)
