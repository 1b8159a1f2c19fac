"""Codecs measured on images or clips: encode to the bytes of a file, decode those bytes, compare."""

import functools
import hashlib
import itertools
import json
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from difflate.codecs.base import Codec, codec_of_clips, codec_of_pictures
from difflate.data.images import files_in, list_images
from difflate.data.items import held_back_numbers
from difflate.errors import ConfigError, DifflateError, VerificationFailed
from difflate.evaluate.journal import Journal, model_digest
from difflate.evaluate.measures import Kind, comparisons, running
from difflate.evaluate.options import load_with_options
from difflate.evaluate.records import Record
from difflate.evaluate.settings import CodecSetting, load_codec, parse_codecs
from difflate.evaluate.versions import versions
from difflate.format.stream import duration
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.clip import Clip, Frame
from difflate.media.picture import Picture, open_image
from difflate.media.suffixes import SUFFIXES
from difflate.media.video import CLIP_SUFFIXES, open_clip
from difflate.metrics.distortion import bits_per_pixel, compression_ratio
from difflate.metrics.pairs import planes_of_pair

if TYPE_CHECKING:
    from difflate.evaluate.measures import Comparison
    from difflate.evaluate.pictures import PictureFolder
    from difflate.metrics.clips import Running

logger = logging.getLogger(__name__)

Read = TypeVar("Read", Picture, Clip)


def evaluate(
    images: Iterable[str | Path],
    codecs: str | Sequence[str] | Sequence[CodecSetting],
    *,
    load: Callable[[str], Codec] | None = None,
    also: Mapping[str, str | None] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    journal: Journal | None = None,
    pictures: "PictureFolder | None" = None,
    progress: Callable[[Record], None] | None = None,
) -> list[Record]:
    """One record per image, or clip, and codec setting, images in the outer order; ``progress`` is called with each.

    What is a clip is told by the file's name; images and clips are evaluated apart. Frames are encoded, decoded and
    compared as they come, so that a clip may be longer than memory; its sound is left out.

    ``also``: optional measures, such as ``{"lpips": "alex"}`` (see `measures.comparisons`). ``journal``: where records
    are kept as they come; what it has of the same image, setting, model, measures and versions is not measured again.
    ``pictures``: where images, not clips, are kept as they were and as they are restored, before their records are.
    Codecs get the pixels alone: alpha, EXIF, ICC and XMP are dropped before encoding, so that all files hold the same
    and the metrics see all they hold. Each codec encodes and decodes once outside of the timing before its first
    image. An image or codec that fails gives a record with its error and the run goes on.
    Raises ConfigError for images beside clips, for two of one name (records are told apart by it) and for missing
    packages, what `parse_codecs` raises, and DifflateError if the journal or a picture cannot be written.
    """
    also = dict(also or {})
    paths = [Path(path) for path in images]
    kind = kind_of_files(paths)
    compare = comparisons(also) if kind == "images" else running(also)
    plain = functools.cache(load or load_codec)
    repeated = [name for name, count in Counter(path.name for path in paths).items() if count > 1]
    if repeated:
        raise ConfigError(
            f"more than one {kind.removesuffix('s')} is named {repeated[0]}; evaluate their folders one at a time"
        )
    settings = parse_codecs(codecs if isinstance(codecs, str) else ",".join(map(str, codecs)), plain)
    names = dict.fromkeys(setting.codec for setting in settings)
    loaded = {name: load_with_options(name, plain) for name in names}
    made = (OfImages if kind == "images" else OfClips)(loaded, compare, also, limits, pictures)
    measurer = cast("Measurer[Any]", made)
    models = {name: model_digest(name) for name in names} if journal is not None else {}
    records: list[Record] = []
    for path in paths:
        read = functools.cache(functools.partial(measurer.read, path))  # not at all if the journal has all of the image
        image = _file_digest(path) if journal is not None else ""
        for setting in settings:
            if journal is None:
                record = measurer.measure(path, read, setting)
            else:
                asked = (sorted(compare), also, pictures is not None)
                key = _key(path.name, image, str(setting), models[setting.codec], *asked, versions())
                record = journal.record(key)
                if record is None:
                    record = measurer.measure(path, read, setting)
                    journal.add(key, record)
            records.append(record)
            if progress:
                progress(record)
    return records


def find_images(paths: Iterable[str | Path], max_images: int | None = None, holdback: int | None = None) -> list[Path]:
    """The image files among ``paths``, at most ``max_images``: files as given, of folders their images sorted by name.

    Of a folder with clips these instead, and of both all, which `evaluate` refuses.
    ``holdback``: only as many of them as a training on ``paths`` with that `holdback` kept back. Raises ConfigError if
    a path does not exist, a folder has no image, max_images is below 1, or holdback is not below the number of images.
    """
    for key, value in (("max_images", max_images), ("holdback", holdback)):
        if value is not None and value < 1:
            raise ConfigError(f"{key} (={value}) must be at least 1")
    paths = list(paths)
    if not paths:
        raise ConfigError("there is no image in an empty list of paths")
    images = list(dict.fromkeys(found for path in paths for found in _files(Path(path))))
    if holdback is not None:
        images = [images[number] for number in sorted(held_back_numbers(len(images), holdback))]
    return images[:max_images]


def kind_of_files(paths: Sequence[Path]) -> Kind:
    """What ``paths`` are, by their names. Raises ConfigError for images beside clips."""
    clips = [path for path in paths if path.suffix.lower() in CLIP_SUFFIXES]
    if clips and len(clips) < len(paths):
        other = next(path for path in paths if path not in clips)
        raise ConfigError(f"{clips[0].name} is a clip and {other.name} an image; evaluate images and clips apart")
    return "clips" if clips else "images"


def _files(path: Path) -> list[Path]:
    clips = files_in(path, CLIP_SUFFIXES, [], recursive=False) if path.is_dir() else []
    if not clips:
        return list_images([path], recursive=False)
    return clips + files_in(path, SUFFIXES, [], recursive=False)


def _file_digest(path: Path) -> str:
    """SHA-256 of the file; empty if it cannot be read, which fails again where it is opened as an image."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Measurer(ABC, Generic[Read]):
    """Makes records with codecs that are loaded, each of which runs once before it is timed."""

    kind: Kind

    def __init__(
        self,
        codecs: Mapping[str, Codec],
        compare: Mapping[str, Any],
        also: Mapping[str, str | None],
        limits: Limits,
        pictures: "PictureFolder | None",
    ):
        self.codecs, self.compare, self.limits, self.pictures = codecs, compare, limits, pictures
        self.nets = {key: net for key, net in also.items() if net is not None}
        self.warm: set[str] = set()

    @abstractmethod
    def open(self, path: Path) -> Read:
        """What is in the file."""

    @abstractmethod
    def fill(self, record: Record, read: Read) -> tuple[Record, tuple[Picture, Picture] | None]:
        """``record`` with what was measured; and original and restored picture, if they are to be kept."""

    def read(self, path: Path) -> Read | Exception:
        """What is in the file, or what reading it raised, which is the outcome of each of its settings."""
        try:
            return self.open(path)
        except Exception as error:
            return error

    def measure(self, path: Path, read: Callable[[], Read | Exception], setting: CodecSetting) -> Record:
        """The record of what ``read`` gives, with the error of whatever fails."""
        record = Record(path.name, setting.codec, setting.quality, str(setting), kind=self.kind)
        try:
            found = read()
            if isinstance(found, Exception):
                raise found
            record, pair = self.fill(record, found)
        except DifflateError as error:
            return replace(record, error=str(error).removeprefix(f"{path}: "), exit_code=error.exit_code)
        except Exception as error:
            # a defect, or a library's own error: it must not cost the hours already measured
            logger.debug("%s on %s", setting, path, exc_info=True)
            return replace(record, error=f"{type(error).__name__}: {error}", exit_code=DifflateError.exit_code)
        if self.pictures is not None and pair is not None:
            self.pictures.keep(record, *pair)  # a disk that is full ends the run: it is no fault of the codec
        return record

    def is_cold(self, name: str) -> bool:
        """Whether the codec has not run yet; from now on it has."""
        cold = name not in self.warm
        self.warm.add(name)
        return cold


class OfImages(Measurer[Picture]):
    """With the `measures.comparisons` of two pictures."""

    kind: Kind = "images"
    compare: "Mapping[str, Comparison]"

    def open(self, path: Path) -> Picture:
        """The pixels alone."""
        return Picture(open_image(path).pixels)

    def fill(self, record: Record, read: Picture) -> tuple[Record, tuple[Picture, Picture] | None]:
        """``record`` of that picture, and the two that were compared."""
        codec, limits = codec_of_pictures(self.codecs[record.codec]), self.limits
        if self.is_cold(record.codec):
            codec.decode(codec.encode(read, quality=record.quality, limits=limits), limits=limits)
        start_s = time.perf_counter()
        data = codec.encode(read, quality=record.quality, limits=limits)
        encoded_s = time.perf_counter()
        restored = codec.decode(data, limits=limits)
        decoded_s = time.perf_counter()
        # they belong together, however far they are from each other: sizes alone are compared
        first, second = map(Picture, planes_of_pair(read, restored))
        values = {
            "bpp": bits_per_pixel(len(data), read.width, read.height),
            **{key: function(first, second) for key, function in self.compare.items()},
            "encode_s": encoded_s - start_s,
            "decode_s": decoded_s - encoded_s,
        }
        size = {"width": read.width, "height": read.height, "bytes": len(data)}
        return replace(record, **size, values=values, nets=self.nets), (first, second)


class OfClips(Measurer[Clip]):
    """With what `measures.running` makes for each clip; original and restored frames are read in step."""

    kind: Kind = "clips"
    compare: "Mapping[str, Callable[[], Running]]"

    def open(self, path: Path) -> Clip:
        """Without its sound."""
        return open_clip(path, limits=self.limits)

    def fill(self, record: Record, read: Clip) -> tuple[Record, tuple[Picture, Picture] | None]:
        """``record`` of that clip; none of its frames is kept."""
        codec, limits = codec_of_clips(self.codecs[record.codec]), self.limits
        if self.is_cold(record.codec):
            short = replace(read, frames=tuple(itertools.islice(read.frames, 1)))
            tuple(codec.decode_clip(codec.encode_clip(short, quality=record.quality, limits=limits)).frames)
        start_s = time.perf_counter()
        data = codec.encode_clip(read, quality=record.quality, limits=limits)
        encode_s = time.perf_counter() - start_s
        compare = {key: make() for key, make in self.compare.items()}
        decoding = _Timed(lambda: codec.decode_clip(data, limits=limits))
        times = []
        for original, restored in itertools.zip_longest(read.frames, decoding):
            if original is None or restored is None:
                both = f"{'more' if original is None else 'fewer'} than the {len(times)} of the original"
                raise VerificationFailed(f"{record.codec} restores {both} frames; they do not belong together")
            times.append(original.time)
            first, second = map(Picture, planes_of_pair(Picture(original.pixels), Picture(restored.pixels)))
            for measure in compare.values():
                measure.add(first, second)
        frames, seconds = len(times), duration(times, read.time_base, read.rate)
        values = {
            "bpp": bits_per_pixel(len(data), read.width, read.height * frames),
            "kbit_s": float(len(data) * 8 / seconds / 1000),
            "ratio": compression_ratio(len(data), read.width, read.height * frames),
            **{key: measure.value() for key, measure in compare.items()},
            "encode_s": encode_s,
            "decode_s": decoding.spent_s,
        }
        size = {"width": read.width, "height": read.height, "frames": frames, "bytes": len(data)}
        return replace(record, **size, values=values, nets=self.nets), None


class _Timed:
    """The frames of a clip, and the time that getting them took."""

    def __init__(self, decode: Callable[[], Clip]):
        self._decode = decode
        self.spent_s = 0.0

    def __iter__(self) -> Iterator[Frame]:
        start_s = time.perf_counter()
        for frame in self._decode().frames:
            self.spent_s += time.perf_counter() - start_s
            yield frame
            start_s = time.perf_counter()
        self.spent_s += time.perf_counter() - start_s
