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
    """What a command does with inputs: loaded once in each worker, with its codec."""

    @property
    def batch(self) -> int:
        """Inputs that it can make more of together than one after the other."""
        ...

    def files(self, inputs: Sequence[tuple[Path, Path]]) -> Sequence[Result | Exception]:
        """Of each file (source, target), or why there is nothing; ``target`` tells the format, nothing is written."""
        ...

    def suffix_of_member(self, name: str) -> str | None:
        """Suffix, with its dot, of what is made of the member ``name`` of an archive; None: it is kept as it is."""
        ...

    def members(self, members: Sequence[tuple[str, bytes]]) -> Sequence[Result | Exception]:
        """Of each member (name, data) of an archive, or why there is nothing; results have bytes."""
        ...
