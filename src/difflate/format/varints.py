"""Numbers of .dfl files, and a cursor that reads them."""

from difflate.errors import FormatError, TruncatedError


def varint(value: int) -> bytes:
    """LEB128: 7 bits a byte, least significant first, the top bit set on all but the last."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class Cursor:
    """Reads bytes one part after the other, never past the end."""

    def __init__(self, data: bytes, what: str = "the file", longest: int = 5):
        """``what``: for errors. ``longest``: bytes that a varint has at most."""
        self._data, self._what, self._longest = data, what, longest
        self.position = 0

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self._data) - self.position

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes. Raises TruncatedError."""
        end = self.position + count
        if end > len(self._data):
            raise TruncatedError(
                f"{self._what} ends too early: {len(self._data)} bytes are there, at least {end} are needed; "
                "get a complete copy of it"
            )
        part = self._data[self.position : end]
        self.position = end
        return part

    def varint(self) -> int:
        """The next number. Raises TruncatedError, FormatError."""
        value = 0
        for shift in range(0, 7 * self._longest, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise FormatError(
            f"the file is damaged: a number in it is longer than {self._longest} bytes; get an intact copy of it"
        )
