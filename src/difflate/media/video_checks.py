"""Damage that ffmpeg hides: files that end too early, and slices of FFV1 that do not match their sums."""

from __future__ import annotations

import zlib

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_PLAIN_FOOTER, _CHECKED_FOOTER = 3, 8
# RFC 9043 sums with the polynomial of CRC-32, but the bits of a byte in the other order and registers that begin with
# these (version 3, version 4): of zlib's sum over mirrored bytes, begun so, a slice with its own sum behind gives the
# same again.
_STARTS = (0xFFFFFFFF, int(f"{0x7A8C4079:032b}"[::-1], 2) ^ 0xFFFFFFFF)


def matroska_bytes(prefix: bytes) -> int | None:
    """The length of the Matroska file that begins with ``prefix``; None if it does not say, or is none.

    RFC 8794 has the form of numbers: as many zero bits as further bytes, a one, the number; all ones for unknown.
    """
    if prefix[:4] != _EBML:
        return None
    size, at = _number(prefix, 4)
    if size is None or prefix[at + size : at + size + 4] != _SEGMENT:
        return None
    content, start = _number(prefix, at + size + 4)
    return None if content is None else start + content


def _number(data: bytes, at: int) -> tuple[int | None, int]:
    """The number at ``at``, None for unknown, and where it ends."""
    if at >= len(data) or not data[at]:
        return None, at
    length = 9 - data[at].bit_length()
    end = at + length
    if end > len(data):
        return None, at
    ones = (1 << 7 * length) - 1
    value = int.from_bytes(data[at:end], "big") & ones
    return (None if value == ones else value), end


class Ffv1Check:
    """Whether the packets of an FFV1 stream are as they were written, where they carry sums (RFC 9043, 4.9).

    The decoder of ffmpeg only logs a sum that does not match and repeats the slice of the frame before.
    """

    def __init__(self) -> None:
        self._checked: bool | None = None

    def __call__(self, packet: bytes) -> bool:
        """False if ``packet``, the next of the stream, is damaged."""
        if self._checked is None:
            # whether there are sums is coded in the stream's header; only the right footer divides a packet up
            if _slices(packet, _PLAIN_FOOTER) and not self._matches(packet):
                self._checked = False
                return True
            self._checked = True
        return not self._checked or self._matches(packet)

    @staticmethod
    def _matches(packet: bytes) -> bool:
        slices = _slices(packet, _CHECKED_FOOTER)
        sums = [tuple(zlib.crc32(part.translate(_REVERSED), start) == start for start in _STARTS) for part in slices]
        return bool(sums) and any(map(all, zip(*sums, strict=True)))


def _slices(packet: bytes, footer: int) -> list[bytes]:
    """The slices of a packet if footers of so many bytes divide it up, else none. A footer begins with the length."""
    slices, end = [], len(packet)
    while end >= footer:
        length = int.from_bytes(packet[end - footer : end - footer + 3], "big") + footer
        if length > end:
            return []
        slices.append(packet[end - length : end])
        end -= length
    return slices if end == 0 else []
