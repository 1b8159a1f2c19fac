"""CompressAI's rANS coder, for `benchmarks.entropy`. Runs in an environment that has CompressAI, without Difflate.

Reads questions from stdin, one a line, and answers each with a number: "bytes", the length of its stream; or the
seconds of one round of "encode", "decode" (arrays in, arrays out, as CompressAI's entropy models call the coder) or
of "encode lists", "decode lists" (the coder alone, on lists of integers made before).
"""

import sys
import time
from collections.abc import Callable

import numpy as np
from compressai._CXX import pmf_to_quantized_cdf
from compressai.ans import RansDecoder, RansEncoder

PRECISION = 16


class Coder:
    """The coder with its tables."""

    def __init__(self, file: str):
        work = np.load(file)
        self.symbols, self.index = work["symbols"], work["index"]
        # the last entry of a table is CompressAI's escape; it gets the smallest probability there is
        rows = [pmf_to_quantized_cdf([*row.tolist(), 1e-9], PRECISION) for row in work["weights"]]
        self.cdfs = np.array(rows, np.int32)
        self.sizes = np.full(len(rows), self.cdfs.shape[1], np.int32)
        self.offsets = np.full(len(rows), int(work["low"]), np.int32)
        self.lists = self._lists()
        self.symbol_list = self.symbols.tolist()
        self.stream = self.encode()
        if not np.array_equal(self.decode(), self.symbols):
            raise SystemExit("CompressAI does not read back what it wrote")

    def _lists(self) -> tuple[list, list, list, list]:
        return self.index.tolist(), self.cdfs.tolist(), self.sizes.tolist(), self.offsets.tolist()

    def encode(self) -> bytes:
        return RansEncoder().encode_with_indexes(self.symbols.tolist(), *self._lists())

    def decode(self) -> np.ndarray:
        return np.array(RansDecoder().decode_with_indexes(self.stream, *self._lists()), np.int32)

    def encode_lists(self) -> bytes:
        return RansEncoder().encode_with_indexes(self.symbol_list, *self.lists)

    def decode_lists(self) -> list[int]:
        return RansDecoder().decode_with_indexes(self.stream, *self.lists)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    coder = Coder(sys.argv[1])
    for line in sys.stdin:
        question = line.strip()
        if question == "bytes":
            answer: float = len(coder.stream)
        else:
            answer = seconds(getattr(coder, question.replace(" ", "_")))
        print(answer, flush=True)


if __name__ == "__main__":
    main()
