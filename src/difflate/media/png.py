"""PNG files reduced to the chunks that are used, so that damage to any other chunk cannot stop the picture."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from difflate.media.notes import FRAMES, GAIN_MAP

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT_BYTES = 2**20
"""A profile or text that inflates to more is skipped; all that is inflated of a file stays below 64 times as much."""
_METADATA = (b"iCCP", b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_TEXT_USED = (b"XML:com.adobe.xmp", b"exif", b"Raw profile type exif")
"""Keywords of text that holds XMP or EXIF."""


def keep_used_chunks(data: bytes) -> tuple[bytes, list[str]]:
    """The PNG file ``data`` without the chunks that are not looked at, and notes of what is lost with them.

    Kept are critical chunks and transparency as they are, even if damaged, and intact ICC, EXIF and XMP. Where the
    chunks are cut off the rest is kept, so that a truncated file stays one.
    """
    kept = [data[: len(SIGNATURE)]]
    notes: list[str] = []
    budget_bytes = 64 * MAX_TEXT_BYTES
    end = len(SIGNATURE)
    for start, end, kind in _chunks(data):
        if kind == b"tRNS" or not kind[0] & 0x20:  # bit 5 tells ancillary chunks (PNG, 5.4)
            kept.append(data[start:end])
            continue
        content = data[start + 8 : end - 4]
        intact = zlib.crc32(data[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        if kind == b"acTL" and intact and len(content) >= 4 and int.from_bytes(content[:4], "big") > 1:
            notes.append(FRAMES)
        if kind == b"gmAP":
            notes.append(GAIN_MAP)
        if kind not in _METADATA:
            continue
        size_bytes = _inflated_bytes(kind, content, budget_bytes) if intact else None
        budget_bytes -= size_bytes or 0
        if size_bytes is None:
            what = {b"iCCP": "an ICC profile", b"eXIf": "EXIF"}.get(kind, "text")
            notes.append(f"{what} that is damaged or too large is skipped")
        elif kind in (b"iCCP", b"eXIf") or content.partition(b"\0")[0] in _TEXT_USED:
            kept.append(data[start:end])
    kept.append(data[end:])
    return b"".join(kept), notes


def _chunks(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(start, end, type) of the chunks of ``data`` that are whole, up to its end chunk."""
    start, kind = len(SIGNATURE), b""
    while start + 12 <= len(data) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data) or not kind.isalpha():
            return
        yield start, end, kind
        start = end


def _inflated_bytes(kind: bytes, content: bytes, budget_bytes: int) -> int | None:
    """How much text or profile a chunk holds; None if it cannot be read, or is more than is allowed."""
    allowed = min(MAX_TEXT_BYTES, budget_bytes)
    _, _, packed = content.partition(b"\0")
    if kind == b"iTXt":
        compressed, method = packed[:1] == b"\1", packed[1:2]
        packed = packed[2:].partition(b"\0")[2].partition(b"\0")[2]
    else:
        compressed, method, packed = kind in (b"zTXt", b"iCCP"), packed[:1], packed[1:]
    if not compressed:
        return len(content) if len(content) <= allowed else None
    inflater = zlib.decompressobj()
    try:
        size = len(inflater.decompress(packed, allowed + 1))
    except zlib.error:
        return None
    return size if method == b"\0" and size <= allowed else None
