"""EXIF, XMP and the orientation that stands in them."""

from __future__ import annotations

import re
import struct

import numpy as np
from PIL import Image

EXIF_PREFIX = b"Exif\0\0"
"""What JPEG writes before the EXIF block itself."""
ORIENTATION_TAG = 0x0112
_SHORT = 3
# Description, make, model, resolution, software, date, artist, copyright, EXIF and GPS: the tags of a TIFF file that
# tell of the picture. The others tell how the file is laid out and would be wrong in any other file.
_TIFF_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 33432, 34665, 34853)
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>)\s*)[2-8]")


def orientation(image: Image.Image) -> int:
    """How the stored pixels lie, 1 (upright) to 8, as EXIF counts; 1 if nothing sensible is said."""
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:
        # damaged EXIF is common, and no reason to refuse the picture
        return 1
    return value if value in range(1, 9) else 1


def turn_upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """``array: (..., H, W)`` stored in ``orientation`` (1 to 8), turned so that it is upright; a view."""
    if orientation >= 5:
        array = array.swapaxes(-1, -2)
    if orientation in (3, 4, 7, 8):
        array = array[..., ::-1, :]
    if orientation in (2, 3, 6, 7):
        array = array[..., ::-1]
    return array


def turn_back(array: np.ndarray, orientation: int) -> np.ndarray:
    """What `turn_upright` has turned, as it was stored; a view."""
    return turn_upright(array, {6: 8, 8: 6}.get(orientation, orientation))


def read_exif(image: Image.Image, turned: bool) -> bytes | None:
    """The EXIF block of ``image`` from its byte order mark on, orientation set to upright; None if it has none.

    Where the pixels are ``turned`` its thumbnail, which still lies as they did, is unlinked.
    """
    raw = image.info.get("exif")
    if not isinstance(raw, bytes):
        raw = _build_exif(image)
    raw = raw.removeprefix(EXIF_PREFIX)
    return _reset_orientation(raw, turned) if raw else None


def read_xmp(image: Image.Image) -> bytes | None:
    """The XMP packet of ``image``, orientation set to upright; None if it has none."""
    raw = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if isinstance(raw, str):
        raw = raw.encode()
    if not isinstance(raw, bytes) or not raw:
        return None
    return _XMP_ORIENTATION.sub(rb"\g<1>1", raw)


def tiff_exif(image: Image.Image) -> Image.Exif:
    """The tags of the TIFF file ``image`` that tell of the picture."""
    tags, kept = image.getexif(), Image.Exif()
    for tag in _TIFF_TAGS:
        if tag in tags:
            kept[tag] = tags.get_ifd(tag) if tag in (34665, 34853) else tags[tag]
    return kept


def _build_exif(image: Image.Image) -> bytes:
    """EXIF that does not lie in the file as one block: TIFF spreads it, old PNG files hold it as text."""
    try:
        exif = tiff_exif(image) if image.format == "TIFF" else image.getexif()
        return exif.tobytes() if exif else b""
    except Exception:
        return b""


def _reset_orientation(exif: bytes, turned: bool) -> bytes:
    """``exif`` with the orientation 1, and without a link to its thumbnail (IFD1) if ``turned``.

    Changed in place: writing it anew would lose maker notes.
    """
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return exif
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return exif
    changed = bytearray(exif)
    (entries,) = struct.unpack_from(f"{order}H", exif, start)
    end = start + 2 + 12 * entries
    for at in range(start + 2, min(end, len(exif) - 11), 12):
        if struct.unpack_from(f"{order}HH", exif, at) == (ORIENTATION_TAG, _SHORT):
            struct.pack_into(f"{order}H", changed, at + 8, 1)
    if turned and end + 4 <= len(exif):
        struct.pack_into(f"{order}I", changed, end, 0)
    return bytes(changed)
