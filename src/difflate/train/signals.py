"""Stopping between two steps."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stopping(ask_to_stop: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks to stop, the second does what it did before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: object) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        print("difflate: stopping after this step; once more to stop at once", file=sys.stderr)
        ask_to_stop()

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
