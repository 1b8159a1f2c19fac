"""So many workers of one kind: processes of this machine, or actors of a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from difflate.bulk.processes import in_processes
from difflate.bulk.tasks import Load, Made, T
from difflate.errors import ConfigError

Engine = Literal["processes", "ray"]


@dataclass(frozen=True)
class Workers:
    """Who performs tasks. Raises ConfigError for fewer than one."""

    jobs: int = 1
    engine: Engine = "processes"
    gpu: bool = False
    """Those of Ray share the GPUs of its cluster."""

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ConfigError(f"`jobs` (={self.jobs}) must be at least 1")

    def perform(self, tasks: Sequence[T], load: Load, scratch: Path) -> Made[T]:
        """What each of ``tasks`` gives, as it comes; ``scratch``: a folder that all workers see.

        When the iterator is closed no worker is at work. Raises what ``load`` or a task raises, DifflateError if
        workers die before they have a task or Ray gives up, ConfigError if Ray is not installed.
        """
        if self.engine == "ray":
            from difflate.bulk.cluster import on_ray

            return on_ray(tasks, load, self.jobs, scratch, self.gpu)
        return in_processes(tasks, load, self.jobs)
