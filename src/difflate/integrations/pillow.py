"""Lets Pillow open and save .dfl files. Importing this module registers the format ``DFL``.

>>> import difflate.integrations.pillow
>>> from PIL import Image
>>> Image.registered_extensions()[".dfl"]
'DFL'

Opening reads and checks the file but decodes nothing until pixels are asked for. Saving takes ``codec=`` (a name, a
model's folder or a loaded codec), ``quality=``, ``bpp=`` or ``max_bytes=``, the codec's own ``steps=`` …, and as other
formats ``exif=``, ``icc_profile=`` and ``xmp=``. Files of a model that is not bundled are opened after
`difflate.use_model`.
imageio then reads and writes .dfl too, through Pillow: ``imageio.v3.imread("x.dfl")``.
"""

from __future__ import annotations

import dataclasses
from typing import IO, TYPE_CHECKING, Any

from PIL import Image, ImageFile

from difflate.errors import DifflateError
from difflate.format import sections
from difflate.format.container import MAGIC, read_dfl
from difflate.format.stream import check_picture_file
from difflate.registry import codec_kinds

if TYPE_CHECKING:
    from difflate.media.picture import Picture

_FORMAT = "DFL"
_CARRIED = {sections.EXIF: "exif", sections.ICC: "icc_profile", sections.XMP: "xmp"}


class DflImageFile(ImageFile.ImageFile):
    """A .dfl file; errors are OSError, as Pillow's users expect, with difflate's exception as their cause."""

    format = _FORMAT
    format_description = "Difflate"
    _data: bytes | None = None
    """The file, until it is decoded; of the class as well, since an unpickled image has its pixels and no file."""

    def _open(self) -> None:
        assert self.fp is not None
        self._data = self.fp.read()
        try:
            file = read_dfl(self._data)
            check_picture_file(file)
        except DifflateError as error:
            raise OSError(str(error)) from error
        self._size = (file.width, file.height)
        alpha = file.section(sections.ALPHA) is not None
        self._mode = ("LA" if alpha else "L") if file.grey else ("RGBA" if alpha else "RGB")
        for number, key in _CARRIED.items():
            content = file.section(number)
            if content is not None:
                self.info[key] = content

    def load(self) -> Any:
        """Decodes the pixels, once."""
        if self._data is not None:
            from difflate import decode

            try:
                image = decode(self._data)
            except DifflateError as error:
                raise OSError(str(error)) from error
            self.im, self._data = image.im, None
            if self.fp is not None and getattr(self, "_exclusive_fp", False):
                self.fp.close()
            self.fp = None
        return super().load()


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    from difflate import DEFAULT_CODEC
    from difflate.codecs.base import Codec
    from difflate.codecs.loading import load
    from difflate.codecs.rate_search import encode_picture

    given = image.encoderinfo  # type: ignore[attr-defined]
    try:
        picture = _picture(image, given)
        named = given.get("codec", DEFAULT_CODEC)
        codec = named if isinstance(named, Codec) else load(named)
        if codec.suffix != ".dfl":
            raise OSError(f"codec {codec.name} does not write .dfl files; save with its own format")
        # others, such as optimize=True, are for other formats: Pillow's writers ignore what they do not know
        known = {field.name for kind in codec_kinds() for field in dataclasses.fields(kind.encoding)}
        options = {name: value for name, value in given.items() if name in known}
        coded = encode_picture(
            codec, picture, quality=given.get("quality"), bpp=given.get("bpp"), max_bytes=given.get("max_bytes"),
            options=options,
        )  # fmt: skip
        file.write(coded.data)
    except DifflateError as error:
        raise OSError(str(error)) from error


def _picture(image: Image.Image, options: dict[str, Any]) -> Picture:
    """The picture to save: upright, in sRGB unless ``options`` gives a profile that its pixels are in."""
    from difflate.media.picture import from_pil, to_srgb

    given = {key: options[key] for key in _CARRIED.values() if options.get(key)}
    if not given:
        return from_pil(image)
    image = image.copy()
    if isinstance(given.get("exif"), Image.Exif):
        given["exif"] = given["exif"].tobytes()
    image.info.update(given)
    picture = from_pil(image, metadata=True)
    if "icc_profile" not in given:
        picture = to_srgb(picture)
    dropped = {key: None for key in ("exif", "xmp") if key not in given}
    return dataclasses.replace(picture, **dropped)


def _accept(prefix: bytes) -> bool:
    return prefix[:4] == MAGIC


Image.register_open(_FORMAT, DflImageFile, _accept)
Image.register_save(_FORMAT, _save)
Image.register_extension(_FORMAT, ".dfl")
Image.register_mime(_FORMAT, "image/x-dfl")
