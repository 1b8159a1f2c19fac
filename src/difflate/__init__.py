"""Difflate: images and latents compressed with learned codecs; one API for them and for the classical ones.

>>> import difflate
>>> data = difflate.encode("examples/kodim23.png")      # bytes of a .dfl file
>>> image = difflate.decode(data)                       # PIL.Image, same size
>>> image.size
(768, 512)

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from difflate.codecs.base import Codec
    from difflate.limits import Limits

__version__ = "0.1.0"
DEFAULT_CODEC = "cdc-small"
__all__ = ["DEFAULT_CODEC", "__version__", "decode", "encode", "load", "open_image"]


def encode(
    image: Any,
    codec: str | Path | Codec = DEFAULT_CODEC,
    *,
    quality: float | None = None,
    metadata: bool = False,
    limits: Limits | None = None,
    **options: Any,
) -> bytes:
    """The bytes of a complete file: ``.dfl`` for learned codecs, the codec's own format for classical ones.

    ``image``: path, bytes of an image file, PIL image, numpy (H, W[, C]) or torch (C, H, W). ``codec``: a name, a
    model's folder or a loaded codec. ``metadata``: keep EXIF, ICC profile and XMP. ``options``: of that codec, such
    as ``steps=4``. Raises difflate.errors exceptions.
    """
    from difflate.codecs.base import options_for
    from difflate.limits import DEFAULT_LIMITS
    from difflate.media.picture import as_picture

    limits = limits or DEFAULT_LIMITS
    picture = as_picture(image, metadata=metadata, limits=limits)
    found = _codec(codec)
    return found.encode(picture, quality=quality, limits=limits, **options_for(found, found.encode, options))


def decode(
    data: bytes, *, codec: str | Path | Codec | None = None, limits: Limits | None = None, **options: Any
) -> Image.Image:
    """The image in ``data``, the bytes of a .dfl, JPEG, WebP, AVIF, PNG or JPEG XL file.

    The codec is found from the bytes; ``codec`` names a model that is not bundled. ``options``: of that codec, such as
    ``steps=4``. Raises difflate.errors exceptions.
    """
    from difflate.codecs.base import options_for
    from difflate.limits import DEFAULT_LIMITS
    from difflate.media.picture import to_pil
    from difflate.store.hub import codec_for

    limits = limits or DEFAULT_LIMITS
    found = codec_for(data, limits) if codec is None else _codec(codec)
    return to_pil(found.decode(data, limits=limits, **options_for(found, found.decode, options)))


def load(name: str | Path = DEFAULT_CODEC, *, allow_download: bool = False) -> Codec:
    """The codec of that name, in that model folder or Hugging Face repository (see `difflate.store.hub.load`)."""
    from difflate.store.hub import load

    return load(name, allow_download=allow_download)


def open_image(source: Any, **options: Any) -> Any:
    """A `difflate.media.picture.Picture` of an image file (see `difflate.media.picture.open_image`)."""
    from difflate.media.picture import open_image

    return open_image(source, **options)


def _codec(codec: Any) -> Codec:
    from difflate.codecs.base import Codec
    from difflate.store.hub import load

    return codec if isinstance(codec, Codec) else load(codec)
