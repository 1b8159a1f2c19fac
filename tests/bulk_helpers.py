"""Work without a codec, for other processes too: letters in capitals, and inputs that go wrong as they say."""

import functools
import io
import os
import signal
import sys
import tarfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difflate.bulk.conversion import Input
from difflate.bulk.run import Done, run_bulk
from difflate.bulk.tasks import Load, Task
from difflate.bulk.work import Result
from difflate.bulk.workers import Workers
from difflate.codecs.groups import one_by_one
from difflate.errors import DifflateError, ImageError


class Capitals:
    """Notes in the file ``log`` what it loads and makes."""

    def __init__(self, log: Path, batch: int = 1):
        self._log, self.batch = log, batch
        self._note("load")

    def files(self, inputs: Sequence[tuple[Path, Path]]) -> list[Result | Exception]:
        return self.members([(source.name, source.read_bytes()) for source, _ in inputs])

    def suffix_of_member(self, name: str) -> str | None:
        return ".up" if name.endswith(".low") else None

    def members(self, members: Sequence[tuple[str, bytes]]) -> list[Result | Exception]:
        assert len(members) <= self.batch
        self._note("+".join(name for name, _ in members))
        return one_by_one(members, self._made)

    def _made(self, member: tuple[str, bytes]) -> Result:
        data = member[1]
        match data.decode().split():
            case ["die"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["die", "once", flag] if not Path(flag).exists():
                Path(flag).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            case ["bad"]:
                raise ImageError("is bad; make it better")
            case ["slow"]:
                time.sleep(10)
        return Result(data.upper(), "", ("it is short",) if len(data) < 4 else (), (len(data), 2))

    def _note(self, text: str) -> None:
        with self._log.open("a") as file:
            file.write(f"{text}\n")


def load_capitals(log: Path, batch: int = 1) -> Load:
    return functools.partial(Capitals, log, batch)


def load_nothing() -> Capitals:
    os._exit(3)


def load_once(flag: Path, log: Path) -> Load:
    """For two workers, of whom the second dies in it before the first is done with it."""
    return functools.partial(_load_once, flag, log)


def _load_once(flag: Path, log: Path) -> Capitals:
    try:
        flag.touch(exist_ok=False)
    except FileExistsError:
        flag.with_suffix(".second").touch()
        os._exit(3)
    deadline = time.monotonic() + 60
    while not flag.with_suffix(".second").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    return Capitals(log)


class Awkward(Exception):
    """Does not survive the way to another process as it is."""

    def __init__(self, first: int, second: int):
        super().__init__(f"{first} {second}")


@dataclass(frozen=True)
class Faulty:
    """A task with a defect."""

    number: int
    tries: int = 2
    block: int = 1

    def perform(self, work: None) -> None:
        raise Awkward(1, 2)

    def given_up(self, error: DifflateError) -> None:
        raise error


def load_none() -> None:
    """Nothing is needed."""


def in_this_process(tasks: Sequence[Task], load: Load, jobs: int) -> Generator[tuple[Task, Any], None, None]:
    """In the place of `difflate.bulk.processes.in_processes`."""
    work = load()
    yield from ((task, task.perform(work)) for task in tasks)


def shard(path: Path, members: dict[str, str]) -> Path:
    """A tar archive of texts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, text in members.items():
            header = tarfile.TarInfo(name)
            header.size, header.mtime = len(text), 1_000_000
            tar.addfile(header, io.BytesIO(text.encode()))
    return path


def members(path: Path) -> dict[str, str]:
    """What is in an archive of texts."""
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read().decode() for member in tar}  # pyright: ignore


def inputs(folder: Path, out: Path, suffix: str = ".up") -> list[Input]:
    shards = suffix == ".tar"
    return [Input(path, out / path.with_suffix(suffix).name, shard=shards) for path in sorted(folder.iterdir())]


def outcome(done: list[Done]) -> dict[str, str]:
    """What has come of each input, by its name."""
    return {
        Path(each.entry.source).stem: "kept" if each.kept else each.entry.error or "made"
        for each in sorted(done, key=lambda each: each.entry.source)
    }


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    low, up = map(Path, sys.argv[1:3])
    for _ in run_bulk(inputs(low, up), up, load_capitals(up.parent / "log"), {}, Workers(2)):
        pass
