"""The pictures of an evaluation as files: what every codec setting made of every image, pixel for pixel."""

import hashlib
import io
import re
from pathlib import Path

from PIL import Image

from difflate import files
from difflate.errors import ConfigError
from difflate.evaluate.records import Record
from difflate.media.picture import Picture, open_image

FOLDER = "images"
"""Its name in the folder of a report."""
_ORIGINAL = "original"
_WEBP_MAX_PX = 16383
_MAX_NAME = 100


class PictureFolder:
    """``images/IMAGE/original.webp`` and ``images/IMAGE/SETTING.webp``, lossless; PNG for sides too long for WebP.

    Names of images and settings are kept as far as every file system takes them.
    """

    def __init__(self, report: Path):
        self.folder = report / FOLDER
        self._kept: set[str] = set()

    def keep(self, record: Record, original: Picture, restored: Picture) -> None:
        """Writes both, over what is there; the original once. Raises DifflateError if that cannot be done."""
        if record.image not in self._kept:
            files.atomic_write(self.original(record), _encoded(original))
            self._kept.add(record.image)
        files.atomic_write(self.restored(record), _encoded(restored))

    def original(self, record: Record) -> Path:
        """Where the original of the image is; relative to the report: `relative`."""
        return self._path(record, _ORIGINAL)

    def restored(self, record: Record) -> Path:
        """Where the image is as that setting restored it."""
        return self._path(record, _file_name(record.setting))

    def has(self, record: Record) -> bool:
        """Whether both pictures of the record are there."""
        return (
            not record.error
            and bool(record.width)
            and self.original(record).exists()
            and self.restored(record).exists()
        )

    def relative(self, path: Path) -> str:
        """The path from the report's folder on, with ``/``."""
        return path.relative_to(self.folder.parent).as_posix()

    def read(self, path: Path) -> Picture:
        """The picture in one of the files. Raises ConfigError where it is missing, ImageError where it is damaged."""
        if not path.exists():
            raise ConfigError(f"{path}: the report has no such picture; evaluate again")
        return Picture(open_image(path).pixels)

    def _path(self, record: Record, name: str) -> Path:
        suffix = ".webp" if max(record.width or 0, record.height or 0) <= _WEBP_MAX_PX else ".png"
        return self.folder / _file_name(record.image) / (name + suffix)


def to_image(picture: Picture) -> Image.Image:
    """The pixels as Pillow has them."""
    pixels = picture.pixels
    return Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))


def _encoded(picture: Picture) -> bytes:
    file = io.BytesIO()
    if max(picture.width, picture.height) <= _WEBP_MAX_PX:
        # the fastest of its methods: in less time than PNG's, and smaller
        to_image(picture).save(file, "WEBP", lossless=True, quality=0, method=0)
    else:
        to_image(picture).save(file, "PNG", compress_level=3)
    return file.getvalue()


def _file_name(text: str) -> str:
    """``jpeg:50`` as jpeg@50; what is not fit for a file name everywhere ends with a digest of the text."""
    name = re.sub(r"[^A-Za-z0-9._+-]", "_", text)
    if name == text.replace(":", "_") and len(name) <= _MAX_NAME and name.strip(".") and name != _ORIGINAL:
        return text.replace(":", "@")
    return f"{name[:_MAX_NAME].strip('.')}-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:10]}"
