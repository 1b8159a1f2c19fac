"""A file, or a shard of them, that becomes another."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from difflate.bulk.deaths import TRIES
from difflate.bulk.manifest import Entry
from difflate.bulk.outputs import failed, made
from difflate.bulk.shards import convert
from difflate.bulk.work import Result, Work
from difflate.errors import DifflateError
from difflate.files import atomic_write

_FILE_TRIES = 2
_FILE_BLOCK = 16


@dataclass(frozen=True)
class Input:
    """An input and its output: a `difflate.bulk.outputs.Wanted`."""

    source: Path
    target: Path
    problem: DifflateError | None = None
    shard: bool = False

    def entry(self, output: str) -> Entry:
        """That of the file as it is now. Raises OSError."""
        status = self.source.stat()
        return Entry(str(self.source), output, source_bytes=status.st_size, source_mtime_ns=status.st_mtime_ns)

    def task(self, number: int, output: str, scratch: Path) -> "Conversion":
        """What makes the output."""
        return Conversion(number, self, output, str(scratch))


@dataclass(frozen=True)
class Conversion:
    """A `difflate.bulk.outputs.OutputTask` for workers that have loaded a `Work`."""

    number: int
    of: Input
    output: str
    scratch: str

    @property
    def target(self) -> str:
        """The output's path, whose suffix tells its format."""
        return str(self.of.target)

    @property
    def tries(self) -> int:
        """Workers that it may cost. A shard goes on without the member that costs it two."""
        return TRIES if self.of.shard else _FILE_TRIES

    @property
    def block(self) -> int:
        """A shard takes long enough to be handed out alone."""
        return 1 if self.of.shard else _FILE_BLOCK

    def perform(self, work: Work) -> Entry:
        """Never raises an Exception: the entry has the error."""
        if self.of.shard:
            return made(self._entry(), Path(self.scratch), lambda entry: self._shard(entry, work))
        (entry,) = self.perform_with([], work)
        return entry

    def perform_with(self, others: Sequence["Conversion"], work: Work) -> list[Entry]:
        """Of files alone: what becomes of each, in one batch."""
        conversions, began = [self, *others], time.perf_counter()
        entries = [each._entry() for each in conversions]
        results = work.files([(each.of.source, each.of.target) for each in conversions])
        share = (time.perf_counter() - began) / len(conversions)
        written = [each._written(*had) for each, *had in zip(conversions, entries, results, strict=True)]
        return [replace(entry, seconds=round(entry.seconds + share, 4)) for entry in written]

    def given_up(self, error: DifflateError) -> Entry:
        """The entry with that error."""
        source = str(self.of.source)
        return failed(Entry(source, self.output), DifflateError(f"{source}: {error}"))

    def _entry(self) -> Entry:
        try:
            return self.of.entry(self.output)
        except OSError:  # reading it tells what is wrong
            return Entry(str(self.of.source), self.output)

    def _written(self, entry: Entry, result: Result | Exception) -> Entry:
        return made(entry, Path(self.scratch), lambda entry: self._file(entry, result))

    def _file(self, entry: Entry, result: Result | Exception) -> Entry:
        if isinstance(result, Exception):
            raise result
        notes = [*result.notes]
        if callable(result.data):
            notes += result.data(Path(self.scratch))
        else:
            atomic_write(Path(self.scratch), result.data)
        width, height = result.size or (None, None)
        return replace(entry, width=width, height=height, pixels=(width or 0) * (height or 0), notes=tuple(notes))

    def _shard(self, entry: Entry, work: Work) -> Entry:
        done = convert(self.of.source, Path(self.scratch), work)
        notes = (f"left out {done.hidden} hidden members",) if done.hidden else ()
        return replace(
            entry, images=done.images, pixels=done.pixels, failed=tuple(done.failed), code=done.code, notes=notes
        )
