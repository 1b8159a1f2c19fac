"""Outputs that are either complete or not there."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from difflate.errors import ConfigError, DifflateError, OutputExists

_START, _END = ".difflate-", ".tmp"
TEMPORARY_FILES = f"{_START}*{_END}"
"""Pattern of the names of files that are being written; those of a process that was killed are left."""


def check_output(path: Path, force: bool) -> None:
    """Raises what writing ``path`` would raise, as far as it can be told before any work is done for it.

    ConfigError where ``path`` cannot be a file, OutputExists, DifflateError where its folder is no folder or read-only.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        _check_folder(path)
        return
    except OSError as error:
        raise _cannot(path, error) from error
    if stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{path}: is a folder; name a file")
    if not stat.S_ISREG(status.st_mode):
        # a rename would put a file in the place of, for instance, /dev/null
        raise ConfigError(f"{path}: is not a regular file; name another, or - for standard output")
    if not force:
        raise _exists(path)
    _check_folder(Path(os.path.realpath(path)))


def _check_folder(path: Path) -> None:
    """Raises DifflateError if ``path`` cannot be made because of the first folder above it that exists."""
    folder = next((parent for parent in path.absolute().parents if os.path.lexists(parent)), None)
    if folder is None or not folder.is_dir():
        raise DifflateError(f"{path}: cannot be written ({folder} is not a folder); choose another output")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DifflateError(f"{path}: cannot be written (no permission to write in {folder}); choose another output")


@contextlib.contextmanager
def atomic_path(path: Path, force: bool = True) -> Iterator[Path]:
    """A temporary name in the folder of ``path``, renamed to it on success and removed on any exception.

    A file that is overwritten keeps its permissions; where ``path`` is a symbolic link, what it points to is written.
    Raises OutputExists if ``path`` is there without ``force``; ConfigError and DifflateError as `check_output`.
    """
    check_output(path, force)
    try:
        target = Path(os.path.realpath(path))
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=_START, suffix=_END)
        os.close(handle)
    except OSError as error:
        raise _cannot(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        _rename(temporary, target, force)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise _cannot(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def place(temporary: Path, path: Path, force: bool) -> None:
    """Gives a file that is complete its name, in the same file system. Raises as `atomic_path`."""
    check_output(path, force)
    make_folder(path)
    try:
        _rename(temporary, Path(os.path.realpath(path)), force)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise _cannot(path, error) from error


def _rename(temporary: Path, target: Path, force: bool) -> None:
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.chmod(file_mode(target))
    if force:
        temporary.replace(target)
    else:
        _rename_new(temporary, target)


def file_mode(path: Path) -> int:
    """The permissions of the file that is there, else those of a new file."""
    with contextlib.suppress(OSError):
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _rename_new(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # unlike a rename, fails if another process made the file meanwhile
    except FileExistsError:
        raise
    except OSError:
        temporary.replace(path)  # a file system without hard links


def _exists(path: Path) -> OutputExists:
    return OutputExists(f"{path}: exists already; use --force to overwrite it, or name another output")


def _cannot(path: Path, error: Exception) -> DifflateError:
    reason = getattr(error, "strerror", None) or error
    return DifflateError(f"{path}: cannot be written ({reason}); choose another output")


def atomic_write(path: Path, data: bytes, force: bool = True) -> None:
    """Writes ``data`` to ``path`` through a temporary file, making its folder if needed. Raises as `atomic_path`."""
    check_output(path, force)
    make_folder(path)
    with atomic_path(path, force) as temporary:
        temporary.write_bytes(data)


def make_folder(path: Path) -> None:
    """Makes the folder that ``path`` is in. Raises DifflateError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot(path, error) from error


def drop_unfinished_line(file: BinaryIO) -> bool:
    """Cuts off what a process that was killed had begun to write, and goes to the end; whether there was any."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return False
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return False
    file.seek(0)
    file.truncate(file.read().rfind(b"\n") + 1)
    file.seek(0, os.SEEK_END)
    return True
