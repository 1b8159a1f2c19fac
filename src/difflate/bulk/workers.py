"""So many workers of one kind: processes of this machine, or actors of a cluster."""

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from difflate.bulk.processes import in_processes
from difflate.bulk.tasks import Load, Made, T, Together
from difflate.errors import ConfigError

Engine = Literal["processes", "ray"]


@dataclass(frozen=True)
class Workers:
    """Who performs tasks. Raises ConfigError for fewer than one."""

    jobs: int = 1
    engine: Engine = "processes"
    gpu: bool = False
    """Those of Ray share the GPUs of its cluster."""
    batch: int = 1
    """Tasks that one of them is given at once, if they are `difflate.bulk.tasks.Joinable`; fewer, rather than that
    others have none."""

    def __post_init__(self) -> None:
        for name in ("jobs", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` (={getattr(self, name)}) must be at least 1")

    def perform(self, tasks: Sequence[T], load: Load, scratch: Path) -> Made[T]:
        """What each of ``tasks`` gives, as it comes; ``scratch``: a folder that all workers see.

        When the iterator is closed no worker is at work. Raises what ``load`` or a task raises, DifflateError if
        workers die before they have a task or Ray gives up, ConfigError if Ray is not installed.
        """
        size = min(self.batch, -(-len(tasks) // self.jobs))
        if size < 2:
            yield from self._perform(tasks, load, scratch)
            return
        joinable: Sequence[Any] = tasks
        parts = (tuple(joinable[start : start + size]) for start in range(0, len(tasks), size))
        # a cluster keeps tasks apart by their numbers
        together = [Together(number, part) for number, part in zip(itertools.count(-1, -1), parts, strict=False)]
        alone: list[Any] = []
        with contextlib.closing(self._perform(together, load, scratch)) as made:
            for task, given in made:
                if given is None:
                    alone += task.tasks
                else:
                    yield from zip(task.tasks, given, strict=True)  # pyright: ignore[reportReturnType]
        yield from self._perform(alone, load, scratch)

    def _perform(self, tasks: Sequence[T], load: Load, scratch: Path) -> Made[T]:
        if self.engine == "ray":
            from difflate.bulk.cluster import on_ray

            return on_ray(tasks, load, self.jobs, scratch, self.gpu)
        return in_processes(tasks, load, self.jobs)
