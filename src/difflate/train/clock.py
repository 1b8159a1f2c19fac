"""How long a training has taken and may still take, the same in all of its processes."""

import contextlib
import time
from collections.abc import Callable, Iterator

from difflate.train.checkpoint import Progress
from difflate.train.settings import LoopSettings

_AGREE_EVERY = 10
"""Steps after which several processes agree, at the latest."""
_RESERVED = 0.25
"""Largest share of `max_minutes` that is kept for what comes after the last step."""


class Clock:
    """The time over all sittings; it runs while images are validated and pictures made."""

    def __init__(self, settings: LoopSettings, progress: Progress, mean: Callable[[list[float]], list[float]] | None):
        """``mean``: of numbers over all processes; None: there is one process."""
        self._settings, self._progress, self._mean = settings, progress, mean
        self._began = time.monotonic() - progress.seconds
        self._costs: dict[str, float] = {}
        self._agreed, self._next = (progress.step, progress.seconds), 0
        self._closing_s = self._step_s = 0.0

    @contextlib.contextmanager
    def measure(self, what: str) -> Iterator[None]:
        """What is done within, ``what``, is done once more after the last step; so much time is kept for it."""
        began = time.monotonic()
        yield
        self._costs[what] = time.monotonic() - began

    def agree(self, stop: bool, now: bool = False) -> bool:
        """Brings the time up to date after a step; whether a process wants to ``stop``, as far as all know it.

        ``now``: all processes ask for it at the same moment, not only when it is due.
        """
        step = self._progress.step
        if self._mean is not None and step < self._next and not now:
            return False
        own = [time.monotonic() - self._began, sum(self._costs.values()), float(stop)]
        self._progress.seconds, self._closing_s, stops = self._mean(own) if self._mean else own
        before, seconds = self._agreed
        if step > before:
            self._step_s = (self._progress.seconds - seconds) / (step - before)
            self._agreed = step, self._progress.seconds
        left = self._left_s / 2 / max(self._step_s, 1e-6)
        self._next = step + int(min(max(left, 1), _AGREE_EVERY))
        return stops > 0

    @property
    def _left_s(self) -> float:
        minutes = self._settings.max_minutes
        if minutes is None:
            return float("inf")
        reserved = min(self._closing_s + self._step_s, _RESERVED * 60 * minutes)
        return 60 * minutes - reserved - self._progress.seconds

    @property
    def is_over(self) -> bool:
        """Another step, and what comes after the last, would take longer than `max_minutes`."""
        return self._left_s <= 0

    @property
    def left_s(self) -> float:
        """Seconds for further steps; infinite without `max_minutes`."""
        return max(self._left_s, 0.0)

    @property
    def share_done(self) -> float:
        """0 … 1 of the steps or of the time, what is further."""
        done = self._progress.step / max(self._settings.max_steps, 1)
        if self._settings.max_minutes is None:
            return done
        seconds = self._progress.seconds
        return max(done, min(seconds / max(seconds + self._left_s, 1e-9), 1.0))
