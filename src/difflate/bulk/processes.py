"""Tasks on the cores of this machine.

`concurrent.futures` and its kin give up all tasks when one process dies, and do not say which task it had. Here a
process that dies costs its task a try, and another takes its place.
"""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic

from difflate.bulk.tasks import Load, Made, T, Task, died, raised
from difflate.errors import DifflateError

log = logging.getLogger(__name__)

_THREADS: dict[str, str] = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Read when numpy and torch are imported. As many processes as cores leave none for further threads."""
_END_S = 5.0


def in_processes(tasks: Sequence[T], load: Load, jobs: int) -> Made[T]:
    """What each of ``tasks`` gives, as it comes, from ``jobs`` processes that have called ``load`` once each.

    A task whose process dies is begun again as often as it may be; one that dies in ``load`` is not replaced. Raises
    what ``load`` or a task raises, DifflateError if no process is left. When the iterator is closed all have ended.
    """
    waiting, deaths = deque(tasks), dict.fromkeys((task.number for task in tasks), 0)
    workers: list[_Worker[T]] = []
    try:
        while True:
            busy = sum(worker.task is not None for worker in workers)
            while waiting and len(workers) < min(jobs, len(waiting) + busy):
                workers.append(_Worker(load))
            for worker in workers:
                if worker.ready and worker.task is None and waiting:
                    worker.give(waiting.popleft())
            if not waiting and all(worker.task is None for worker in workers):
                return
            for worker in _heard(workers):
                answer = worker.answer()
                if isinstance(answer, _Raised):
                    raise answer.error
                task, worker.task = worker.task, None
                if isinstance(answer, _Died):
                    workers.remove(worker)
                    worker.end()
                    if task is None:
                        jobs -= 1
                        _fewer(jobs, answer.how)
                        continue
                    deaths[task.number] += 1
                    if deaths[task.number] < task.tries:
                        waiting.appendleft(task)
                    else:
                        yield task, died(task, answer.how)
                elif task is not None:
                    yield task, answer
    finally:
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.end()


def _fewer(jobs: int, how: str) -> None:
    """Says that ``jobs`` are left, since one has died. Raises DifflateError if there are none."""
    text = f"a worker died while it began ({how}); "
    if not jobs:
        raise DifflateError(text + "fewer --jobs need less memory")
    log.warning("%s%d %s", text, jobs, "goes on" if jobs == 1 else "go on")


@dataclass(frozen=True)
class _Raised:
    """The answer of a process in which loading, or a task, has raised an error."""

    error: DifflateError


@dataclass(frozen=True)
class _Died:
    """That of one which has ended."""

    how: str


class _Worker(Generic[T]):
    """A process, the task that it has and the pipe to it."""

    def __init__(self, load: Load):
        context = multiprocessing.get_context("spawn")  # after a fork torch's threads would be in an unknown state
        self.connection, far = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(far, load), daemon=True)
        with _environment(_THREADS):
            self.process.start()
        far.close()  # so that the end of the process is the end of the pipe
        self.task: T | None = None
        self.ready = False

    def give(self, task: T) -> None:
        self.task = task
        with contextlib.suppress(OSError):  # that it has ended is seen when it is listened to
            self.connection.send(task)

    def answer(self) -> Any:
        """What its task gives, or None when it has begun; `_Raised` or `_Died`."""
        try:
            got = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(_END_S)
            code = self.process.exitcode
            return _Died(f"signal {-code}" if code is not None and code < 0 else f"exit code {code}")
        self.ready = True
        return got

    def end(self) -> None:
        self.connection.close()
        if self.ready and self.task is None:  # it ends by itself, and gives back what its libraries hold
            self.process.join(_END_S)
        self.process.terminate()
        self.process.join(_END_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _heard(workers: list[_Worker[T]]) -> list[_Worker[T]]:
    """Those that have something to say; waits for one."""
    of = {worker.connection: worker for worker in workers if worker.task is not None or not worker.ready}
    return [of[connection] for connection in wait([*of])]  # pyright: ignore[reportArgumentType]


def _serve(connection: Connection, load: Load) -> None:
    """The process: loads once, then answers until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of a terminal; the parent ends this process
    try:
        work = load()
        single_thread()
        connection.send(None)
        while True:
            try:
                task: Task = connection.recv()
            except (EOFError, OSError):  # the parent is gone, or wants nothing more
                return
            connection.send(task.perform(work))
    except Exception as error:
        with contextlib.suppress(OSError):
            connection.send(_Raised(raised(error)))


def single_thread() -> None:
    """Tells torch, if it is imported, to have one thread in this process."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
