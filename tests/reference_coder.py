"""A reader of the range coder's streams in plain Python integers, written from docs/format.md alone."""

PRECISION = 24
_MASK = (1 << 64) - 1


class ReferenceReader:
    """Decodes one symbol at a time; slow, and independent of the library that the package uses."""

    def __init__(self, data: bytes):
        padded = data + bytes(-len(data) % 4)
        self._words = [int.from_bytes(padded[i : i + 4], "little") for i in range(0, len(padded), 4)]
        self._lower, self._range = 0, _MASK
        self._point = 0
        for _ in range(2):
            self._point = self._point << 32 | self._next()

    def _next(self) -> int:
        return self._words.pop(0) if self._words else 0

    def read(self, frequencies: list[int]) -> int:
        """The next symbol; ``frequencies`` sum to 2^24."""
        assert sum(frequencies) == 1 << PRECISION
        scale = self._range >> PRECISION
        quantile = (self._point - self._lower & _MASK) // scale
        assert quantile < 1 << PRECISION
        symbol, below = 0, 0
        while below + frequencies[symbol] <= quantile:
            below += frequencies[symbol]
            symbol += 1
        self._lower = self._lower + scale * below & _MASK
        self._range = scale * frequencies[symbol]
        if self._range < 1 << 32:
            self._lower = self._lower << 32 & _MASK
            self._range = self._range << 32 & _MASK
            self._point = (self._point << 32 | self._next()) & _MASK
        return symbol
