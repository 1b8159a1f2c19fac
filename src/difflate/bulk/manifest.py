"""What was made of which input: a file of one JSON object a line, that a second run goes on from."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Self

from difflate.errors import ConfigError, DifflateError, FormatError, OutputExists
from difflate.files import drop_unfinished_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl: Any = None

log = logging.getLogger(__name__)

MANIFEST = "manifest.jsonl"
_VERSION = 1
_KIND = "difflate bulk"


@dataclass(frozen=True)
class Entry:
    """One input, and what came of it."""

    source: str
    """As it was named."""
    output: str
    """Below the folder of outputs, with / on every system."""
    source_bytes: int = 0
    source_mtime_ns: int = 0
    """When the input was last changed, in nanoseconds; of several inputs the last of them."""
    source_sha256: str = ""
    """Of several inputs: of their names, sizes and times of change."""
    bytes: int = 0
    """Of the output."""
    sha256: str = ""
    """Of the output, as sha256sum prints it."""
    width: int | None = None
    height: int | None = None
    images: int = 1
    """Of a shard: how many were made."""
    pixels: int = 0
    """Of all its images or, of a clip, of one frame."""
    seconds: float = 0.0
    """That a worker was busy with it."""
    notes: tuple[str, ...] = ()
    """What of the input was left out."""
    failed: tuple[tuple[str, str], ...] = ()
    """Of a shard: members that nothing could be made of, and why."""
    error: str | None = None
    """Why there is no output."""
    code: int = 0
    """Exit code of the worst error."""

    def line(self) -> str:
        """As a line of JSON, without what is as it is by default."""
        default = {field.name: field.default for field in fields(self)}
        return json.dumps({key: value for key, value in asdict(self).items() if value != default[key]})

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """What `line` wrote. Raises TypeError, ValueError for other data."""
        kept: dict[str, Any] = dict(data)
        for key, kinds in _KINDS.items():
            if key in kept and (not isinstance(kept[key], kinds) or isinstance(kept[key], bool)):
                raise TypeError(key)
        for key in ("notes", "failed"):
            values = kept.get(key, [])
            if not isinstance(values, list):
                raise TypeError(key)
            kept[key] = tuple(tuple(value) if key == "failed" else value for value in values)
        return cls(**kept)


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("source", "output", "source_sha256", "sha256", "error"), str),
    **dict.fromkeys(("source_bytes", "source_mtime_ns", "bytes", "images", "pixels", "code"), int),
    **dict.fromkeys(("width", "height"), int),
    "seconds": (int, float),
}


class Manifest:
    """The entries of a folder of outputs. Each is a whole line or not there; of two for an output the last holds."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], anew: bool = False):
        """Opens or begins the one in ``folder``, which no other process can do before `close`.

        ``settings``: (JSON) what outputs depend on. ``anew``: what was there is forgotten. A last line that was not
        finished is dropped, which is logged. Raises ConfigError for one of other settings, FormatError for a damaged
        one, OutputExists where another process has it, DifflateError.
        """
        self.path = folder / MANIFEST
        self.entries: dict[str, Entry] = {}
        """By output."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = self.path.open("ab+", buffering=0)
        except OSError as error:
            raise self._cannot(error) from error
        try:
            self._lock()
            if anew:
                self._file.truncate(0)
            elif drop_unfinished_line(self._file):
                log.warning("%s: its last line was cut; what it was about is done again", self.path)
            header = {"kind": _KIND, "version": _VERSION, **json.loads(json.dumps(settings))}
            self.resumed = self._read(header)
            """Whether there were entries, or could have been."""
            if not self.resumed:
                self._append(json.dumps(header))
        except OSError as error:
            self._file.close()
            raise self._cannot(error) from error
        except BaseException:
            self._file.close()
            raise

    def add(self, entry: Entry) -> None:
        """Keeps ``entry``; a process that is killed now or later does not lose it. Raises DifflateError."""
        try:
            self._append(entry.line())
        except OSError as error:
            raise self._cannot(error) from error
        self.entries[entry.output] = entry

    def close(self) -> None:
        """Lets others have it; what was added is on the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._cannot(error) from error
        finally:
            self._file.close()

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputExists(
                f"{self.path.parent}: another process is writing here; wait for it, or choose another folder"
            ) from error

    def _read(self, header: Mapping[str, Any]) -> bool:
        self._file.seek(0)
        with os.fdopen(os.dup(self._file.fileno()), "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    data = json.loads(line)
                    if number > 1:
                        entry = Entry.of(data)
                        self.entries[entry.output] = entry
                    elif data.get("kind") != _KIND or not isinstance(data.get("version"), int):
                        raise ValueError
                except (ValueError, TypeError, AttributeError, RecursionError) as error:
                    what = "is no manifest" if number == 1 else f"line {number} is damaged; delete that line, or"
                    how = "; move it away, or" if number == 1 else ""
                    raise FormatError(f"{self.path}: {what}{how} begin anew with --force") from error
                if number == 1 and data != header:
                    raise self._other(data, header)
        return self._file.seek(0, os.SEEK_END) > 0

    def _other(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> DifflateError:
        if found["version"] != _VERSION:
            return FormatError(
                f"{self.path}: has version {found['version']}, not {_VERSION}; choose another folder, or begin anew "
                "with --force"
            )
        changed = [key for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)]
        named = ", ".join(f"{key} {_short(found.get(key))}, not {_short(wanted.get(key))}" for key in changed)
        return ConfigError(
            f"{self.path}: the files here were made with other settings ({named}); choose another folder, or begin "
            "anew with --force"
        )

    def _append(self, line: str) -> None:
        data = memoryview(f"{line}\n".encode())
        while data:
            data = data[os.write(self._file.fileno(), data) :]

    def _cannot(self, error: OSError) -> DifflateError:
        return DifflateError(f"{self.path}: cannot be written ({error.strerror or error}); choose another folder")


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) < 60 else text[:57] + "..."
