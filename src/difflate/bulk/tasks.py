"""One input of many, as a worker gets it."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path

from difflate.bulk.manifest import Entry
from difflate.bulk.shards import convert
from difflate.bulk.work import Work
from difflate.errors import DifflateError, exit_code_of, naming, told
from difflate.files import atomic_write

Load = Callable[[], Work]
"""What each worker calls once. It goes to other processes: a function of a module, or a `functools.partial` of one."""
_FILE_TRIES, _SHARD_TRIES = 2, 16


@dataclass(frozen=True)
class Task:
    """What is to be made of one input, as text and numbers alone: it goes to other processes and machines."""

    number: int
    source: str
    output: str
    """Below the folder of outputs."""
    target: str
    """The output's path, whose suffix tells its format."""
    scratch: str
    """Where the worker writes; who gave it the task gives the file its name."""
    shard: bool = False

    @property
    def tries(self) -> int:
        """Workers that it may cost. A shard goes on without the member that costs it two."""
        return _SHARD_TRIES if self.shard else _FILE_TRIES


Made = Generator[tuple[Task, Entry], None, None]
"""Tasks and what came of them, as they come."""


def perform(task: Task, work: Work) -> Entry:
    """Writes the output of ``task`` to its scratch file. Never raises an Exception: the entry has the error."""
    began, source, scratch = time.perf_counter(), Path(task.source), Path(task.scratch)
    entry = Entry(task.source, task.output)
    try:
        with naming(task.source):
            with contextlib.suppress(OSError):  # reading it tells what is wrong
                status = source.stat()
                entry = replace(entry, source_bytes=status.st_size, source_mtime_ns=status.st_mtime_ns)
            entry = _shard(entry, source, scratch, work) if task.shard else _file(entry, task, work)
            digest = sha256(scratch)
        return replace(entry, bytes=scratch.stat().st_size, sha256=digest, seconds=_seconds(began))
    except Exception as error:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        return replace(entry, error=told(error), code=exit_code_of(error), seconds=_seconds(began))


def died(task: Task, how: str) -> Entry:
    """The entry of a task that its workers did not survive."""
    error = DifflateError(f"{task.source}: {task.tries} workers died over it ({how}); look at it alone")
    return Entry(task.source, task.output, error=told(error), code=error.exit_code)


def sha256(path: Path) -> str:
    """Of the file's bytes. Raises OSError."""
    with path.open("rb") as file:  # no CRC-32: that of all intact .dfl files is the same, for they end in it
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file(entry: Entry, task: Task, work: Work) -> Entry:
    result = work.file(Path(task.source), Path(task.target))
    notes = [*result.notes]
    if callable(result.data):
        notes += result.data(Path(task.scratch))
    else:
        atomic_write(Path(task.scratch), result.data)
    width, height = result.size or (None, None)
    return replace(entry, width=width, height=height, pixels=(width or 0) * (height or 0), notes=tuple(notes))


def _shard(entry: Entry, source: Path, scratch: Path, work: Work) -> Entry:
    done = convert(source, scratch, work)
    notes = (f"left out {done.hidden} hidden members",) if done.hidden else ()
    return replace(
        entry, images=done.images, pixels=done.pixels, failed=tuple(done.failed), code=done.code, notes=notes
    )


def _seconds(began: float) -> float:
    return round(time.perf_counter() - began, 4)
