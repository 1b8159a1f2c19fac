"""Which image of a TIFF file is the photograph: the first may be a reduced copy of it, as in raw files."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

from PIL.TiffImagePlugin import TiffImageFile

from difflate.media.metadata import ORIENTATION_TAG, tiff_exif

_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _WIDTH, _HEIGHT, _SUBIFDS = 254, 255, 256, 257, 330
_TAGS = (_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _WIDTH, _HEIGHT, _SUBIFDS)
_REDUCED, _MASK, _DEPTH = 1, 4, 8  # bits of NewSubfileType (TIFF 6.0, section 8; DNG 1.6)
_OLD_REDUCED = 2
_TYPES = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # SHORT, LONG, IFD, LONG8, IFD8
_MAX_DIRECTORIES = 1000
_MAX_SUBIFDS = 64


@dataclass(frozen=True)
class Directory:
    """An image of a TIFF file."""

    offset: int
    width: int
    height: int
    reduced: bool
    """A copy of another with fewer pixels."""
    auxiliary: bool
    """A mask or a depth map."""
    child: bool
    """It hangs below another (SubIFDs), and is no page."""

    @property
    def pixels(self) -> int:
        return self.width * self.height


@dataclass(frozen=True)
class _Header:
    order: str
    big: bool
    first: int

    @property
    def at(self) -> slice:
        """Where the offset of the first directory stands."""
        return slice(8, 16) if self.big else slice(4, 8)


def select_photograph(data: bytes) -> tuple[bytes | None, list[str]]:
    """The TIFF file ``data`` with the photograph as its first page, None if it is that; and notes of what is dropped.

    The first page stays unless a larger image in full resolution hangs below one, or it is marked as a reduced copy
    or mask and another is not.
    """
    header = _read_header(data)
    if header is None:
        return None, []
    directories = _read_directories(data, header)
    if not directories:
        return None, []
    first = directories[0]
    full = [d for d in directories if not d.reduced and not d.auxiliary]
    below = [d for d in full if d.child and d.pixels > first.pixels]
    chosen = first
    if below:
        chosen = max(below, key=lambda d: d.pixels)
    elif first not in full and full:
        chosen = full[0]
    others = [d for d in full if not d.child and d is not chosen]
    notes = []
    if others:
        largest = max(others, key=lambda d: d.pixels)
        notes = [f"{len(others)} other pages are dropped (the largest has {largest.width}x{largest.height} px)"]
        if len(others) == 1:
            notes = [f"another page is dropped (it has {largest.width}x{largest.height} px)"]
    if chosen is first:
        return None, notes
    changed = bytearray(data)
    changed[header.at] = struct.pack(f"{header.order}{'Q' if header.big else 'I'}", chosen.offset)
    return bytes(changed), notes


def inherit_metadata(image: Any, original: bytes) -> None:
    """Gives ``image`` what it does not say itself and the first page of the file ``original`` says for it.

    That is orientation, EXIF, profile and XMP: raw files have them in the first page only.
    """
    try:
        first = TiffImageFile(io.BytesIO(original))
    except Exception:  # a preview that Pillow cannot read
        return
    exif = tiff_exif(image) or tiff_exif(first)
    orientation = image.tag_v2.get(ORIENTATION_TAG) or first.tag_v2.get(ORIENTATION_TAG)
    if isinstance(orientation, int):
        exif[ORIENTATION_TAG] = orientation
    if exif:
        image.info["exif"] = exif.tobytes()
        image.getexif().load(image.info["exif"])  # Pillow turns the pixels by this
    for key in ("icc_profile", "xmp"):
        if key in first.info:
            image.info.setdefault(key, first.info[key])


def _read_header(data: bytes) -> _Header | None:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return None
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    (first,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)
    return _Header(order, big, first)


def _read_directories(data: bytes, header: _Header) -> list[Directory]:
    """The pages of ``data``, each with those below it, as far as they can be read."""
    directories: list[Directory] = []
    seen: set[int] = set()
    pending = [(header.first, False)]
    while pending and len(directories) < _MAX_DIRECTORIES:
        offset, child = pending.pop()
        if not offset or offset in seen:
            continue
        seen.add(offset)
        try:
            tags, following = _read_tags(data, header, offset)
        except (struct.error, IndexError, OverflowError):
            continue
        kind, old = _number(tags, _NEW_SUBFILE_TYPE), _number(tags, _SUBFILE_TYPE)
        reduced = bool(kind & _REDUCED) or old == _OLD_REDUCED
        width, height = _number(tags, _WIDTH), _number(tags, _HEIGHT)
        directories.append(Directory(offset, width, height, reduced, bool(kind & (_MASK | _DEPTH)), child))
        pending.append((following, child))
        pending += [(below, True) for below in reversed(tags.get(_SUBIFDS, ())[:_MAX_SUBIFDS])]
    return directories


def _number(tags: dict[int, tuple[int, ...]], tag: int) -> int:
    return next(iter(tags.get(tag, ())), 0)


def _read_tags(data: bytes, header: _Header, offset: int) -> tuple[dict[int, tuple[int, ...]], int]:
    """The values of `_TAGS` in the directory at ``offset``, and the offset of the next. Raises struct.error."""
    order, word, entry_bytes = (header.order, "Q", 20) if header.big else (header.order, "I", 12)
    counter = order + ("Q" if header.big else "H")
    (entries,) = struct.unpack_from(counter, data, offset)
    start = offset + struct.calcsize(counter)
    tags: dict[int, tuple[int, ...]] = {}
    for at in range(start, start + entry_bytes * min(entries, 1 << 16), entry_bytes):
        tag, kind, count = struct.unpack_from(f"{order}HH{word}", data, at)
        if tag in _TAGS and kind in _TYPES:
            layout: Any = f"{order}{min(count, _MAX_SUBIFDS)}{_TYPES[kind]}"
            value_at = at + 4 + struct.calcsize(order + word)
            if struct.calcsize(f"{order}{_TYPES[kind]}") * count > struct.calcsize(order + word):
                (value_at,) = struct.unpack_from(order + word, data, value_at)
            tags[tag] = struct.unpack_from(layout, data, value_at)
    (following,) = struct.unpack_from(order + word, data, start + entry_bytes * entries)
    return tags, following
