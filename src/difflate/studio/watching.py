"""Work that tells how far it is, as an iterator; and images that come tile by tile, step by step."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from difflate.nn.colour import signed_to_uint8

T = TypeVar("T")
_EVERY_S = 0.1
"""What is shown more often nobody can look at."""


class Stopped(Exception):
    """Nobody listens any more."""


@dataclass(frozen=True)
class _Failure:
    error: BaseException


def streamed(work: Callable[[Callable[[T], None]], None]) -> Iterator[T]:
    """What ``work`` tells the function that it is given, as it tells it. What it raises is raised here.

    It runs in a thread of its own; when the iterator is closed before its end, its next telling raises `Stopped`.
    """
    told: queue.SimpleQueue[T | _Failure | None] = queue.SimpleQueue()
    closed = threading.Event()

    def tell(what: T) -> None:
        if closed.is_set():
            raise Stopped
        told.put(what)

    def run() -> None:
        try:
            work(tell)
            told.put(None)
        except Stopped:
            pass
        except BaseException as error:
            told.put(_Failure(error))

    threading.Thread(target=run, daemon=True).start()
    try:
        while (what := told.get()) is not None:
            if isinstance(what, _Failure):
                raise what.error
            yield what
    finally:
        closed.set()


class Canvas:
    """A `difflate.nn.tiles.Watch` that shows the whole image as it becomes, grey where no tile has come yet."""

    def __init__(self, height: int, width: int, show: Callable[[int, np.ndarray], None]):
        """``show``: is given a step's number, from 0, and the image (3, ``height``, ``width``) uint8 as it is then, a
        copy."""
        self.pixels = np.full((3, height, width), 128, np.uint8)
        self.show = show
        self._shown = 0.0

    def __call__(self, step: int, top: int, left: int, image: Tensor) -> None:
        """See `difflate.nn.tiles.Watch`."""
        part = self.pixels[:, top : top + image.shape[1], left : left + image.shape[2]]
        part[...] = signed_to_uint8(image)[:, : part.shape[1], : part.shape[2]].cpu().numpy()
        if time.monotonic() - self._shown >= _EVERY_S:
            self.show(step, self.pixels.copy())
            self._shown = time.monotonic()
