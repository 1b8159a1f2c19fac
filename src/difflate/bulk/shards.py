"""Tar shards in and out: what is made of an image has its name with another suffix, other members are kept."""

import io
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from difflate.bulk.work import Work
from difflate.data.images import is_hidden
from difflate.data.items import tar_members
from difflate.errors import DifflateError, ImageError, LimitExceeded, TruncatedError, exit_code_of, naming, told
from difflate.limits import INPUT_BYTES

_DEATHS = 2
"""After so many a member is given up."""


@dataclass
class Converted:
    """What `convert` has done with a shard."""

    images: int = 0
    pixels: int = 0
    hidden: int = 0
    """Members that were left out."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """Members that nothing could be made of, and why."""
    code: int = 0
    """Exit code of the worst error."""

    def fail(self, name: str, error: Exception) -> None:
        """Notes what went wrong with a member."""
        self.failed.append((name, told(error)))
        self.code = max(self.code, exit_code_of(error))


def convert(source: Path, target: Path, work: Work) -> Converted:
    """Writes the tar archive ``target`` of what ``work`` makes of the members of the archive ``source``.

    Times, permissions and order of members stay, so the same input gives the same archive. Hidden members are left
    out, and those that fail, which are named. So is one at which a process that wrote this ``target`` has died twice.
    Raises ConfigError for what is no plain tar archive, OSError.
    """
    done, names = Converted(), set[str]()
    with (
        _Deaths(target.with_suffix(".at")) as deaths,
        source.open("rb") as archive,
        tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar,
    ):
        try:
            for number, member in enumerate(tar_members(source)):
                if is_hidden(PurePosixPath(member.name)):
                    done.hidden += 1
                    continue
                try:
                    with naming(member.name):
                        deaths.begin(number)
                        name, data = _made(member, archive, names, done, work)
                except Exception as error:
                    done.fail(member.name, error)
                    continue
                names.add(name)
                tar.addfile(_header(member, name, len(data)), io.BytesIO(data))
        except TruncatedError as error:
            done.fail("", error)
    return done


def _made(
    member: tarfile.TarInfo, archive: BinaryIO, names: set[str], done: Converted, work: Work
) -> tuple[str, bytes]:
    """(name, bytes) of the member that is made of another. Raises DifflateError."""
    suffix = work.suffix_of_member(member.name)
    name = member.name if suffix is None else str(PurePosixPath(member.name).with_suffix(suffix))
    if name in names:
        raise ImageError(f"there is a {name} already; give the members different names")
    if member.size > INPUT_BYTES:
        raise LimitExceeded(f"more than {INPUT_BYTES} bytes, which no input may have")
    archive.seek(member.offset_data)
    data = archive.read(member.size)
    if len(data) < member.size:
        raise TruncatedError("the archive ends within it; get an intact copy")
    if suffix is None:
        return name, data
    result = work.member(member.name, data)
    if not isinstance(result.data, bytes):
        raise DifflateError("cannot be kept in an archive; unpack it, and convert the files")
    done.images += 1
    done.pixels += result.size[0] * result.size[1] if result.size else 0
    return name, result.data


def _header(member: tarfile.TarInfo, name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mtime, header.mode = size, member.mtime, member.mode
    header.uid, header.gid, header.uname, header.gname = member.uid, member.gid, member.uname, member.gname
    return header


class _Deaths:
    """A file beside a shard that is being written: the members at which processes died, and the one under way."""

    _LINE = "{:19d}\n"

    def __init__(self, path: Path):
        self._path = path
        self._before: Counter[int] = Counter(map(int, path.read_text().split())) if path.exists() else Counter()

    def begin(self, number: int) -> None:
        """Raises DifflateError for a member that is given up."""
        if self._before[number] >= _DEATHS:
            raise DifflateError(f"{_DEATHS} workers died over it; look at it alone")
        self._file.seek(self._before.total() * len(self._LINE.format(0)))
        self._file.write(self._LINE.format(number).encode())  # not buffered: a signal cannot lose it

    def __enter__(self) -> "_Deaths":
        self._path.touch()
        self._file = self._path.open("r+b", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
