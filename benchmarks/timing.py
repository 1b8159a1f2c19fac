"""Interleaved timing, and the rows of the table that come out of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

WARM_UP = 3
Stopwatch = Callable[[], float]
"""Does its work once and returns the seconds that it took."""


def stopwatch(work: Callable[[], object]) -> Stopwatch:
    """Times calls of ``work``."""

    def run() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return run


class Timings:
    """Seconds of several programs, run in turn: what disturbs the machine disturbs them alike."""

    def __init__(self, programs: dict[str, Stopwatch], rounds: int, warm_up: int = WARM_UP):
        """Runs each of ``programs`` once per round, after ``warm_up`` rounds that do not count."""
        for _ in range(warm_up):
            for run in programs.values():
                run()
        taken = [[run() for run in programs.values()] for _ in range(rounds)]
        self._seconds = dict(zip(programs, np.array(taken).T, strict=True))

    def total(self, name: str, *parts: str) -> None:
        """Lets ``name`` stand for all ``parts``, one after the other."""
        self._seconds[name] = np.sum([self._seconds[part] for part in parts], axis=0)

    def ms(self, name: str) -> float:
        """Median milliseconds of a program."""
        return float(np.median(self._seconds[name])) * 1e3

    def row(self, what: str, ours: str, reference: str, aim: float | None = None, scale: float = 1.0) -> "Row":
        """How many times as fast as ``reference`` ``ours`` is: the median of the rounds' ratios, with its quartiles.

        ``scale``: how much more work ours did than the reference.
        """
        ratios = scale * self._seconds[reference] / self._seconds[ours]
        low, middle, high = (float(v) for v in np.percentile(ratios, [25, 50, 75]))
        met = None if aim is None else middle >= aim
        return Row(what, reference, middle, low, high, self.ms(ours), scale * self.ms(reference), aim, met)


@dataclass(frozen=True)
class Row:
    """One comparison."""

    what: str
    reference: str
    ratio: float
    low: float
    high: float
    ours_ms: float
    reference_ms: float
    aim: float | None
    met: bool | None

    def markdown(self) -> str:
        return (
            f"| {self.what} | {self.reference} | {_short(self.ratio)} | {_short(self.low)} to {_short(self.high)} "
            f"| {_aim(self.aim, '≥')} | {_answer(self.met)} |"
        )


@dataclass(frozen=True)
class Fact:
    """One number that is no comparison of speed."""

    what: str
    value: float | str
    aim: str = ""
    met: bool | None = None

    def markdown(self) -> str:
        value = self.value if isinstance(self.value, str) else f"{self.value:.4g}"
        return f"| {self.what} | {value} | {self.aim} | {_answer(self.met)} |"


@dataclass(frozen=True)
class Results:
    """What one part of the benchmarks found."""

    rows: list[Row]
    facts: list[Fact]


def markdown(results: Results) -> str:
    """The two tables of ``results``."""
    lines = ["| what | against | times as fast | quartiles | aim | met |", "|---|---|---|---|---|---|"]
    lines += [row.markdown() for row in results.rows]
    lines += ["", "| what | measured | aim | met |", "|---|---|---|---|"]
    lines += [fact.markdown() for fact in results.facts]
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _aim(aim: float | None, sign: str) -> str:
    return "" if aim is None else f"{sign} {_short(aim)}"


def _answer(met: bool | None) -> str:
    return {None: "", True: "yes", False: "**no**"}[met]
