"""Shards of latents, each made by one worker; what they hold is what `difflate.data.latent_writer` makes of them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from difflate.bulk.deaths import TRIES, Deaths
from difflate.bulk.manifest import Entry
from difflate.bulk.outputs import failed, made
from difflate.data.crops import Batch, Crops, Note, Sample, Samples, collate, first_of_kinds
from difflate.data.items import Item
from difflate.data.latent_writer import Plan, write_shard
from difflate.data.latents import shard_name
from difflate.errors import DifflateError, ImageError
from difflate.models.latent_space import LatentSpace


@dataclass(frozen=True)
class LatentShard:
    """A shard of those of a `Plan`: a `difflate.bulk.outputs.Wanted`."""

    plan: Plan
    numbers: range
    """Of its images."""
    items: tuple[Item, ...]
    """Its images."""
    target: Path
    problem: DifflateError | None = None

    @property
    def source(self) -> str:
        """Its first image, and how many there are."""
        first, *more = self.items
        return f"{first} and {len(more)} more" if more else str(first)

    def entry(self, output: str) -> Entry:
        """That of the images as they are now."""
        known: dict[str, tuple[int, int]] = {}
        digest, size = hashlib.sha256(), 0
        for item in self.items:
            if item.path not in known:  # all members of an archive are in one file
                known[item.path] = _status(item.path)
            name, (file_bytes, mtime_ns) = Path(item.path).name, known[item.path]
            line = f"{name} {item.offset} {item.size} {file_bytes} {mtime_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
            size += item.size if item.offset >= 0 else file_bytes
        newest = max(mtime_ns for _, mtime_ns in known.values())
        return Entry(
            self.source, output, source_bytes=size, source_mtime_ns=newest, source_sha256=digest.hexdigest()
        )  # fmt: skip

    def task(self, number: int, output: str, scratch: Path) -> "Encoding":
        """What makes it."""
        return Encoding(number, self, output, str(scratch))


def latent_shards(plan: Plan, items: Sequence[Item], out: Path) -> list[LatentShard]:
    """All of ``plan``, in the folder ``out``."""
    return [
        LatentShard(plan, numbers, tuple(items[numbers.start : numbers.stop]), out / shard_name(number))
        for number, numbers in enumerate(plan.shards)
    ]


@dataclass(frozen=True)
class Encoding:
    """A `difflate.bulk.outputs.OutputTask` for workers that have loaded a `LatentSpace`."""

    number: int
    of: LatentShard
    output: str
    scratch: str
    tries: int = TRIES
    block: int = 1

    @property
    def target(self) -> str:
        """The shard's path."""
        return str(self.of.target)

    def perform(self, space: LatentSpace) -> Entry:
        """Never raises an Exception: the entry has the error."""
        return made(self.of.entry(self.output), Path(self.scratch), lambda entry: self._write(entry, space))

    def given_up(self, error: DifflateError) -> Entry:
        """The entry with that error."""
        source = self.of.source
        return failed(Entry(source, self.output), DifflateError(f"{source}: {error}"))

    def _write(self, entry: Entry, space: LatentSpace) -> Entry:
        plan, path = self.of.plan, Path(self.scratch)
        with Deaths(path.with_suffix(".at")) as deaths:
            images = _Watched(self.of, deaths)
            count = write_shard(path, plan, space, images.batches(), len(images))
        notes = tuple(f"{note.name}: {note.text}; the like is not said again of others" for note in images.notes)
        side = plan.header.image_px
        pixels = count * side * side
        return replace(
            entry, images=count, width=side, height=side, pixels=pixels, failed=tuple(images.failed), notes=notes
        )  # fmt: skip


class _Watched(Samples):
    """The images of a shard under their numbers in the list of all; which is under way is written down."""

    def __init__(self, shard: LatentShard, deaths: Deaths):
        side = shard.plan.header.image_px
        self._crops = Crops(shard.items, side, short_side=side, augment=False)
        self._shard, self._deaths = shard, deaths
        self.failed: list[tuple[str, str]] = []
        """Images that could not be read, and why."""
        self.notes: list[Note] = []
        """What was lost of images: the first of each kind."""

    def __len__(self) -> int:
        return len(self._crops)

    def identity(self) -> str:
        """That of the crops."""
        return self._crops.identity()

    def batches(self) -> Iterator[Batch]:
        """Those of the plan, read one after the other."""
        for numbers in self._shard.plan.batches(self._shard.numbers):
            batch = collate([self[number] for number in numbers])
            self.notes += first_of_kinds(batch.notes, self.noted)
            encoding = -1 - numbers[0]
            self._deaths.begin(encoding, encoding)  # of what comes now no single image is to blame
            yield batch

    def read(self, number: int) -> Sample:
        """Sample ``number``. Raises ImageError, also for one over which workers have died."""
        place = number - self._shard.numbers.start
        name = str(self._shard.items[place])
        try:
            try:
                self._deaths.begin(number, number)
            except DifflateError as error:
                raise ImageError(f"{name}: {error}") from error
            return self._crops.read(place)._replace(number=number)
        except ImageError as error:
            self.failed.append((name, str(error)))
            raise


def _status(path: str) -> tuple[int, int]:
    """Size and time of change, in nanoseconds; zeros of what is not there."""
    try:
        status = Path(path).stat()
    except OSError:  # reading it tells what is wrong
        return 0, 0
    return status.st_size, status.st_mtime_ns
