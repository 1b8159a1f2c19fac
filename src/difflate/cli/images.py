"""Restored pictures as image files of the format that is asked for."""

import io
from pathlib import Path
from typing import Any

from PIL import Image

from difflate.errors import ConfigError
from difflate.media.picture import Picture, to_pil

_SAVE: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "AVIF": {"quality": 95}}
"""What was restored should not lose again what can be seen."""


def suffix_of_format(given: str | None) -> str:
    """The suffix of what --format names; by default that of PNG. Raises ConfigError."""
    suffix = "." + (given or "png").lower().lstrip(".")
    if _kind(suffix) is None:
        raise ConfigError(f"--format (={given}) is no image format; choose png, jpg, webp, avif, tif or bmp")
    return suffix


def kind_of_file(suffix: str, target: Path) -> str:
    """Pillow's name of the format that it writes for ``suffix``, that of ``target``. Raises ConfigError."""
    kind = _kind(suffix)
    if kind is None:
        raise ConfigError(f"output (={target}) has a suffix of no image format; end it in .png, or use --format")
    return kind


def _kind(suffix: str) -> str | None:
    Image.init()
    kind = Image.registered_extensions().get(suffix)
    return kind if kind in Image.SAVE else None


def image_file(picture: Picture, kind: str) -> bytes:
    """The bytes of an image file of format ``kind``. Raises ConfigError if it cannot hold the picture."""
    image, file = to_pil(picture), io.BytesIO()
    if kind in ("JPEG", "BMP") and image.mode in ("RGBA", "LA"):
        raise ConfigError(f"{kind} cannot hold the image's alpha; restore it as PNG or WebP")
    carried = {key: image.info[key] for key in ("exif", "icc_profile", "xmp") if key in image.info}
    try:
        image.save(file, kind, **carried, **_SAVE.get(kind, {}))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{kind} cannot hold this image ({error}); restore it as PNG") from error
    return file.getvalue()
