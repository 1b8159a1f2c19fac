"""What is done many times: a task, as a worker gets it. What hands tasks out does not know what they are."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from difflate.errors import DifflateError, told

Load = Callable[[], Any]
"""What each worker calls once; what it gives (a codec, models, measures) is at hand for each of its tasks. It goes to
other processes: a function of a module, or a `functools.partial` of one."""


class Task(Protocol):
    """Text and numbers alone, as what it gives: both go between processes and machines."""

    @property
    def number(self) -> int:
        """Its own among those that are done together."""
        ...

    @property
    def tries(self) -> int:
        """Workers that it may cost."""
        ...

    @property
    def block(self) -> int:
        """So many of its kind are worth the milliseconds that Ray takes to hand out some."""
        ...

    def perform(self, work: Any, /) -> Any:
        """What comes of it with what the worker has loaded. An Exception ends all tasks, so errors of the task's own
        inputs are among what it gives."""
        ...

    def given_up(self, error: DifflateError, /) -> Any:
        """What it gives where ``error`` is all that has come of it: `tries` workers have died over it."""
        ...


T = TypeVar("T", bound=Task)
Made = Generator[tuple[T, Any], None, None]
"""Tasks and what came of them, as they come."""


class Joinable(Task, Protocol):
    """A task that takes less time beside others."""

    def perform_with(self, others: Sequence[Any], work: Any, /) -> Sequence[Any]:
        """What comes of it and of each of ``others``, tasks of its kind; otherwise as `perform`."""
        ...


@dataclass(frozen=True)
class Together:
    """Tasks that one worker has at once: a task that gives what each of them gives, or None if the worker has died."""

    number: int
    tasks: tuple[Joinable, ...]

    tries = 1

    @property
    def block(self) -> int:
        """As many of them as are a block alone."""
        return max(1, self.tasks[0].block // len(self.tasks))

    def perform(self, work: Any) -> Sequence[Any] | None:
        """See `Task`."""
        first, *others = self.tasks
        return first.perform_with(others, work)

    def given_up(self, error: DifflateError) -> None:
        """None: each of them may be begun again by itself."""


def died(task: Task, how: str) -> Any:
    """What a task gives that its workers did not survive."""
    return task.given_up(DifflateError(f"{task.tries} workers died over it ({how}); look at it alone"))


def raised(error: Exception) -> DifflateError:
    """What a worker tells of an error of which it does not go on: others may not survive the way to another process."""
    return error if isinstance(error, DifflateError) else DifflateError(told(error))
