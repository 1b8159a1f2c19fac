"""What measures one codec setting on one image or clip: encode to a file's bytes, decode those, compare."""

import itertools
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from difflate.codecs.base import Codec, codec_of_clips, codec_of_pictures
from difflate.errors import DifflateError, VerificationFailed
from difflate.evaluate.machine import peak_memory_bytes
from difflate.evaluate.measures import Kind, comparisons, running
from difflate.evaluate.options import load_with_options
from difflate.evaluate.records import Record
from difflate.evaluate.settings import CodecSetting
from difflate.format.stream import duration
from difflate.limits import Limits
from difflate.media.clip import Clip, Frame
from difflate.media.picture import Picture, open_image
from difflate.media.video import open_clip
from difflate.metrics.distortion import bits_per_pixel, compression_ratio
from difflate.metrics.pairs import planes_of_pair

if TYPE_CHECKING:
    from difflate.evaluate.measures import Comparison
    from difflate.evaluate.pictures import PictureFolder
    from difflate.metrics.clips import Running

logger = logging.getLogger(__name__)

Read = TypeVar("Read", Picture, Clip)


@dataclass(frozen=True)
class Measurement:
    """A `difflate.bulk.tasks.Task` for workers that have loaded a `Measurer`: one record."""

    number: int
    path: Path
    setting: CodecSetting
    kind: Kind
    tries: int = 2
    block: int = 1

    def record(self) -> Record:
        """Without what is measured."""
        setting = self.setting
        return Record(self.path.name, setting.codec, setting.quality, str(setting), kind=self.kind)

    def perform(self, measurer: "Measurer[Any]") -> Record:
        """The record, with the error of whatever fails; a picture that cannot be kept raises DifflateError."""
        return measurer.measure(self)

    def given_up(self, error: DifflateError) -> Record:
        """The record with that error."""
        return replace(self.record(), error=str(error), exit_code=error.exit_code)


def measurer_of(
    kind: Kind,
    names: Sequence[str],
    load: Callable[[str], Codec],
    also: Mapping[str, str | None],
    limits: Limits,
    pictures: "PictureFolder | None",
) -> "Measurer[Any]":
    """One that has loaded the codecs of those ``names``. Raises as `load_with_options` and `comparisons`."""
    loaded = {name: load_with_options(name, load) for name in names}
    if kind == "images":
        return OfImages(loaded, comparisons(also), also, limits, pictures)
    return OfClips(loaded, running(also), also, limits, pictures)


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
        self._read: tuple[Path, Read | Exception] | None = None

    @abstractmethod
    def open(self, path: Path) -> Read:
        """What is in the file."""

    @abstractmethod
    def fill(self, record: Record, read: Read) -> tuple[Record, tuple[Picture, Picture] | None]:
        """``record`` with what was measured; and original and restored picture, if they are to be kept."""

    def measure(self, of: Measurement) -> Record:
        """The record, with the error of whatever fails. Raises DifflateError for a picture that cannot be kept."""
        return replace(self._measured(of), peak_memory_bytes=peak_memory_bytes())

    def _measured(self, of: Measurement) -> Record:
        record = of.record()
        try:
            found = self._found(of.path)
            if isinstance(found, Exception):
                raise found
            record, pair = self.fill(record, found)
        except DifflateError as error:
            return replace(record, error=str(error).removeprefix(f"{of.path}: "), exit_code=error.exit_code)
        except Exception as error:
            # a defect, or a library's own error: it must not cost the hours already measured
            logger.debug("%s on %s", of.setting, of.path, exc_info=True)
            return replace(record, error=f"{type(error).__name__}: {error}", exit_code=DifflateError.exit_code)
        if self.pictures is not None and pair is not None:
            self.pictures.keep(record, *pair)  # a disk that is full ends the run: it is no fault of the codec
        return record

    def _found(self, path: Path) -> Read | Exception:
        """What is in the file, or what reading it raised; kept, as the other settings of it come next."""
        if self._read is None or self._read[0] != path:
            self._read = None  # before the next is read: not both in memory
            try:
                found: Read | Exception = self.open(path)
            except Exception as error:
                found = error
            self._read = path, found
        return self._read[1]

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
