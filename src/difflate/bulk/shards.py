"""Tar shards in and out: what is made of an image has its name with another suffix, other members are kept."""

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from difflate.bulk.deaths import Deaths
from difflate.bulk.work import Result, Work
from difflate.data.images import is_hidden
from difflate.data.items import tar_members
from difflate.errors import DifflateError, ImageError, LimitExceeded, TruncatedError, exit_code_of, naming, told
from difflate.limits import INPUT_BYTES

_WAITING_BYTES = 1 << 26
"""Of members; more are not read for one batch."""


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
    damage: TruncatedError | None = None
    with (
        Deaths(target.with_suffix(".at")) as deaths,
        source.open("rb") as archive,
        tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar,
    ):
        made = _Archive(archive, tar, work, deaths)
        try:
            for number, member in enumerate(tar_members(source)):
                if is_hidden(PurePosixPath(member.name)):
                    made.done.hidden += 1
                else:
                    made.take(number, member)
        except TruncatedError as error:
            damage = error
        made.flush()
        if damage is not None:
            made.done.fail("", damage)
    return made.done


class _Archive:
    """One that is being written of the members of another."""

    def __init__(self, archive: BinaryIO, tar: tarfile.TarFile, work: Work, deaths: Deaths):
        self.done = Converted()
        self._archive, self._tar, self._work, self._deaths = archive, tar, work, deaths
        self._names = set[str]()
        self._waiting: dict[int, tarfile.TarInfo] = {}

    def take(self, number: int, member: tarfile.TarInfo) -> None:
        """Has ``member`` wait until there is a batch of what something is made of."""
        alone = self._deaths.near(number)
        if alone:
            self.flush()
        self._waiting[number] = member
        images = sum(self._suffix(member) is not None for member in self._waiting.values())
        if alone or not 0 < images < self._work.batch or self._waiting_bytes() >= _WAITING_BYTES:
            self.flush()

    def flush(self) -> None:
        """Adds what is made of those that wait, in their order."""
        members, self._waiting = self._waiting, {}
        if not members:
            return
        try:
            self._deaths.begin(min(members), max(members))
        except DifflateError as error:
            results = dict.fromkeys(members, error)
        else:
            results = self._results(members)
        for number, member in members.items():
            try:
                with naming(member.name):
                    self._add(member, results[number])
            except Exception as error:
                self.done.fail(member.name, error)

    def _results(self, members: Mapping[int, tarfile.TarInfo]) -> dict[int, Result | bytes | Exception]:
        """What there is of each: bytes of what is kept as it is."""
        read: dict[int, Any] = {number: self._read(member) for number, member in members.items()}
        images = [n for n, member in members.items() if isinstance(read[n], bytes) and self._suffix(member) is not None]
        made = self._work.members([(members[n].name, read[n]) for n in images])
        return read | dict(zip(images, made, strict=True))

    def _suffix(self, member: tarfile.TarInfo) -> str | None:
        return self._work.suffix_of_member(member.name)

    def _waiting_bytes(self) -> int:
        return sum(member.size for member in self._waiting.values())

    def _read(self, member: tarfile.TarInfo) -> bytes | DifflateError:
        if member.size > INPUT_BYTES:
            return LimitExceeded(f"more than {INPUT_BYTES} bytes, which no input may have")
        self._archive.seek(member.offset_data)
        data = self._archive.read(member.size)
        if len(data) < member.size:
            return TruncatedError("the archive ends within it; get an intact copy")
        return data

    def _add(self, member: tarfile.TarInfo, result: Result | bytes | Exception) -> None:
        """Adds ``result``, or the bytes of a member that is kept. Raises what it is, DifflateError."""
        suffix = self._suffix(member)
        name = member.name if suffix is None else str(PurePosixPath(member.name).with_suffix(suffix))
        if name in self._names:
            raise ImageError(f"there is a {name} already; give the members different names")
        if isinstance(result, Exception):
            raise result
        data = result if isinstance(result, bytes) else result.data
        if not isinstance(data, bytes):
            raise DifflateError("cannot be kept in an archive; unpack it, and convert the files")
        self._names.add(name)
        self._tar.addfile(_header(member, name, len(data)), io.BytesIO(data))
        if isinstance(result, Result):
            self.done.images += 1
            self.done.pixels += result.size[0] * result.size[1] if result.size else 0


def _header(member: tarfile.TarInfo, name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mtime, header.mode = size, member.mtime, member.mode
    header.uid, header.gid, header.uname, header.gname = member.uid, member.gid, member.uname, member.gname
    return header
