"""How a training shows itself: a bar on a terminal, lines elsewhere."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

from difflate.extras import require

log = logging.getLogger(__name__)


class Reporter:
    """Shows step, loss, images/s and time left; lines go to the log, at most one in ``_LINE_EVERY_S``."""

    _LINE_EVERY_S = 10.0

    def __init__(self, bar: Any, task: Any, stage: str):
        self._bar, self._task, self._spoke = bar, task, 0.0
        self._named = f"{stage}: " if stage else ""

    def show(self, step: int, of: int, loss: float, images_per_s: float, left_s: float) -> None:
        """``of``: steps in all; ``left_s``: seconds that are left."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, loss=loss, rate=images_per_s, left=_clock(left_s))
        elif time.monotonic() - self._spoke >= self._LINE_EVERY_S or step == of:
            self._spoke = time.monotonic()
            log.info(
                "%sstep %d of %d: loss %.4f, %.0f images/s, %s left",
                self._named, step, of, loss, images_per_s, _clock(left_s),
            )  # fmt: skip


@contextlib.contextmanager
def reporter(total: int, done: int, bar: bool, stage: str = "") -> Iterator[Reporter]:
    """A `Reporter`, with a bar on standard error if ``bar``; ``stage``: what is trained, if it is one of several."""
    if not bar:
        yield Reporter(None, None, stage)
        return
    require("rich", "train")
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn(f"training {stage}".strip()),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:.0f} images/s  {task.fields[left]} left"),
    )
    with Progress(*columns, console=Console(file=sys.stderr)) as shown:
        task = shown.add_task("training", total=total, completed=done, loss=float("nan"), rate=0.0, left="?")
        yield Reporter(shown, task, stage)


def _clock(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
