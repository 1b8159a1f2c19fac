"""Work without a codec, for other processes too: letters in capitals, and inputs that go wrong as they say."""

import functools
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from difflate.bulk.conversion import Input
from difflate.bulk.run import Done, run_bulk
from difflate.bulk.tasks import Load
from difflate.bulk.work import Result
from difflate.bulk.workers import Workers
from difflate.errors import DifflateError, ImageError


class Capitals:
    """Notes in the file ``log`` what it loads and makes."""

    def __init__(self, log: Path):
        self._log = log
        self._note("load")

    def file(self, source: Path, target: Path) -> Result:
        return self.member(source.name, source.read_bytes())

    def suffix_of_member(self, name: str) -> str | None:
        return ".up" if name.endswith(".low") else None

    def member(self, name: str, data: bytes) -> Result:
        self._note(name)
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


def load_capitals(log: Path) -> Load:
    return functools.partial(Capitals, log)


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
