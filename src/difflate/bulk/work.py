"""What a worker does with one input, and what comes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Result:
    """What was made of an input."""

    data: bytes | Callable[[Path], Sequence[str]]
    """The output, or what writes it to a path and gives further notes: it is complete or not there."""
    line: str | Callable[[], str]
    """What is said of it on standard output."""
    notes: Sequence[str] = ()
    """What of the input was left out, for standard error."""
    size: tuple[int, int] | None = None
    """(width, height) in px."""


class Work(Protocol):
    """What a command does with an input: loaded once in each worker, with its codec."""

    def file(self, source: Path, target: Path) -> Result:
        """Of the file ``source``; ``target`` tells the format, nothing is written. Raises DifflateError."""
        ...

    def suffix_of_member(self, name: str) -> str | None:
        """Suffix, with its dot, of what is made of the member ``name`` of an archive; None: it is kept as it is."""
        ...

    def member(self, name: str, data: bytes) -> Result:
        """Of a member of an archive; the result has bytes. Raises DifflateError."""
        ...
