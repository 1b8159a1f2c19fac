"""The records of a run that is under way, kept in a file as they come: a second run goes on where it ended."""

import hashlib
import json
import math
import os
from dataclasses import asdict
from pathlib import Path

from difflate.errors import DifflateError
from difflate.evaluate.records import Record
from difflate.files import drop_unfinished_line

_INFINITE = "infinite"
"""In a file, since JSON has no infinity."""
_MODELS = ("refiner", "restorer")
"""Options that name a model."""


class Journal:
    """A file of one JSON object a line, each complete or not there: a record, and the key that it is found by.

    Records with an error are not kept: what failed is tried again.
    """

    def __init__(self, path: Path):
        """Reads the records that an earlier run left in ``path``, but for damaged lines. Raises DifflateError."""
        self.path = path
        self.reused = 0
        """How many records `record` gave."""
        self._records: dict[str, Record] = {}
        try:
            lines = path.read_bytes().splitlines() if path.exists() else []
        except OSError as error:
            raise DifflateError(f"{path}: cannot be read ({error.strerror}); choose another folder") from error
        for line in lines:
            try:
                data = json.loads(line)
                key = data.pop("key")
                self._records[key] = _record(data)
            except (ValueError, TypeError, KeyError, AttributeError):
                continue

    @property
    def kept(self) -> int:
        """How many records there are."""
        return len(self._records)

    def record(self, key: str) -> Record | None:
        """The record of that key, if it was kept."""
        record = self._records.get(key)
        self.reused += record is not None
        return record

    def add(self, key: str, record: Record) -> None:
        """Keeps ``record``, on the disk when this returns, unless it has an error. Raises DifflateError."""
        if record.error:
            return
        values = {name: _INFINITE if value == math.inf else value for name, value in record.values.items()}
        line = json.dumps({"key": key, **asdict(record), "values": values}, allow_nan=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+") as file:
                drop_unfinished_line(file)
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DifflateError(f"{self.path}: cannot be written ({error.strerror}); choose another folder") from error
        self._records[key] = record

    def remove(self) -> None:
        """Forgets all records and deletes the file."""
        self._records.clear()
        self.path.unlink(missing_ok=True)


def model_digest(codec: str) -> str:
    """SHA-256 of the files of the model that a codec of that name is, and of those that its options name; empty for
    others."""
    from difflate.store.hub import model_folder

    name, *options = [codec] if Path(codec).is_dir() else codec.split("+")
    parts = [value for key, _, value in (option.partition("=") for option in options) if key in _MODELS]
    folders = [folder for folder in map(model_folder, (name, *parts)) if folder is not None]
    digest = hashlib.sha256()
    for path in (path for folder in folders for path in sorted(folder.glob("*"))):
        if path.suffix in (".json", ".safetensors"):
            with path.open("rb") as file:
                digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest() if folders else ""


def _record(data: dict) -> Record:
    """The record that `Journal.add` wrote. Raises TypeError and KeyError for other data."""
    values = {key: math.inf if value == _INFINITE else value for key, value in data["values"].items()}
    return Record(**{**data, "values": values})
