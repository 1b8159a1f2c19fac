"""Work without a codec, for other processes too: letters in capitals, and inputs that go wrong as they say."""

import functools
import os
import signal
import sys
import time
from pathlib import Path

from difflate.bulk.run import Done, Input, run_bulk
from difflate.bulk.tasks import Load
from difflate.bulk.work import Result
from difflate.errors import ImageError


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


def inputs(folder: Path, out: Path, suffix: str = ".up") -> list[Input]:
    return [Input(path, out / path.with_suffix(suffix).name) for path in sorted(folder.iterdir())]


def outcome(done: list[Done]) -> dict[str, str]:
    """What has come of each input, by its name."""
    return {
        Path(each.entry.source).stem: "kept" if each.kept else each.entry.error or "made"
        for each in sorted(done, key=lambda each: each.entry.source)
    }


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
    low, up = map(Path, sys.argv[1:3])
    for _ in run_bulk(inputs(low, up), up, load_capitals(up.parent / "log"), {}, jobs=2):
        pass
