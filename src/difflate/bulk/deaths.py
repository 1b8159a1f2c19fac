"""What of a shard workers have died over, so that others go on without it."""

from pathlib import Path
from typing import Self

from difflate.errors import DifflateError

TRIES = 16
"""Workers that a shard may cost."""
_MOST = 2
"""After so many deaths a member is given up."""


class Deaths:
    """A file beside a shard that is being written: the members at which processes died, and those under way."""

    _LINE = "{:19d} {:19d}\n"

    def __init__(self, path: Path):
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._before = [range(int(first), int(last) + 1) for first, last in map(str.split, lines)]

    def near(self, number: int) -> bool:
        """Whether a process died at a member, or at several of which it was one: then it is made alone."""
        return any(number in members for members in self._before)

    def begin(self, first: int, last: int) -> None:
        """Raises DifflateError for a single member that is given up: two processes have died at it alone."""
        if first == last and self._before.count(range(first, last + 1)) >= _MOST:
            raise DifflateError(f"{_MOST} workers died over it; look at it alone")
        self._file.seek(len(self._before) * len(self._LINE.format(0, 0)))
        self._file.write(self._LINE.format(first, last).encode())  # not buffered: a signal cannot lose it

    def __enter__(self) -> Self:
        self._path.touch()
        self._file = self._path.open("r+b", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
