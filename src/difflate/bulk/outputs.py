"""Files that are made of inputs: what is wanted, and the entry of what a worker has made."""

import contextlib
import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from difflate.bulk.manifest import Entry
from difflate.bulk.tasks import Task
from difflate.errors import DifflateError, exit_code_of, naming, told


class OutputTask(Task, Protocol):
    """Gives an `Entry`; the worker writes to ``scratch``, and who gave it the task gives the file its name."""

    @property
    def output(self) -> str:
        """Below the folder of outputs, with / on every system."""
        ...

    @property
    def target(self) -> str:
        """The output's path."""
        ...

    @property
    def scratch(self) -> str: ...


class Wanted(Protocol):
    """An output that is to be there."""

    @property
    def source(self) -> object:
        """What it is made of, as text."""
        ...

    @property
    def target(self) -> Path:
        """In the folder of outputs, or below it."""
        ...

    @property
    def problem(self) -> DifflateError | None:
        """What stands against it."""
        ...

    def entry(self, output: str) -> Entry:
        """That of the inputs as they are now, without what is made of them. Raises OSError."""
        ...

    def task(self, number: int, output: str, scratch: Path) -> OutputTask:
        """What makes it."""
        ...


def made(entry: Entry, scratch: Path, make: Callable[[Entry], Entry]) -> Entry:
    """What ``make``, which writes ``scratch``, says of it, with size and digest; an Exception becomes its error."""
    began = time.perf_counter()
    try:
        with naming(entry.source):
            done = make(entry)
            done = replace(done, bytes=scratch.stat().st_size, sha256=sha256(scratch))
    except Exception as error:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        done = failed(entry, error)
    return replace(done, seconds=round(time.perf_counter() - began, 4))


def failed(entry: Entry, error: Exception) -> Entry:
    """``entry`` of what could not be made."""
    return replace(entry, bytes=0, sha256="", error=told(error), code=exit_code_of(error))


def sha256(path: Path) -> str:
    """Of the file's bytes. Raises OSError."""
    with path.open("rb") as file:  # no CRC-32: that of all intact .dfl files is the same, for they end in it
        return hashlib.file_digest(file, "sha256").hexdigest()
