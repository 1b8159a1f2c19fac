"""Tasks on a cluster, by Ray Data: actors that have loaded once take them, on as many machines as there are.

All machines see the same inputs and outputs, in a file system that they share. Only what stands in a task and in
what it gives goes over the network.
"""

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from difflate.bulk.processes import single_thread
from difflate.bulk.tasks import Load, Made, T, Task, died, raised
from difflate.errors import ConfigError, DifflateError, told
from difflate.extras import require


def on_ray(tasks: Sequence[T], load: Load, jobs: int, scratch: Path, gpu: bool = False) -> Made[T]:
    """What each of ``tasks`` gives, as it comes, from ``jobs`` actors with a core each.

    ``scratch``: a folder that all machines see. With ``gpu`` the actors share the GPUs of the cluster. The cluster is
    the one that runs already (``RAY_ADDRESS``), else one of this machine alone. Raises what ``load`` or a task raises,
    ConfigError if Ray is not installed, DifflateError if Ray gives up.
    """
    ray = require("ray", "ray")
    require("ray.data", "ray")
    if not tasks:
        return
    _begin(ray, jobs)
    share = min(1.0, ray.cluster_resources().get("GPU", 0) / jobs) if gpu else None
    if share == 0:
        raise ConfigError("the cluster has no GPU; leave --device out")
    blocks = -(-len(tasks) // min(task.block for task in tasks))
    made = ray.data.from_items([{"task": task} for task in tasks], override_num_blocks=blocks).map(
        _Actor, fn_constructor_args=(load, Path.cwd(), scratch), num_cpus=1, num_gpus=share,
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
        if row["error"] is not None:
            raise row["error"]
        yield numbers[row["number"]], row["answer"]


def _begin(ray: Any, jobs: int) -> None:
    if not ray.is_initialized():
        # one core more than there are workers, for one that has died and is not given up yet
        local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": jobs + 1, "include_dashboard": False}
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **local)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is among what tasks give


class _Actor:
    """A worker of Ray.

    Ray begins the work of an actor that died again and again, for ever, whatever killed it. So who begins a task says
    so in a file, until the task is done, and a task that was begun too often is given up.
    """

    def __init__(self, load: Load, folder: Path, scratch: Path):
        self._load, self._folder, self._scratch = load, folder, scratch
        self._work: Any = None
        self._loaded = False

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        task: Task = row["task"]
        with contextlib.suppress(OSError):  # it need not be there if all paths are absolute
            os.chdir(self._folder)  # an actor begins wherever its machine's part of the cluster did
        begun = self._scratch / f"{task.number}.begun"
        try:
            with begun.open("ab") as file:
                if file.tell() >= task.tries:
                    return _row(task, died(task, "in the cluster"))
                file.write(b".")
            if not self._loaded:  # not earlier: an actor that dies before it has a task is begun again for ever too
                self._work, self._loaded = self._load(), True
                single_thread()
            answer = task.perform(self._work)
            begun.unlink()
        except Exception as error:
            return _row(task, error=raised(error))
        return _row(task, answer)


def _row(task: Task, answer: Any = None, error: DifflateError | None = None) -> dict[str, Any]:
    return {"number": task.number, "answer": answer, "error": error}
