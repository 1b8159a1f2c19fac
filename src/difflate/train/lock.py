"""One training at a time in a folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from difflate.errors import DifflateError, OutputExists

try:
    import fcntl
except ImportError:  # Windows
    fcntl: Any = None

LOCK = ".difflate-training"
"""File in the folder that is trained in: the number of the process."""


class BeingTrained(OutputExists):
    """Another process trains in the folder."""


@contextlib.contextmanager
def lock(out: Path) -> Iterator[None]:
    """Within, no other process can enter it with the same folder. Raises BeingTrained if one is in it.

    The system itself lets go of the lock of a process that is gone, whatever ended it; those that a process forks to
    read images do not have it.
    """
    if fcntl is None:
        yield
        return
    made = not out.exists()
    path = out / LOCK
    file = _take(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
        if made:
            with contextlib.suppress(OSError):
                out.rmdir()  # it was refused before anything was written


def _take(path: Path) -> IO[str]:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        except OSError as error:
            raise DifflateError(f"{path.parent}: cannot be written ({error.strerror}); choose another out") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            number = file.read().strip()
            file.close()
            raise BeingTrained(
                f"{path.parent}: is already being trained here, by process {number or '?'}; wait for it, or choose "
                "another out"
            ) from error
        with contextlib.suppress(OSError):
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:  # else it was removed when it was opened
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                return file
        file.close()
