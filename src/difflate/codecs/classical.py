"""The codecs that people use today, to compare with: JPEG, WebP, AVIF, PNG and JPEG XL, each writing its own files.

All but JPEG XL go through Pillow, JPEG XL through imagecodecs. Where a setting only costs time and makes files smaller
at the same pixels or better, as rivals they get it (docs/images.md lists all).
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import PngImagePlugin

from difflate.codecs.base import quality_for
from difflate.errors import ConfigError, ImageError, LimitExceeded
from difflate.extras import require
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.alpha import fill_hidden, over_white
from difflate.media.files import PREFIX_BYTES, open_pil, sniff_format
from difflate.media.metadata import EXIF_PREFIX
from difflate.media.modes import depth_to_8_bits
from difflate.media.picture import Picture, from_array, from_pil, to_array, to_pil, to_srgb
from difflate.options import AvifEncoding, Encoding, Options, RestoredDecoding

_NAMES = {"JPEG": "jpeg", "WebP": "webp", "AVIF": "avif", "PNG": "png", "JPEG XL": "jxl"}


def classical_codecs() -> dict[str, PillowCodec | JpegXlCodec]:
    """Every classical codec by its name. JPEG XL needs the extra ``eval`` when it is used, not before."""
    codecs: tuple[PillowCodec | JpegXlCodec, ...] = (
        # 65500: libjpeg's own limit, below the 65535 that the format could hold
        # optimize: Huffman tables made for the image, a fifth fewer bytes at low quality
        PillowCodec(
            "jpeg",
            ".jpg",
            (1, 100, 75),
            "JPEG",
            65500,
            "JPEG, chroma at half size",
            {"optimize": True},
            Options,
            RestoredDecoding,
        ),
        PillowCodec(
            "webp", ".webp", (0, 100, 80), "WebP", 16383, "WebP, lossy", {"method": 6}, decoding=RestoredDecoding
        ),
        # 32768: what libavif reads back; it writes larger ones
        PillowCodec(
            "avif",
            ".avif",
            (0, 100, 75),
            "AVIF",
            32768,
            "AVIF (AV1), 8 bits, chroma at half size",
            encoding=AvifEncoding,
            decoding=RestoredDecoding,
        ),
        PillowCodec("png", ".png", None, "PNG", None, "PNG, lossless", encoding=Options),
        JpegXlCodec(),
    )
    return {codec.name: codec for codec in codecs}


def sniff(data: bytes) -> str | None:
    """The name of the classical codec whose file ``data`` begins as, or None."""
    return _NAMES.get(sniff_format(data[:PREFIX_BYTES]) or "")


@dataclass
class PillowCodec:
    """A codec that Pillow has; see `difflate.codecs.base.Codec`."""

    name: str
    suffix: str
    quality_range: tuple[float, float, float] | None
    """(lowest, highest, default); whole numbers only."""
    format: str
    """Name of the format in `difflate.media.files.FORMATS`."""
    max_side_px: int | None
    """Longest width or height that the codec can write and read, in pixels."""
    about: str = ""
    """A few words for lists."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What Pillow's `save` gets beside the quality."""
    encoding: type[Options] = Encoding
    decoding: type[Options] = Options

    def encode(
        self, picture: Picture, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> bytes:
        """The bytes of a complete file. Raises ConfigError (quality, options), LimitExceeded (size, metadata)."""
        chosen = self.encoding.of(options, self.name)
        settings: dict[str, Any] = dict(self.settings)
        if (checked := quality_for(self, quality)) is not None:
            if checked != int(checked):
                raise ConfigError(f"quality (={checked:g}) must be a whole number for {self.name}")
            settings["quality"] = int(checked)
        if isinstance(chosen, AvifEncoding) and chosen.speed is not None:
            settings["speed"] = chosen.speed
        _check_size(self.name, self.max_side_px, picture, limits)
        if self.format == "JPEG":
            picture = over_white(picture)
        elif isinstance(chosen, Encoding) and not chosen.exact_alpha:
            picture = fill_hidden(picture)
        elif self.format == "WebP":  # which else evens out what is invisible
            settings["exact"] = True
        settings |= self._metadata_options(picture)
        image = to_pil(replace(picture, exif=None, icc=None, xmp=None))
        file = io.BytesIO()
        try:
            image.save(file, self.format, **settings)
        except ValueError as error:
            # all else was checked above: JPEG has room for 64 KiB of each kind of metadata
            raise LimitExceeded(f"{self.name} cannot hold this image ({error}); encode it without metadata") from error
        return file.getvalue()

    def decode(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> Picture:
        """The picture in ``data`` with its metadata, perhaps restored (`RestoredDecoding`).

        Raises ConfigError, ImageError, LimitExceeded (at once), ModelError (a restorer that is not here).
        """
        chosen = self.decoding.of(options, self.name)
        image = open_pil(data, (self.format,))
        picture = from_pil(image, metadata=True, limits=limits)
        if isinstance(chosen, RestoredDecoding) and chosen.restores:
            from difflate.codecs.restoring import restored  # imports torch

            return restored(picture, image, chosen, limits)
        return picture

    def _metadata_options(self, picture: Picture) -> dict[str, Any]:
        """How Pillow wants EXIF, ICC and XMP for this format."""
        options: dict[str, Any] = {}
        if picture.exif is not None:
            options["exif"] = EXIF_PREFIX + picture.exif if self.format == "JPEG" else picture.exif
        if picture.icc is not None:
            options["icc_profile"] = picture.icc
        if picture.xmp is not None and self.format == "PNG":
            options["pnginfo"] = PngImagePlugin.PngInfo()
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", picture.xmp)
        elif picture.xmp is not None:
            options["xmp"] = picture.xmp
        return options


@dataclass
class JpegXlCodec:
    """JPEG XL by libjxl; quality is the Butteraugli distance, so lower is better and 0 is lossless.

    Files hold no metadata, and pixels are sRGB: a picture with an ICC profile is converted before encoding.
    """

    name: str = "jxl"
    suffix: str = ".jxl"
    quality_range: tuple[float, float, float] | None = (0.0, 15.0, 1.0)
    encoding: type[Encoding] = Encoding
    decoding: type[Options] = Options
    about: str = "JPEG XL; -q is a distance: 0 is lossless, 1 hardly visible; needs difflate[eval]"

    def encode(
        self, picture: Picture, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> bytes:
        """The bytes of a complete file. Raises ConfigError (quality, options, package), LimitExceeded (size)."""
        chosen = self.encoding.of(options, self.name)
        distance = quality_for(self, quality)
        _check_size(self.name, None, picture, limits)
        if distance and not chosen.exact_alpha:
            picture = fill_hidden(picture)
        samples = to_array(to_srgb(picture))
        # libjxl rounds through its own colour space at distance 0 unless told, as cjxl tells it, to be lossless
        lossless = distance == 0
        distance = None if lossless else distance
        return bytes(require("imagecodecs", "eval").jpegxl_encode(samples, distance=distance, lossless=lossless))

    def decode(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> Picture:
        """The picture in ``data``. Raises ConfigError (package missing), ImageError, LimitExceeded before decoding."""
        self.decoding.of(options, self.name)
        imagecodecs = require("imagecodecs", "eval")
        limits.check_size(*jxl_size(data), what="JPEG XL image")
        try:
            samples = imagecodecs.jpegxl_decode(data, index=0)
        except Exception as error:
            raise ImageError(
                f"image data: JPEG XL image cannot be decoded ({error}); get a complete copy of the file"
            ) from error
        if samples.dtype.kind == "f":
            # high dynamic range goes above 1, which a picture of 8 bits cannot show
            samples = np.nan_to_num(samples).clip(0, 1)
        return from_array(depth_to_8_bits(samples) if samples.dtype == np.uint16 else samples)


def jxl_size(data: bytes) -> tuple[int, int]:
    """(width, height) in pixels from the header of a JPEG XL file (ISO/IEC 18181-1, SizeHeader). Raises ImageError."""
    stream = _jxl_codestream(data)
    if stream[:2] != b"\xff\x0a" or len(stream) < 4:
        raise ImageError("image data: not a JPEG XL file, or its beginning only; get a complete copy of the file")
    # 2 * (1 + 2 + 30) + 3 bits at most; past the end of a short file there are zeros, which libjxl then refuses
    bits = int.from_bytes(stream[2:16], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    small = take(1)

    def take_side() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = take_side()
    ratio = take(3)
    if not ratio:
        return take_side(), height
    numerator, denominator = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
    return height * numerator // denominator, height


def _jxl_codestream(data: bytes) -> bytes:
    """The first bytes of the codestream in ``data``, which is either the codestream itself or boxes around it."""
    if data[4:8] != b"JXL ":
        return data[:16]
    at = 0
    while at + 8 <= len(data):
        size, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if kind in (b"jxlc", b"jxlp"):
            # jxlp counts its parts in four bytes before the data
            start = at + head + (4 if kind == b"jxlp" else 0)
            return data[start : start + 16]
        if size < head:
            break
        at += size
    return b""


def _check_size(name: str, max_side_px: int | None, picture: Picture, limits: Limits) -> None:
    limits.check_size(picture.width, picture.height)
    if max_side_px is not None and max(picture.width, picture.height) > max_side_px:
        size = f"{picture.width}x{picture.height}"
        raise LimitExceeded(f"image is {size} px, a side above the {max_side_px} px of {name}; use another codec")
