"""Codecs measured on images or clips: encode to the bytes of a file, decode those bytes, compare."""

import contextlib
import functools
import hashlib
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from difflate.bulk.run import scratch_folder
from difflate.codecs.base import Codec
from difflate.data.images import files_in, list_images
from difflate.data.items import held_back_numbers
from difflate.errors import ConfigError
from difflate.evaluate.journal import Journal, model_digest
from difflate.evaluate.measurer import Measurement, measurer_of
from difflate.evaluate.measures import Kind
from difflate.evaluate.records import Record
from difflate.evaluate.settings import CodecSetting, load_codec, parse_codecs
from difflate.evaluate.versions import versions
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.suffixes import SUFFIXES
from difflate.media.video import CLIP_SUFFIXES

if TYPE_CHECKING:
    from difflate.bulk.workers import Workers
    from difflate.evaluate.pictures import PictureFolder


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
    workers: "Workers | None" = None,
    out: Path | None = None,
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

    ``workers``: who measures, each with codecs that it has loaded, with ``load``, which goes to other processes; None:
    this process. Records come back in the same order; times are those of so many at once. One over which two workers
    die has that as its error. ``out``: a folder that all workers see, for those of Ray.

    Raises ConfigError for images beside clips, for two of one name (records are told apart by it) and for missing
    packages, what `parse_codecs` raises, and DifflateError if the journal or a picture cannot be
    written or workers cannot begin.
    """
    also = dict(also or {})
    paths = [Path(path) for path in images]
    kind = kind_of_files(paths)
    load = load or load_codec
    plain = functools.cache(load)
    repeated = [name for name, count in Counter(path.name for path in paths).items() if count > 1]
    if repeated:
        raise ConfigError(
            f"more than one {kind.removesuffix('s')} is named {repeated[0]}; evaluate their folders one at a time"
        )
    settings = parse_codecs(codecs if isinstance(codecs, str) else ",".join(map(str, codecs)), plain)
    names = tuple(dict.fromkeys(setting.codec for setting in settings))
    # also where workers measure: what is missing is missed before they begin
    measurer = measurer_of(kind, names, plain, also, limits, pictures)
    records: dict[int, Record] = {}
    keys: dict[int, str] = {}

    def add(number: int, record: Record) -> None:
        records[number] = record
        if progress:
            progress(record)

    tasks = [Measurement(number, *of, kind) for number, of in enumerate(itertools.product(paths, settings))]
    if journal is not None:
        models, files = {name: model_digest(name) for name in names}, {path: _file_digest(path) for path in paths}
        asked = (sorted(measurer.compare), also, pictures is not None)
        for task in tasks:
            setting = task.setting
            key = _key(task.path.name, files[task.path], str(setting), models[setting.codec], *asked, versions())
            keys[task.number], record = key, journal.record(key)
            if record is not None:
                add(task.number, record)
    tasks = [task for task in tasks if task.number not in records]
    with contextlib.ExitStack() as stack:
        if workers is None:
            made = ((task, task.perform(measurer)) for task in tasks)
        else:
            begin = functools.partial(measurer_of, kind, names, load, also, limits, pictures)
            scratch = scratch_folder(out) if out is not None else tempfile.TemporaryDirectory()
            made = workers.perform(tasks, begin, Path(stack.enter_context(scratch)))
            stack.enter_context(contextlib.closing(made))
        for task, record in made:
            record = replace(record, jobs=workers and workers.jobs)
            if journal is not None:
                journal.add(keys[task.number], record)
            add(task.number, record)
    return [records[number] for number in sorted(records)]


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
