"""What a Picture cannot hold of an image file, in one short clause each."""

from __future__ import annotations

from PIL import Image

DEPTH = "more than 8 bits a sample are reduced to 8"
GAIN_MAP = "an HDR gain map is dropped"
FRAMES = "only one frame of an animation is kept"
_GAIN_MAPS = (b"hdrgm:Version", b"hdrgainmap", b"urn:iso:std:iso:ts:21496")
"""Adobe's and Google's, Apple's (in the XMP of the map itself), and ISO 21496-1."""
_AVIF_HEADER_BYTES = 1 << 14
_SIZ = b"\xff\x4f\xff\x51"  # first markers of a JPEG 2000 codestream


def frame_notes(image: Image.Image) -> list[str]:
    """Whether the PIL ``image`` is one of several or a preview, as far as it tells without a search for the others."""
    notes = []
    # not getattr: of a GIF that would seek, and lose what was changed of the pixels
    if vars(image).get("is_animated"):
        notes.append("only one of several pages is kept" if image.format == "TIFF" else FRAMES)
    if vars(image).get("tag_v2", {}).get(254) == 1:  # NewSubfileType
        notes.append("it is a preview of a larger image in its file")
    return notes


def depth_notes(image: Image.Image) -> list[str]:
    """Whether the samples of ``image`` have more than 8 bits; how they are packed is known until it is decoded."""
    tiles = getattr(image, "tile", None)
    packing = tiles[0][3] if tiles else ""
    deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
    deep |= ";16" in str(packing) and "BGR;16" not in str(packing)  # that of BMP are 16 bits a pixel
    if image.format == "PPM" and isinstance(packing, tuple):
        deep |= any(isinstance(number, int) and number > 255 for number in packing)
    return [DEPTH] if deep else []


def file_notes(kind: str, data: bytes | bytearray, image: Image.Image) -> list[str]:
    """What is lost of ``image``, opened from the file ``data`` of format ``kind``, beyond what the image tells."""
    notes = []
    if kind == "JPEG" and "mp" in image.info:
        if any(name in data for name in _GAIN_MAPS):
            notes.append(GAIN_MAP)
        elif _has_other_photographs(image):
            notes.append("the other pictures of the file are dropped")
    if kind == "AVIF" and data.find(b"tmap", 0, _AVIF_HEADER_BYTES) >= 0:
        notes.append(GAIN_MAP)
    if kind == "GIF":
        try:
            animated = image.is_animated  # type: ignore[attr-defined]
        except Exception:  # damaged after the first frame
            animated = True
        if animated:
            notes.append(FRAMES)
    if _depth_bits(kind, data) > 8:
        notes.append(DEPTH)
    return notes


def _has_other_photographs(image: Image.Image) -> bool:
    """Whether the MPF index of a JPEG file lists more than the picture itself and thumbnails of it."""
    from PIL.JpegImagePlugin import _getmp

    try:
        index = _getmp(image) or {}  # type: ignore[arg-type]
        kinds = [entry["Attribute"]["MPType"] for entry in index[0xB002]]
    except Exception:
        return False
    return sum("Thumbnail" not in kind for kind in kinds) > 1


def _depth_bits(kind: str, data: bytes | bytearray) -> int:
    """Bits of a sample, in the formats that Pillow brings to 8 without a word; 8 for others."""
    if kind == "AVIF":
        at = data.find(b"pixi", 0, _AVIF_HEADER_BYTES)
        # version and flags, number of channels, bits of each (ISO/IEC 23008-12, 6.5.6)
        return data[at + 9] if 0 <= at < len(data) - 9 else 8
    if kind == "JPEG 2000":
        at = data.find(_SIZ)
        return (data[at + 42] & 0x7F) + 1 if 0 <= at < len(data) - 42 else 8
    return 8
