"""Image files opened safely: known formats only, nothing decoded before it is checked, one kind of error."""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Collection
from pathlib import Path
from typing import IO

from PIL import Image, ImageFile

from difflate.errors import ConfigError, DifflateError, ImageError, LimitExceeded
from difflate.media.notes import depth_notes, file_notes, frame_notes
from difflate.media.png import keep_used_chunks

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]
"""A path, the bytes of a file, or a file opened for reading in binary mode."""

FORMATS = {
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "JPEG": ("JpegImagePlugin", "JpegImageFile"),
    "WebP": ("WebPImagePlugin", "WebPImageFile"),
    "AVIF": ("AvifImagePlugin", "AvifImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"),
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "PPM": ("PpmImagePlugin", "PpmImageFile"),
    "JPEG 2000": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
}
"""The formats that are read, with Pillow's module and class. Pillow knows forty more that few use and fewer test."""

PREFIX_BYTES = 64
"""What `sniff_format` looks at, in bytes: the longest list of brands of an AVIF file that is met in practice."""

_MAGIC = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "BMP": (b"BM",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "PPM": tuple(f"P{kind}{space}".encode() for kind in "123456f" for space in " \t\r\n"),
    "JPEG 2000": (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"),
    "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"),
    ".dfl": (b"\x8fDFL",),
}
_ADVICE = {
    ".dfl": "it is a .dfl file; decode it with: difflate decompress",
    "JPEG XL": "it is a JPEG XL file; convert it to PNG with djxl first",
    "HEIC": "it is a HEIC file; convert it to PNG or JPEG first",
}


def sniff_format(prefix: bytes) -> str | None:
    """The format that a file beginning with ``prefix`` is in: a key of `FORMATS`, ".dfl", "JPEG XL", "HEIC" or None."""
    if prefix[:4] == b"RIFF" and prefix[8:12] == b"WEBP":
        return "WebP"
    if prefix[4:8] == b"ftyp":
        brands = prefix[8 : int.from_bytes(prefix[:4], "big")]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        return "HEIC" if any(brand in brands for brand in (b"hei", b"hev", b"mif1", b"msf1")) else None
    return next((name for name, magics in _MAGIC.items() if prefix.startswith(magics)), None)


def open_pil(source: ImageSource, formats: Collection[str] = FORMATS.keys()) -> ImageFile.ImageFile:
    """The image of `open_with_notes` alone."""
    return open_with_notes(source, formats)[0]


def open_with_notes(
    source: ImageSource, formats: Collection[str] = FORMATS.keys()
) -> tuple[ImageFile.ImageFile, list[str]]:
    """The image file ``source`` at its photograph or first frame, not yet decoded, and what is lost of it.

    Check its size, then `load` it. Raises ConfigError for a path that cannot be opened or another type of ``source``,
    ImageError for what is not an image in one of ``formats``, has a damaged header, or is a raw file.
    """
    name, file = open_source(source)
    with file:
        prefix = file.read(PREFIX_BYTES)
        kind = _format_of(name, prefix, formats)
        # in memory from here on: Pillow reads lazily, and would hold the file open
        data = prefix + file.read()
    if kind == "PNG":
        data, notes = keep_used_chunks(data)
        return (image := _open_as(kind, name, data)), _unique(notes + depth_notes(image))
    if kind == "TIFF":
        return _open_tiff(name, data)
    image = _open_as(kind, name, data)
    return image, _unique(file_notes(kind, data, image) + frame_notes(image) + depth_notes(image))


def _open_as(kind: str, name: str, data: bytes) -> ImageFile.ImageFile:
    module, cls = FORMATS[kind]
    factory = getattr(importlib.import_module(f"PIL.{module}"), cls)
    # Not Image.open: its bomb check warns and refuses by a number that is global to the process, where here the
    # caller's limits decide.
    try:
        return factory(io.BytesIO(data), name)
    except Exception as error:
        raise _error_of(name, error) from error


def _open_tiff(name: str, data: bytes) -> tuple[ImageFile.ImageFile, list[str]]:
    """The image and its notes, see `open_with_notes`."""
    # imported here, as every other format's module is
    from difflate.media.tiff import inherit_metadata, select_photograph

    changed, notes = select_photograph(data)
    if changed is None:
        image = _open_as("TIFF", name, data)
        return image, notes + depth_notes(image)
    try:
        image = _open_as("TIFF", name, changed)
    except ImageError as error:
        raise ImageError(
            f"{name}: only the preview of this raw file can be read, not its photograph; develop it to PNG or JPEG "
            "with a raw converter first"
        ) from error
    inherit_metadata(image, data)
    return image, notes + depth_notes(image)


def _unique(notes: list[str]) -> list[str]:
    return list(dict.fromkeys(notes))


def load(image: Image.Image, name: str = "image") -> None:
    """Decodes ``image`` if Pillow has not yet. Raises ImageError if that fails."""
    try:
        image.load()
    except Exception as error:
        raise _error_of(name, error) from error


def open_source(source: ImageSource) -> tuple[str, IO[bytes]]:
    """A name for messages, and a file that the caller may close."""
    if isinstance(source, bytes | bytearray | memoryview):
        return "image data", io.BytesIO(source)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            return str(path), path.open("rb")
        except FileNotFoundError as error:
            raise ConfigError(f"{path} does not exist; check the path") from error
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be opened ({getattr(error, 'strerror', None) or error})") from error
    if hasattr(source, "read"):
        try:
            data = source.read()
        except UnicodeDecodeError:
            data = ""
        if not isinstance(data, bytes):
            raise ConfigError(f"the file to read an image from gave {type(data).__name__}; open it in mode 'rb'")
        name = getattr(source, "name", None)
        return name if isinstance(name, str) else "image data", io.BytesIO(data)
    raise ConfigError(f"an image cannot be opened from {type(source).__name__}; give a path, bytes or a binary file")


def _format_of(name: str, prefix: bytes, formats: Collection[str]) -> str:
    """The key of `FORMATS` that the file is in. Raises ImageError if there is none, or it is not among ``formats``."""
    if not prefix:
        raise ImageError(f"{name}: the file is empty; get a complete copy of it")
    kind = sniff_format(prefix)
    if kind in formats and kind in FORMATS:
        return kind
    if kind in _ADVICE:
        raise ImageError(f"{name}: {_ADVICE[kind]}")
    known = ", ".join(formats)
    raise ImageError(f"{name}: {kind or 'this'} is not an image format that is read here ({known}); convert it first")


def _error_of(name: str, error: Exception) -> DifflateError:
    """Pillow raises a dozen kinds of exception for a damaged file; this is the one that users see instead."""
    if isinstance(error, DifflateError):
        return error
    reason = str(error).strip().rstrip(".") or type(error).__name__
    if isinstance(error, Image.DecompressionBombError | MemoryError):
        return LimitExceeded(f"{name}: too large to be decoded ({reason})")
    if "truncated" in reason.lower():
        return ImageError(f"{name}: {reason}; get a complete copy of the file")
    return ImageError(
        f"{name}: cannot be decoded ({reason}); the file is damaged or of an unusual kind: save it as PNG"
    )
