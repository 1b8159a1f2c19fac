"""Codecs measured on images: encode to the bytes of a file, decode those bytes, compare."""

import functools
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from difflate.codecs.base import Codec
from difflate.data.images import list_images
from difflate.errors import ConfigError, DifflateError
from difflate.evaluate.journal import Journal, model_digest
from difflate.evaluate.measures import comparisons
from difflate.evaluate.options import load_with_options
from difflate.evaluate.records import Record
from difflate.evaluate.settings import CodecSetting, load_codec, parse_codecs
from difflate.evaluate.versions import versions
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture, open_image
from difflate.metrics.distortion import bits_per_pixel
from difflate.metrics.pairs import planes_of_pair

if TYPE_CHECKING:
    from difflate.evaluate.measures import Comparison

logger = logging.getLogger(__name__)


def evaluate(
    images: Iterable[str | Path],
    codecs: str | Sequence[str] | Sequence[CodecSetting],
    *,
    load: Callable[[str], Codec] | None = None,
    also: Mapping[str, str | None] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    journal: Journal | None = None,
    progress: Callable[[Record], None] | None = None,
) -> list[Record]:
    """One record per image and codec setting, images in the outer order; ``progress`` is called with each.

    ``also``: optional measures, such as ``{"lpips": "alex"}`` (see `measures.comparisons`). ``journal``: where records
    are kept as they come; what it has of the same image, setting, model, measures and versions is not measured again.
    Codecs get the pixels alone: alpha, EXIF, ICC and XMP are dropped before encoding, so that all files hold the same
    and the metrics see all they hold. Each codec encodes and decodes once outside of the timing before its first
    image. An image or codec that fails gives a record with its error and the run goes on.
    Raises ConfigError for two images of one name (records are told apart by it) and for missing packages, what
    `parse_codecs` raises, and DifflateError if the journal cannot be written.
    """
    also = dict(also or {})
    compare = comparisons(also)
    plain = functools.cache(load or load_codec)
    paths = [Path(path) for path in images]
    repeated = [name for name, count in Counter(path.name for path in paths).items() if count > 1]
    if repeated:
        raise ConfigError(f"more than one image is named {repeated[0]}; evaluate their folders one at a time")
    settings = parse_codecs(codecs if isinstance(codecs, str) else ",".join(map(str, codecs)), plain)
    names = dict.fromkeys(setting.codec for setting in settings)
    measurer = _Measurer({name: load_with_options(name, plain) for name in names}, compare, also, limits)
    models = {name: model_digest(name) for name in names} if journal is not None else {}
    records: list[Record] = []
    for path in paths:
        read = functools.cache(functools.partial(_read, path))  # not at all if the journal has all of the image
        image = _file_digest(path) if journal is not None else ""
        for setting in settings:
            if journal is None:
                record = measurer.measure(path, read, setting)
            else:
                key = _key(path.name, image, str(setting), models[setting.codec], sorted(compare), also, versions())
                record = journal.record(key)
                if record is None:
                    record = measurer.measure(path, read, setting)
                    journal.add(key, record)
            records.append(record)
            if progress:
                progress(record)
    return records


def find_images(paths: Iterable[str | Path], max_images: int | None = None) -> list[Path]:
    """The image files among ``paths``, at most ``max_images``: files as given, of folders their images sorted by name.

    Raises ConfigError if a path does not exist, a folder has no image, or max_images is below 1.
    """
    if max_images is not None and max_images < 1:
        raise ConfigError(f"max_images (={max_images}) must be at least 1")
    paths = list(paths)
    if not paths:
        raise ConfigError("there is no image in an empty list of paths")
    return list(dict.fromkeys(list_images(map(Path, paths), recursive=False)))[:max_images]


def _read(path: Path) -> Picture | Exception:
    """The pixels of the image, or what reading it raised, which is the outcome of each of its settings."""
    try:
        return Picture(open_image(path).pixels)
    except Exception as error:
        return error


def _file_digest(path: Path) -> str:
    """SHA-256 of the file; empty if it cannot be read, which fails again where it is opened as an image."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class _Measurer:
    """Makes records with codecs that are loaded, each of which runs once before it is timed."""

    def __init__(
        self,
        codecs: Mapping[str, Codec],
        compare: "Mapping[str, Comparison]",
        also: Mapping[str, str | None],
        limits: Limits,
    ):
        self.codecs, self.compare, self.limits = codecs, compare, limits
        self.nets = {key: net for key, net in also.items() if net is not None}
        self.warm: set[str] = set()

    def measure(self, path: Path, read: Callable[[], Picture | Exception], setting: CodecSetting) -> Record:
        """The record of the image that ``read`` gives, with the error of whatever fails."""
        record = Record(path.name, setting.codec, setting.quality, str(setting))
        try:
            picture = read()
            if isinstance(picture, Exception):
                raise picture
            return self._fill(record, picture)
        except DifflateError as error:
            return replace(record, error=str(error).removeprefix(f"{path}: "), exit_code=error.exit_code)
        except Exception as error:
            # a defect, or a library's own error: it must not cost the hours already measured
            logger.debug("%s on %s", setting, path, exc_info=True)
            return replace(record, error=f"{type(error).__name__}: {error}", exit_code=DifflateError.exit_code)

    def _fill(self, record: Record, picture: Picture) -> Record:
        codec, limits = self.codecs[record.codec], self.limits
        if record.codec not in self.warm:
            codec.decode(codec.encode(picture, quality=record.quality, limits=limits), limits=limits)
            self.warm.add(record.codec)
        start_s = time.perf_counter()
        data = codec.encode(picture, quality=record.quality, limits=limits)
        encoded_s = time.perf_counter()
        restored = codec.decode(data, limits=limits)
        decoded_s = time.perf_counter()
        # they belong together, however far they are from each other: sizes alone are compared
        first, second = map(Picture, planes_of_pair(picture, restored))
        values = {
            "bpp": bits_per_pixel(len(data), picture.width, picture.height),
            **{key: function(first, second) for key, function in self.compare.items()},
            "encode_s": encoded_s - start_s,
            "decode_s": decoded_s - encoded_s,
        }
        size = {"width": picture.width, "height": picture.height, "bytes": len(data)}
        return replace(record, **size, values=values, nets=self.nets)
