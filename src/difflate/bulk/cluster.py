"""Tasks on a cluster, by Ray Data: actors that have loaded the codec once take them, on as many machines as there are.

All machines see the same inputs and outputs, in a file system that they share. Only what stands in a task and in an
entry goes over the network.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from difflate.bulk.manifest import Entry
from difflate.bulk.processes import single_thread
from difflate.bulk.tasks import Load, Made, Task, died, perform
from difflate.bulk.work import Work
from difflate.errors import DifflateError, exit_code_of, told
from difflate.extras import require

_BLOCK = 16
"""Files that an actor takes at once; Ray spends some milliseconds on each block."""


def on_ray(tasks: Sequence[Task], load: Load, jobs: int, gpu: bool = False) -> Made:
    """What `perform` gives of each task, as it comes, from ``jobs`` actors with a core each.

    With ``gpu`` they share the GPUs of the cluster. The cluster is the one that runs already (``RAY_ADDRESS``), else
    one of this machine alone. Tasks whose worker dies are begun again, each by itself, as often as they may be.
    Raises ConfigError if Ray is not installed.
    """
    ray = require("ray", "ray")
    require("ray.data", "ray")
    _begin(ray, jobs)
    share = min(1.0, ray.cluster_resources().get("GPU", 0) / jobs) if gpu else 0
    left, block = list(tasks), 1 if any(task.shard for task in tasks) else _BLOCK
    tries, heard = 0, False
    while left:
        numbers = {task.number: task for task in left}
        for number, entry in _pass(ray, left, load, min(jobs, -(-len(left) // block)), block, share):
            heard = True
            yield numbers.pop(number), entry
        if not heard and len(left) > block:
            raise DifflateError("every worker of Ray died with what it was given first; look at its logs")
        tries += 1
        for task in [task for task in numbers.values() if tries >= task.tries]:
            yield numbers.pop(task.number), died(task, "in the cluster")
        left, block = list(numbers.values()), 1


def _begin(ray: Any, jobs: int) -> None:
    if ray.is_initialized():
        return
    # one core more than there are workers, for one that has died and is not given up yet
    local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": jobs + 1, "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)


def _pass(
    ray: Any, tasks: Sequence[Task], load: Load, jobs: int, block: int, gpu: float
) -> Iterator[tuple[int, Entry]]:
    """(number, entry) of the tasks that no worker died over."""
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1  # what is lost with a worker is begun again here
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is told in the entries
    rows = [{"task": json.dumps(dataclasses.asdict(task))} for task in tasks]
    made = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // block)).map(
        _Actor, fn_constructor_args=(load,), compute=ray.data.ActorPoolStrategy(min_size=1, max_size=jobs), num_cpus=1,
        num_gpus=gpu or None, ray_remote_args_fn=_of_actors,
    )  # fmt: skip
    given = iter(made.iter_rows())
    while True:
        try:
            row = next(given, None)
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise DifflateError(f"Ray has given up ({lines[0]} … {lines[-1]}); look at the cluster") from error
        if row is None:
            return
        yield row["number"], Entry.of(json.loads(row["entry"]))


def _of_actors() -> dict[str, Any]:
    """Ray would give a task that kills its worker to one after the other, for ever."""
    return {"max_task_retries": 0}


class _Actor:
    """A worker of Ray. It loads with its first task, since Ray would begin one for ever that dies before."""

    def __init__(self, load: Load):
        self._load = load
        self._work: Work | None = None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        task = Task(**json.loads(row["task"]))
        try:
            if self._work is None:
                self._work = self._load()
                single_thread()
            entry = perform(task, self._work)
        except Exception as error:  # of loading
            entry = Entry(task.source, task.output, error=told(error), code=exit_code_of(error))
        return {"number": task.number, "entry": entry.line()}
