"""The .dfl file: header, sections, checksums and limits. Knows bytes, never tensors; docs/format.md gives every byte.

BITSTREAM: a change here that alters the bytes of the same input is a new major version.
"""

import binascii
import contextlib
import zlib
from dataclasses import dataclass

from difflate.errors import (
    ChecksumError,
    DifflateError,
    FormatError,
    LimitExceeded,
    NotDflError,
    TruncatedError,
    VersionError,
)
from difflate.format import sections as kinds
from difflate.format.varints import Cursor, varint
from difflate.limits import DEFAULT_LIMITS, Limits

MAGIC = b"\x8fDFL"
VERSION_MAJOR, VERSION_MINOR = 1, 0

_LAST = 0x80
_FLAG_GREY = 0x10
_SEAL_BYTES = 4
"""Of a CRC-32 at the end of the section STREAM, of all bytes of the file before it."""


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


def symbols_crc(symbols: bytes, before: int = 0xFFFF) -> int:
    """CRC-16/IBM-3740 of the symbols as little-endian 16-bit integers, plane after plane.

    ``before``: the CRC of what stands in front of them.
    """
    return binascii.crc_hqx(symbols, before)


def write_dfl(file: DflFile, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The bytes of a .dfl file. Raises LimitExceeded for what `read_dfl` would refuse."""
    _check_limits(file, limits)
    out = bytearray(MAGIC)
    out.append(VERSION_MAJOR << 4 | VERSION_MINOR)
    out.append((_FLAG_GREY if file.grey else 0) | file.codec)
    out += file.model_id
    out += varint(file.width) + varint(file.height)
    for i, (kind, data) in enumerate(file.sections):
        out.append(kind | (_LAST if i + 1 == len(file.sections) else 0))
        if kind == kinds.STREAM:
            out += varint(len(data) + _SEAL_BYTES) + data
            out += _crc32(out)
        else:
            out += varint(len(data)) + data
    out += file.symbols_crc.to_bytes(2, "little")
    out += _crc32(out)
    return bytes(out)


def read_dfl(data: bytes, limits: Limits = DEFAULT_LIMITS) -> DflFile:
    """The contents of a .dfl file, its structure, checksum and limits checked; nothing is decoded.

    Raises NotDflError, TruncatedError, ChecksumError, VersionError, FormatError, LimitExceeded.
    """
    reader, sealed = _Reader(data, limits), True
    while not reader.ended:
        sealed = reader.section() and sealed
    check = int.from_bytes(reader.bytes.take(2), "little")
    end = reader.bytes.position
    stored = reader.bytes.take(4)
    if _crc32(data[:end]) != stored:
        raise ChecksumError("the file is damaged: its checksum does not match; get an intact copy of it")
    if reader.bytes.left:
        raise FormatError(f"{reader.bytes.left} bytes follow the end of the .dfl data; get an intact copy")
    if not sealed:
        raise ChecksumError("the checksum in front of the clip's frames does not match; get an intact copy of the file")
    return reader.file(check)


def read_sealed(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[DflFile, int]:
    """The beginning of a .dfl file of a clip, up to its section STREAM, and the number of its bytes.

    That section's own checksum is enough: what is behind it may be damaged or missing. Raises as `read_dfl`, and
    FormatError for a file without that section.
    """
    reader = _Reader(data, limits)
    while not reader.ended:
        intact = reader.section()
        if reader.sections[-1][0] == kinds.STREAM:
            if not intact:
                raise ChecksumError("the file is damaged in front of its frames; get an intact copy of it")
            return reader.file(0), reader.bytes.position
    raise FormatError("the file holds no clip; get an intact copy of it")


def begins_as_clip(beginning: bytes) -> bool:
    """Whether a .dfl file that begins so, in a few KiB, holds a clip; False for what is damaged or none."""
    with contextlib.suppress(DifflateError):
        reader = _Reader(beginning, DEFAULT_LIMITS)
        while not reader.ended and reader.bytes.left:
            if beginning[reader.bytes.position] & ~_LAST == kinds.STREAM:
                return True
            reader.section()
    return False


class _Reader:
    """Header and sections, one after the other."""

    def __init__(self, data: bytes, limits: Limits):
        if not data:
            raise TruncatedError("the file is empty; get a complete copy of it")
        if data[:4] != MAGIC[: len(data)]:
            raise NotDflError(
                "not a .dfl file, which begins with the bytes 8F 44 46 4C; name a file of `difflate compress`"
            )
        self.bytes, self._data, self._limits = Cursor(data), data, limits
        self.bytes.take(4)
        version = self.bytes.take(1)[0]
        if version >> 4 != VERSION_MAJOR:
            raise VersionError(
                f"version {version >> 4}.{version & 15} of the .dfl format is unknown; install a newer difflate"
            )
        self.features = self.bytes.take(1)[0]
        self.model_id = self.bytes.take(4)
        self.width, self.height = self.bytes.varint(), self.bytes.varint()
        self.sections: list[tuple[int, bytes]] = []
        self.ended = False

    def section(self) -> bool:
        """Reads the next one; whether its seal, if its type has one, is right."""
        if self._limits.sections is not None and len(self.sections) >= self._limits.sections:
            raise LimitExceeded(f"the file has more than {self._limits.sections} sections")
        kind = self.bytes.take(1)[0]
        number, content = kind & ~_LAST, self.bytes.take(self.bytes.varint())
        self.ended, intact = bool(kind & _LAST), True
        if number == kinds.STREAM:
            intact = content[-_SEAL_BYTES:] == _crc32(self._data[: self.bytes.position - _SEAL_BYTES])
            content = content[:-_SEAL_BYTES]
        self.sections.append((number, content))
        return intact

    def file(self, check: int) -> DflFile:
        """What was read, when it is known to be intact."""
        if self.features & 0xE0:
            raise VersionError(f"feature flags {self.features >> 4:#x} are unknown; install a newer difflate")
        if not (self.width and self.height):
            raise FormatError(f"the image is declared as {self.width}x{self.height} px; both must be at least 1")
        for number, _ in self.sections:
            if number not in kinds.NAMES and not number & kinds.OPTIONAL:
                raise VersionError(f"section type {number} is unknown; install a newer difflate")
        known = tuple(s for s in self.sections if s[0] in kinds.NAMES)
        if len({number for number, _ in known}) != len(known):
            raise FormatError("a section occurs twice")
        grey = bool(self.features & _FLAG_GREY)
        file = DflFile(self.features & 15, self.model_id, self.width, self.height, grey, check, known)
        _check_limits(file, self._limits)
        return file


def _check_limits(file: DflFile, limits: Limits) -> None:
    limits.check_size(file.width, file.height)
    limits.check_metadata(sum(len(data) for kind, data in file.sections if kind in kinds.METADATA))


def _crc32(data: bytes | bytearray) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")
