"""A picture as a WebP file in a section of its own (docs/format.md), for what a codec's own transform cannot hold."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from difflate.errors import FormatError, ImageError
from difflate.format import sections
from difflate.format.container import MAGIC, read_dfl
from difflate.format.stream import ClipFile, clip_of_file, is_clip_file
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.files import load, open_pil

MAX_SIDE_PX = 16383
"""Longest width or height that WebP can hold."""
_METHOD = 4
"""Effort of the encoder, from 0 to 6; more takes twice as long for a few per cent less."""
_LOSSLESS_EFFORT = 75


def encode_webp(pixels: np.ndarray, quality: int | None = None, fast: bool = False) -> bytes:
    """A WebP file of ``pixels: (1 or 3, H, W)`` uint8, of one frame, without alpha and metadata.

    ``quality``: 0 to 100, or None for no loss. ``fast``: in a fraction of the time, and larger. Raises ValueError for
    sides above `MAX_SIDE_PX`, and for the few pictures within it that the format has no room for.
    """
    image = Image.fromarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0).copy())
    file = io.BytesIO()
    if quality is None:
        how = {"method": 0, "quality": 0} if fast else {"method": _METHOD, "quality": _LOSSLESS_EFFORT}
        image.save(file, "WebP", lossless=True, **how)
    else:
        image.save(file, "WebP", quality=quality, method=2 if fast else _METHOD)
    return file.getvalue()


def decode_webp(data: bytes, height: int, width: int) -> np.ndarray:
    """(3, ``height``, ``width``) uint8 of what `encode_webp` has written.

    Raises FormatError for another size, more than one frame, alpha, metadata, damage, all but the last before anything
    is decoded.
    """
    if webp_size(data) != (height, width):
        raise FormatError(
            f"the section with a WebP picture does not hold one of {width}x{height} px, as the header says; get an "
            "intact copy of the file"
        )
    try:
        image = open_pil(data, ("WebP",))
        load(image, "the section with a WebP picture")
    except ImageError as error:
        raise FormatError(f"the section with a WebP picture is damaged ({error})") from error
    pixels = np.asarray(image)
    if image.mode != "RGB" or pixels.shape != (height, width, 3):
        raise FormatError("the section with a WebP picture holds another kind of picture; get an intact copy")
    return pixels.transpose(2, 0, 1).copy()


def webp_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a WebP file with nothing but one opaque picture in it; None for anything else (RFC 9649).

    Animations, alpha of lossy pictures and metadata need the extended format, whose first chunk is another one.
    """
    length = int.from_bytes(data[16:20], "little")
    whole = 20 + length + length % 2
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) != whole or data[4:8] != _uint32(whole - 8):
        return None
    head = data[20:30]
    if data[12:16] == b"VP8 " and length >= 10 and head[3:6] == b"\x9d\x01\x2a":
        # two bits of each number say how a viewer may enlarge it
        return _uint16(head[8:10]) & MAX_SIDE_PX, _uint16(head[6:8]) & MAX_SIDE_PX
    if is_lossless(data) and length >= 5 and head[0] == 0x2F:
        bits = int.from_bytes(head[1:5], "little")
        alpha_and_version = bits >> 28
        return None if alpha_and_version else ((bits >> 14 & MAX_SIDE_PX) + 1, (bits & MAX_SIDE_PX) + 1)
    return None


def is_lossless(data: bytes) -> bool:
    """Whether the WebP file ``data`` is of the lossless kind."""
    return data[12:16] == b"VP8L"


def fallback_notes(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[str, ...]:
    """What is to be said of the file ``data`` where a learned codec has coded it as WebP; nothing of others."""
    if data[: len(MAGIC)] != MAGIC:
        return ()
    file = read_dfl(data, limits)
    if is_clip_file(file):
        clip = clip_of_file(file, limits)
        count = webp_frames(clip)
        return (f"{count} of {clip.frames} frames coded as WebP, which the codec restores far worse",) * bool(count)
    webp = file.section(sections.WEBP)
    if webp is None:
        return ()
    return (f"coded as {'lossless' if is_lossless(webp) else 'lossy'} WebP, as the codec restores it far worse",)


def webp_frames(file: ClipFile) -> int:
    """How many groups of a clip's file hold a frame as WebP."""
    return sum(group[0] == sections.WEBP for group in file.groups)


def _uint16(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _uint32(value: int) -> bytes:
    return value.to_bytes(4, "little")
