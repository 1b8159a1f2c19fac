"""Small image files, EXIF blocks and ICC profiles, made from nothing."""

import io
import struct
import zlib
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

from difflate.media.picture import Picture, to_array

ORIENTATION = 0x0112
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'
# Linear RGB to XYZ (D50), as the profiles of the two spaces hold it.
P3_TO_XYZ = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB_TO_XYZ = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def png(width: int, height: int, depth: int, colour_type: int, rows: list[bytes], trns: bytes = b"") -> bytes:
    """A PNG file with ``rows`` as they are packed; Pillow cannot write 2-bit, 4-bit and 16-bit colour itself."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    key = png_chunk(b"tRNS", trns) if trns else b""
    data = png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + key + data + png_chunk(b"IEND", b"")


def same(first: Picture, second: Picture) -> bool:
    return np.array_equal(to_array(first), to_array(second))


def exif_block(orientation: int, order: str = "<") -> bytes:
    """An EXIF block: make "me" and the orientation."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    make = struct.pack(f"{order}HHI", 271, 2, 3) + b"me\0\0"
    turn = struct.pack(f"{order}HHIHH", ORIENTATION, 3, 1, orientation, 0)
    return mark + struct.pack(f"{order}IH", 8, 2) + make + turn + struct.pack(f"{order}I", 0)


def linear(values: np.ndarray) -> np.ndarray:
    """Light in [0, 1] of sRGB ``values`` in [0, 255]."""
    values = values / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def unlinear(light: np.ndarray) -> np.ndarray:
    """The inverse of `linear`, clipped and rounded."""
    light = np.clip(light, 0, 1)
    return np.rint(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))


def rgb_profile(to_xyz: np.ndarray) -> bytes:
    """An ICC profile of RGB with the primaries ``to_xyz`` and the transfer curve of sRGB."""
    curve = b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + _s15(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    columns = {name: b"XYZ \0\0\0\0" + _s15(*to_xyz[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return _profile(b"RGB ", b"XYZ ", b"mntr", columns | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def grey_profile(gamma: float) -> bytes:
    """An ICC profile of grey with the transfer curve ``x ** gamma``."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": curve})


def cmyk_profile() -> bytes:
    """An ICC profile of CMYK in which every ink but black does nothing, so that cyan paper is white."""
    ramp = bytes(range(256))
    lab = b"".join(bytes((0 if k else 255, 128, 128)) for _, _, _, k in product((0, 1), repeat=4))
    unit = _s15(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + unit + ramp * 4 + lab + ramp * 3
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table})


def _s15(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile, version 4 (ICC.1:2010, 7.2 and 7.3)."""
    white = _s15(0.9642, 1, 0.8249)
    text = "t".encode("utf-16-be")
    words = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    tags = {b"desc": words, b"cprt": words, b"wtpt": b"XYZ \0\0\0\0" + white, **tags}
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x04200000, kind, space, connection)
    date = struct.pack(">6H", 2024, 1, 1, 0, 0, 0)
    head = (head + date + b"acsp" + bytes(28) + white).ljust(128, b"\0")
    return head + struct.pack(">I", len(tags)) + table + body


def png_chunk(kind: bytes, data: bytes, crc_off_by: int = 0) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data) ^ crc_off_by)


def with_chunks(file: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    """The PNG ``file`` with chunks before and after its first data chunk."""
    at = file.index(b"IDAT") - 4
    end = at + 12 + int.from_bytes(file[at : at + 4], "big")
    return file[:at] + before + file[at:end] + after + file[end:]


@dataclass(frozen=True)
class Page:
    """An image of a TIFF file: its pixels (H, W, 3), further tags, and the images below it."""

    pixels: np.ndarray
    tags: dict[int, int | bytes] = field(default_factory=dict)
    below: tuple["Page", ...] = ()


def tiff(*pages: Page, order: str = "<", big: bool = False) -> bytes:
    """An uncompressed TIFF file (BigTIFF if ``big``), with the images below a page as SubIFDs."""
    word = "Q" if big else "I"
    mark = {"<": b"II", ">": b"MM"}[order]
    body = bytearray(mark + struct.pack(f"{order}HHHQ" if big else f"{order}HI", *((43, 8, 0, 0) if big else (42, 0))))

    def write(page: Page, link: int) -> tuple[int, int]:
        """(offset of its directory, place of the link to the next); its offset is written to ``link``."""
        below = [write(child, 0)[0] for child in page.below]
        height, width, _ = page.pixels.shape
        data_at = len(body)
        body.extend(page.pixels.tobytes())
        numbers = {
            256: (width,), 257: (height,), 258: (8, 8, 8), 259: (1,), 262: (2,), 273: (data_at,), 277: (3,),
            278: (height,), 279: (page.pixels.nbytes,), **({330: tuple(below)} if below else {}),
        }  # fmt: skip
        values: dict[int, tuple[int, int, bytes]] = {
            tag: (3, len(v), struct.pack(f"{order}{len(v)}H", *v)) if tag == 258 else (4, len(v), _longs(order, v))
            for tag, v in numbers.items()
        }
        for tag, value in page.tags.items():
            text = tag == 271
            values[tag] = (
                (4, 1, _longs(order, (value,))) if isinstance(value, int) else (2 if text else 7, len(value), value)
            )
        entries = b""
        for tag, (kind, count, data) in sorted(values.items()):
            if len(data) > struct.calcsize(word):
                at = len(body)
                body.extend(data)
                data = struct.pack(order + word, at)
            entries += struct.pack(f"{order}HH{word}", tag, kind, count) + data.ljust(struct.calcsize(word), b"\0")
        offset = len(body)
        body.extend(struct.pack(order + ("Q" if big else "H"), len(values)) + entries)
        end = len(body)
        body.extend(struct.pack(order + word, 0))
        if link:
            struct.pack_into(order + word, body, link, offset)
        return offset, end

    link = 8 if big else 4
    for page in pages:
        link = write(page, link)[1]
    return bytes(body)


def _longs(order: str, values: tuple[int, ...]) -> bytes:
    return struct.pack(f"{order}{len(values)}I", *values)
