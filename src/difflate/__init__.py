"""Difflate: images and latents compressed with learned codecs; one API for them and for the classical ones.

>>> import difflate
>>> data = difflate.encode("examples/kodim23.png")      # bytes of a .dfl file
>>> image = difflate.decode(data)                       # PIL.Image, same size
>>> image.size
(768, 512)

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import logging
import os
from typing import IO, TYPE_CHECKING, Any

from difflate.errors import naming

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from difflate.codecs.base import ClipCodec, Codec
    from difflate.limits import Limits
    from difflate.media.clip import Clip

__version__ = "0.3.0"
DEFAULT_CODEC = "cdc-small"
__all__ = [
    "DEFAULT_CODEC", "__version__", "decode", "decode_clip", "encode", "encode_clip", "load", "open_clip", "open_image",
    "use_model", "write_clip",
]  # fmt: skip


def encode(
    image: Any,
    codec: str | Path | Codec = DEFAULT_CODEC,
    *,
    quality: float | None = None,
    bpp: float | None = None,
    max_bytes: int | None = None,
    metadata: bool = False,
    limits: Limits | None = None,
    **options: Any,
) -> bytes:
    """The bytes of a complete file: ``.dfl`` for learned codecs, the codec's own format for classical ones.

    ``image``: path, bytes of an image file, PIL image, numpy (H, W[, C]) or torch (C, H, W). ``codec``: a name, a
    model's folder or a loaded codec. In the place of ``quality`` the best one is taken whose file has at most ``bpp``
    bits per pixel, or ``max_bytes``. ``metadata``: keep EXIF, ICC profile and XMP. ``options``: the codec's own, such
    as ``steps=4`` (`difflate.options`). For many images, on a GPU above all, there is `encode_many` of the codecs that
    are learned (`difflate.codecs.learned.LearnedCodec`). Raises difflate.errors exceptions.
    """
    from difflate.codecs.base import codec_of_pictures
    from difflate.codecs.rate_search import encode_picture
    from difflate.format.webp import fallback_notes
    from difflate.limits import DEFAULT_LIMITS
    from difflate.media.picture import as_picture

    limits = limits or DEFAULT_LIMITS
    picture = as_picture(image, metadata=metadata, limits=limits)
    name, log = image if isinstance(image, str | os.PathLike) else "image", logging.getLogger(__name__)
    for note in picture.notes:
        log.warning("%s: %s", name, note)
    coded = encode_picture(
        codec_of_pictures(_codec(codec)),
        picture,
        quality=quality,
        bpp=bpp,
        max_bytes=max_bytes,
        limits=limits,
        options=options,
    )
    for note in fallback_notes(coded.data, limits):
        log.info("%s: %s", name, note)
    return coded.data


def decode(
    data: bytes | str | Path, *, codec: str | Path | Codec | None = None, limits: Limits | None = None, **options: Any
) -> Image.Image:
    """The image in a .dfl, JPEG, WebP, AVIF, PNG or JPEG XL file: its bytes, its path, or a binary file object.

    The codec is found from the bytes; ``codec`` names a model that is not bundled. ``options``: the codec's own, such
    as ``steps=4`` (`difflate.options`). Many files: `decode_many`, as for `encode`. Raises difflate.errors exceptions.
    """
    from difflate.codecs.loading import codec_for
    from difflate.limits import DEFAULT_LIMITS
    from difflate.media.files import open_source
    from difflate.media.picture import to_pil

    limits = limits or DEFAULT_LIMITS
    name, file = open_source(data)
    with file, naming(name):
        content = file.read()
        chosen = codec_for(content, limits) if codec is None else _codec(codec)
        return to_pil(chosen.decode(content, limits=limits, **options))


def encode_clip(
    clip: Any,
    codec: str | Path | Codec | ClipCodec = DEFAULT_CODEC,
    *,
    quality: float | None = None,
    audio: bool = False,
    limits: Limits | None = None,
    **options: Any,
) -> bytes:
    """The bytes of a complete file of a clip: ``.dfl`` for learned codecs, the codec's own format for classical ones.

    ``clip``: a `difflate.media.clip.Clip`, or what `open_clip` opens; then ``audio`` keeps the sound as it is.
    ``codec`` and ``options`` as for `encode`. Frames are read once and let go of. Raises difflate.errors exceptions.
    """
    from difflate.codecs.base import codec_of_clips
    from difflate.format.webp import fallback_notes
    from difflate.limits import DEFAULT_LIMITS
    from difflate.media.clip import Clip
    from difflate.media.video import open_clip

    limits, coder = limits or DEFAULT_LIMITS, codec_of_clips(_codec(codec))
    opened = clip if isinstance(clip, Clip) else open_clip(clip, audio=audio, limits=limits)
    data = coder.encode_clip(opened, quality=quality, limits=limits, **options)
    name, log = clip if isinstance(clip, str | os.PathLike) else "clip", logging.getLogger(__name__)
    for note in opened.notes:
        log.warning("%s: %s", name, note)
    for note in fallback_notes(data, limits):
        log.info("%s: %s", name, note)
    return data


def decode_clip(
    data: bytes | str | Path | IO[bytes],
    *,
    codec: str | Path | Codec | ClipCodec | None = None,
    salvage: bool = False,
    limits: Limits | None = None,
    **options: Any,
) -> Clip:
    """The clip in a .dfl file (bytes, path or binary file object); its frames are decoded as they are asked for.

    ``salvage``: of a file that was cut or damaged the frames before the damage; `Clip.notes` then says how many.
    ``codec`` and ``options`` as for `decode`. `open_clip` reads video files. Raises difflate.errors exceptions.
    """
    from difflate.codecs.base import codec_of_clips
    from difflate.codecs.loading import codec_of
    from difflate.format.salvage import salvage_clip_file
    from difflate.format.stream import read_clip_file
    from difflate.limits import DEFAULT_LIMITS
    from difflate.media.files import open_source

    limits = limits or DEFAULT_LIMITS
    name, file = open_source(data)
    with file, naming(name):
        content = file.read()
        if codec is None:
            read = salvage_clip_file if salvage else read_clip_file
            chosen = codec_of_clips(codec_of(read(content, limits).header))
        else:
            chosen = codec_of_clips(_codec(codec))
        return chosen.decode_clip(content, limits=limits, **({"salvage": True} if salvage else {}), **options)


def open_clip(source: Any, **options: Any) -> Clip:
    """The clip in a video file, a folder of numbered images or a stream (see `difflate.media.video.open_clip`)."""
    from difflate.media.video import open_clip

    return open_clip(source, **options)


def write_clip(clip: Clip, target: Any, **options: Any) -> list[str]:
    """Writes a clip to a video file, a folder or a stream (see `difflate.media.video.write_clip`)."""
    from difflate.media.video import write_clip

    return write_clip(clip, target, **options)


def load(name: str | Path = DEFAULT_CODEC, *, allow_download: bool = False) -> Codec:
    """The codec of that name, in that model folder or Hugging Face repository (see `difflate.codecs.loading.load`)."""
    from difflate.codecs.loading import load

    return load(name, allow_download=allow_download)


def use_model(name: str | Path, *, allow_download: bool = False) -> Codec:
    """The codec of a model that is not bundled; from now on `decode`, Pillow and imageio find it for its files."""
    from difflate.codecs.loading import use_model

    return use_model(name, allow_download=allow_download)


def open_image(source: Any, **options: Any) -> Any:
    """A `difflate.media.picture.Picture` of an image file (see `difflate.media.picture.open_image`)."""
    from difflate.media.picture import open_image

    return open_image(source, **options)


def _codec(codec: Any) -> Any:
    from difflate.codecs.base import ClipCodec, Codec
    from difflate.codecs.loading import load

    return codec if isinstance(codec, Codec | ClipCodec) else load(codec)
