"""The entropy coder on the symbols of a hyperprior's latent: 393 216 of them, 64 Gaussian tables of 256 entries."""

import math

import constriction
import numpy as np

from benchmarks.elsewhere import Elsewhere
from benchmarks.timing import Fact, Results, Timings, stopwatch
from difflate.entropy import SymbolReader, SymbolWriter, Tables

SYMBOLS = 393_216
TABLES = 64
HALF = 127
"""Symbols run from -127 to 127; with the escape a table has 256 entries."""
PER_CALL = 16_384
"""Symbols for the loop of single calls, which is too slow for all; its times are scaled up."""
AIM_ENCODE, AIM_DECODE, AIM_OVERHEAD = 2.0, 4.0, 0.05


class Work:
    """Symbols, the table of each, and the tables."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        scales = np.geomspace(0.11, 64, TABLES)  # as CompressAI's hyperpriors have them, to where 256 entries suffice
        self.index = rng.integers(0, TABLES, SYMBOLS).astype(np.uint8)
        drawn = np.rint(rng.normal(size=SYMBOLS) * scales[self.index])
        self.symbols = np.clip(drawn, -HALF, HALF).astype(np.int32)
        self.weights = np.array([_gaussian(scale) for scale in scales])
        self.tables = Tables.from_counts(list(self.weights), [-HALF] * TABLES)

    def encode(self) -> bytes:
        writer = SymbolWriter()
        writer.write(self.symbols, self.tables, self.index)
        return writer.finish()

    def decode(self, data: bytes) -> np.ndarray:
        return SymbolReader(data).read(SYMBOLS, self.tables, self.index)


class PerCall:
    """The same range coder and the same tables, but one call per symbol."""

    def __init__(self, work: Work):
        self.models = [work.tables.model(t) for t in work.index[:PER_CALL]]
        self.symbols = (work.symbols[:PER_CALL] + HALF).tolist()
        self.stream = self.encode()
        if self.decode() != self.symbols:
            raise SystemExit("the loop of single calls does not read back what it wrote")

    def encode(self) -> np.ndarray:
        coder = constriction.stream.queue.RangeEncoder()
        for symbol, model in zip(self.symbols, self.models, strict=True):
            coder.encode(symbol, model)
        return coder.get_compressed()

    def decode(self) -> list[int]:
        coder = constriction.stream.queue.RangeDecoder(self.stream)
        return [coder.decode(model) for model in self.models]


VERBS = ("encode", "decode", "encode lists", "decode lists")


def run(rounds: int, compressai: str | None) -> Results:
    """Ratios; ``compressai``: the Python of an environment with CompressAI."""
    work = Work()
    data = work.encode()
    if not np.array_equal(work.decode(data), work.symbols):
        raise SystemExit("the entropy coder does not read back what it wrote")
    loop = PerCall(work)
    programs = {
        "encode": stopwatch(work.encode),
        "decode": stopwatch(lambda: work.decode(data)),
        "one call per symbol, encode": stopwatch(loop.encode),
        "one call per symbol, decode": stopwatch(loop.decode),
    }
    if compressai is None:
        results = _results(Timings(programs, rounds))
        results.facts.append(Fact("entropy coder against CompressAI", "not measured: give --compressai"))
    else:
        arrays = dict(symbols=work.symbols, index=work.index, weights=work.weights, low=-HALF)
        with Elsewhere(compressai, "compressai_rans.py", **arrays) as other:
            theirs = {f"CompressAI {verb}": lambda verb=verb: other.ask(verb) for verb in VERBS}
            results = _results(Timings(programs | theirs, rounds), compressai=True)
            excess = 100 * (8 * other.ask("bytes") / work.tables.bits(work.symbols, work.index) - 1)
            results.facts.append(Fact("stream of CompressAI above our tables' cross-entropy, %", excess))
    overhead = 100 * (8 * len(data) / work.tables.bits(work.symbols, work.index) - 1)
    facts = [
        Fact("stream above the tables' cross-entropy, %", overhead, f"< {AIM_OVERHEAD}", overhead < AIM_OVERHEAD),
        *results.facts,
    ]
    return Results(results.rows, facts)


def _results(timings: Timings, compressai: bool = False) -> Results:
    scale = SYMBOLS / PER_CALL
    rows = [
        timings.row(f"entropy coder, {verb}", verb, f"one call per symbol, {verb}", scale=scale)
        for verb in ("encode", "decode")
    ]
    if compressai:
        rows += [
            timings.row("entropy coder, encode", "encode", "CompressAI encode", AIM_ENCODE),
            timings.row("entropy coder, decode", "decode", "CompressAI decode", AIM_DECODE),
            timings.row("entropy coder, encode", "encode", "CompressAI encode lists"),
            timings.row("entropy coder, decode", "decode", "CompressAI decode lists"),
        ]
    millions = [
        Fact(f"entropy coder, {v}, million symbols per second", SYMBOLS / timings.ms(v) / 1e3)
        for v in ("encode", "decode")
    ]
    return Results(rows, millions)


def _gaussian(scale: float) -> np.ndarray:
    """(255,) probabilities of -127 to 127 under a rounded zero-mean Gaussian."""
    edges = (np.arange(-HALF, HALF + 2) - 0.5) / (scale * math.sqrt(2))
    return np.diff([math.erf(edge) for edge in edges]) / 2
