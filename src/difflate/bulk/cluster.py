"""Tasks on a cluster, by Ray Data: actors that have loaded the codec once take them, on as many machines as there are.

All machines see the same inputs and outputs, in a file system that they share. Only what stands in a task and in an
entry goes over the network.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from difflate.bulk.manifest import Entry
from difflate.bulk.processes import single_thread
from difflate.bulk.tasks import Load, Made, Task, died, perform
from difflate.bulk.work import Work
from difflate.errors import ConfigError, DifflateError, exit_code_of, told
from difflate.extras import require

_BLOCK = 16
"""Files that an actor takes at once; Ray spends some milliseconds on each block."""


def on_ray(tasks: Sequence[Task], load: Load, jobs: int, gpu: bool = False) -> Made:
    """What `perform` gives of each task, as it comes, from ``jobs`` actors with a core each.

    With ``gpu`` they share the GPUs of the cluster. The cluster is the one that runs already (``RAY_ADDRESS``), else
    one of this machine alone. Raises ConfigError if Ray is not installed, DifflateError if Ray gives up.
    """
    ray = require("ray", "ray")
    require("ray.data", "ray")
    if not tasks:
        return
    _begin(ray, jobs)
    share = min(1.0, ray.cluster_resources().get("GPU", 0) / jobs) if gpu else None
    if share == 0:
        raise ConfigError("the cluster has no GPU; leave --device out")
    rows = [{"task": json.dumps(dataclasses.asdict(task))} for task in tasks]
    blocks = len(rows) if any(task.shard for task in tasks) else -(-len(rows) // _BLOCK)
    made = ray.data.from_items(rows, override_num_blocks=blocks).map(
        _Actor, fn_constructor_args=(load,), num_cpus=1, num_gpus=share,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(jobs, blocks)),
    )  # fmt: skip
    numbers, given = {task.number: task for task in tasks}, iter(made.iter_rows())
    while True:
        try:
            row = next(given, None)
        except ray.exceptions.RayError as error:
            raise DifflateError(f"Ray has given up ({told(error)[:200]}); look at the cluster") from error
        if row is None:
            return
        yield numbers[row["number"]], Entry.of(json.loads(row["entry"]))


def _begin(ray: Any, jobs: int) -> None:
    if not ray.is_initialized():
        # one core more than there are workers, for one that has died and is not given up yet
        local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": jobs + 1, "include_dashboard": False}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is told in the entries


class _Actor:
    """A worker of Ray.

    Ray begins the work of an actor that died again and again, for ever, whatever killed it. So who begins a task says
    so in a file beside the output, until the task is done, and a task that was begun too often is given up.
    """

    def __init__(self, load: Load):
        self._load = load
        self._work: Work | None = None

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        task = Task(**json.loads(row["task"]))
        begun = Path(task.scratch).with_suffix(".begun")
        try:
            with begun.open("ab") as file:
                if file.tell() >= task.tries:
                    return {"number": task.number, "entry": died(task, "in the cluster").line()}
                file.write(b".")
            if self._work is None:  # not earlier: an actor that dies before it has a task is begun again for ever too
                self._work = self._load()
                single_thread()
            entry = perform(task, self._work)
            begun.unlink()
        except Exception as error:  # of loading
            entry = Entry(task.source, task.output, error=told(error), code=exit_code_of(error))
        return {"number": task.number, "entry": entry.line()}
