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
from difflate.errors import exit_code_of, told
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
    tries = 0
    while left:
        numbers = {task.number: task for task in left}
        for number, entry in _pass(ray, left, load, min(jobs, -(-len(left) // block)), block, share):
            yield numbers.pop(number), entry
        tries += 1
        for task in [task for task in numbers.values() if tries >= task.tries]:
            yield numbers.pop(task.number), died(task, "in the cluster")
        left, block = list(numbers.values()), 1


def _begin(ray: Any, jobs: int) -> None:
    if ray.is_initialized():
        return
    local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": jobs, "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)


def _pass(
    ray: Any, tasks: Sequence[Task], load: Load, jobs: int, block: int, gpu: float
) -> Iterator[tuple[int, Entry]]:
    """(number, entry) of the tasks that no worker died over."""
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1  # what is lost with a worker is begun again here
    context.enable_progress_bars = False
    rows = [{"task": json.dumps(dataclasses.asdict(task))} for task in tasks]
    made = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // block)).map(
        _Actor, fn_constructor_args=(load,), concurrency=jobs, num_cpus=1, num_gpus=gpu or None, max_task_retries=0
    )
    for row in made.iter_rows():
        yield row["number"], Entry.of(json.loads(row["entry"]))


class _Actor:
    """A worker of Ray. What it cannot load is told with each task, since Ray would try for ever."""

    def __init__(self, load: Load):
        self._work, self._problem = None, None
        try:
            self._work = load()
        except Exception as error:
            self._problem = error
        single_thread()

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        task = Task(**json.loads(row["task"]))
        if self._work is None:
            problem = self._problem or RuntimeError("nothing was loaded")
            entry = Entry(task.source, task.output, error=told(problem), code=exit_code_of(problem))
        else:
            entry = perform(task, self._work)
        return {"number": task.number, "entry": entry.line()}
