"""The .dfl file: header, sections, checksums and limits. Knows bytes, never tensors; docs/format.md gives every byte.

BITSTREAM: a change here that alters the bytes of the same input is a new major version.
"""

import binascii
import zlib
from dataclasses import dataclass

from difflate.errors import ChecksumError, FormatError, LimitExceeded, NotDflError, TruncatedError, VersionError
from difflate.format import sections as kinds
from difflate.limits import DEFAULT_LIMITS, Limits

MAGIC = b"\x8fDFL"
VERSION_MAJOR, VERSION_MINOR = 1, 0

_LAST = 0x80
_FLAG_GREY = 0x10


@dataclass(frozen=True)
class DflFile:
    """What a .dfl file holds, before its symbols are decoded."""

    codec: int
    """1 to 14: a number of `difflate.registry`."""
    model_id: bytes
    """First 4 bytes of the model's fingerprint."""
    width: int
    """Width in pixels, as `height` is its height."""
    height: int
    grey: bool
    symbols_crc: int
    """CRC-16 of the decoded symbols: tells "damaged" from "decoded to other symbols"."""
    sections: tuple[tuple[int, bytes], ...]
    """(type, data), at least one; a type occurs at most once."""

    def section(self, number: int) -> bytes | None:
        """The data of the section of that type, None if there is none."""
        return dict(self.sections).get(number)


def symbols_crc(symbols: bytes) -> int:
    """CRC-16/IBM-3740 of the symbols as little-endian 16-bit integers, plane after plane."""
    return binascii.crc_hqx(symbols, 0xFFFF)


def write_dfl(file: DflFile, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The bytes of a .dfl file. Raises LimitExceeded for what `read_dfl` would refuse."""
    _check_limits(file, limits)
    out = bytearray(MAGIC)
    out.append(VERSION_MAJOR << 4 | VERSION_MINOR)
    out.append((_FLAG_GREY if file.grey else 0) | file.codec)
    out += file.model_id
    out += _varint(file.width) + _varint(file.height)
    for i, (kind, data) in enumerate(file.sections):
        out.append(kind | (_LAST if i + 1 == len(file.sections) else 0))
        out += _varint(len(data)) + data
    out += file.symbols_crc.to_bytes(2, "little")
    out += zlib.crc32(out).to_bytes(4, "little")
    return bytes(out)


def read_dfl(data: bytes, limits: Limits = DEFAULT_LIMITS) -> DflFile:
    """The contents of a .dfl file, its structure, checksum and limits checked; nothing is decoded.

    Raises NotDflError, TruncatedError, ChecksumError, VersionError, FormatError, LimitExceeded.
    """
    if not data:
        raise TruncatedError("the file is empty; get a complete copy of it")
    if data[:4] != MAGIC[: len(data)]:
        raise NotDflError(
            "not a .dfl file, which begins with the bytes 8F 44 46 4C; name a file of `difflate compress`"
        )
    reader = _Bytes(data)
    reader.take(4)
    version = reader.take(1)[0]
    if version >> 4 != VERSION_MAJOR:
        raise VersionError(
            f"version {version >> 4}.{version & 15} of the .dfl format is unknown; install a newer difflate"
        )
    features = reader.take(1)[0]
    model_id = reader.take(4)
    width, height = reader.varint(), reader.varint()
    sections, kind = [], 0
    while not kind & _LAST:
        if limits.sections is not None and len(sections) >= limits.sections:
            raise LimitExceeded(f"the file has more than {limits.sections} sections")
        kind = reader.take(1)[0]
        sections.append((kind & ~_LAST, reader.take(reader.varint())))
    check = int.from_bytes(reader.take(2), "little")
    end = reader.position
    stored = int.from_bytes(reader.take(4), "little")
    if zlib.crc32(data[:end]) != stored:
        raise ChecksumError("the file is damaged: its checksum does not match; get an intact copy of it")
    if reader.position != len(data):
        raise FormatError(f"{len(data) - reader.position} bytes follow the end of the .dfl data; get an intact copy")
    if features & 0xE0:
        raise VersionError(f"feature flags {features >> 4:#x} are unknown; install a newer difflate")
    if not (width and height):
        raise FormatError(f"the image is declared as {width}x{height} px; both must be at least 1")
    for number, _ in sections:
        if number not in kinds.NAMES and not number & kinds.OPTIONAL:
            raise VersionError(f"section type {number} is unknown; install a newer difflate")
    known = tuple(s for s in sections if s[0] in kinds.NAMES)
    if len({number for number, _ in known}) != len(known):
        raise FormatError("a section occurs twice")
    file = DflFile(features & 15, model_id, width, height, bool(features & _FLAG_GREY), check, known)
    _check_limits(file, limits)
    return file


def _check_limits(file: DflFile, limits: Limits) -> None:
    limits.check_size(file.width, file.height)
    limits.check_metadata(sum(len(data) for kind, data in file.sections if kind in kinds.METADATA))


def _varint(value: int) -> bytes:
    """LEB128: 7 bits a byte, least significant first, the top bit set on all but the last."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class _Bytes:
    """A cursor that never reads past the end."""

    def __init__(self, data: bytes):
        self._data = data
        self.position = 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self._data):
            raise TruncatedError(
                f"the file ends too early: {len(self._data)} bytes are there, at least {end} are needed; "
                "get a complete copy of it"
            )
        part = self._data[self.position : end]
        self.position = end
        return part

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise FormatError("the file is damaged: a number in it is longer than 5 bytes; get an intact copy of it")
