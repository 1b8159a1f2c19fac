"""Pixels of video to grey or RGB and back, by libswscale: matrix and range are always said, never guessed by it.

What is unspecified in a file is taken as ffmpeg takes it, whatever the size: BT.601, limited range (YUV), full range
(RGB and grey). Transfer and primaries are not converted, as ffmpeg does by default.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from difflate.errors import ImageError
from difflate.extras import require

BT709, LIMITED = 1, 1
"""As ffmpeg counts matrices (also primaries and transfers) and ranges; ISO/IEC 23091-2 has the first."""
_FULL = 2
_PQ, _HLG, _BT2020 = 16, 18, 9
_MATRICES = {0: "bt601", 1: "bt709", 2: "bt601", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
_FLAGS = "sws_dither=none:flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
_GREY = ("gray", "gray9", "gray10", "gray12", "gray14", "gray16")


class Coding(NamedTuple):
    """How the pixels of a decoded frame are coded."""

    format: str
    """ffmpeg's name."""
    width: int
    height: int
    matrix: str
    """ffmpeg's name of the matrix of YUV; of no meaning for RGB and grey."""
    full: bool
    """Black is 0 and white the largest value; else they are 16 and 235 of 255 (chroma 16 to 240)."""
    bits: int
    """Of a sample."""
    grey: bool
    rgb: bool


def coding_of(frame: Any, name: str) -> Coding:
    """The coding of ``frame``, an av.VideoFrame. Raises ImageError for alpha and for a matrix that is not read."""
    form = frame.format
    parts = form.components
    if any(part.is_alpha for part in parts):
        raise ImageError(f"{name}: has transparency, which a clip has not; lay it over a background first")
    grey = len(parts) == 1 and not form.has_palette
    rgb = form.is_rgb or form.has_palette
    matrix = int(frame.colorspace)
    if matrix not in _MATRICES and not grey and not rgb:
        raise ImageError(f"{name}: its colour matrix (number {matrix}) is not read here; convert it to BT.709 first")
    tagged = int(frame.color_range)
    full = tagged == _FULL or form.name.startswith("yuvj") or rgb or (grey and tagged != LIMITED)
    bits = max((part.bits for part in parts), default=8)
    return Coding(form.name, frame.width, frame.height, _MATRICES.get(matrix, "bt601"), full, bits, grey, rgb)


def colour_notes(coding: Coding, transfer: int, primaries: int) -> list[str]:
    """What of a clip in ``coding`` with such ``transfer`` and ``primaries`` is not kept."""
    notes = []
    if coding.bits > 8:
        notes.append("more than 8 bits a sample are reduced to 8")
    if transfer in (_PQ, _HLG):
        kind = "PQ" if transfer == _PQ else "HLG"
        notes.append(f"HDR ({kind}) is taken as it is stored, without tone mapping: it looks flat")
    if primaries == _BT2020:
        notes.append("the wide gamut of BT.2020 is taken as that of sRGB")
    return notes


class Unpacker:
    """Decoded frames to (C, H, W) uint8, C = 1 for a grey coding and 3 otherwise."""

    def __init__(self, coding: Coding) -> None:
        self._coding = coding
        # Limited range goes to 8 bits at once, which swscale rounds well. Full range of more bits it cuts off (.5 of a
        # level too low, measured), so there it makes RGB of as many bits and the last step is here.
        deep = 8 < coding.bits <= 16 and coding.full
        self._plain_grey = coding.format.removesuffix("le") in _GREY
        if self._plain_grey:
            return
        if coding.grey:
            target = "gray"
        elif coding.rgb and coding.bits < 8:
            target = "rgb24"  # white of 5 bits is 255 there and 248 in planes
        elif deep:
            target = f"gbrp{next(bits for bits in (10, 12, 16) if bits >= coding.bits)}le"
        else:
            target = "gbrp"
        self._target = target
        self._bits = int(target[4:6]) if target.endswith("le") else 8
        scale = f"in_color_matrix={coding.matrix}:in_range={_range(coding.full)}:out_range=full"
        self._graph = _graph(coding.width, coding.height, coding.format, scale, target)

    def __call__(self, frame: Any) -> np.ndarray:
        if self._plain_grey:
            bits = self._coding.bits
            return _unlevel(_plane(frame.planes[0], bits), bits, self._coding.full)[None]
        frame.pts = None  # the graph would only complain of times that do not rise
        self._graph.vpush(frame)
        frame = self._graph.vpull()
        if self._target == "rgb24":
            return np.ascontiguousarray(frame.to_ndarray().transpose(2, 0, 1))
        if self._target == "gray":
            return _plane(frame.planes[0], 8)[None].copy()
        pixels = np.stack([_plane(frame.planes[at], self._bits) for at in (2, 0, 1)])  # stored as G, B, R
        return _unlevel(pixels, self._bits, full=True)


class Packer:
    """(3, H, W) uint8 to frames in ``format``, limited range of ``matrix`` ("bt709", "bt601")."""

    def __init__(self, width: int, height: int, format: str, matrix: str) -> None:
        scale = f"in_range=full:out_color_matrix={matrix}:out_range=limited"
        self._graph = _graph(width, height, "rgb24", scale, format)

    def __call__(self, pixels: np.ndarray) -> Any:
        frame = require("av", "video").VideoFrame.from_ndarray(interleaved(pixels), format="rgb24")
        self._graph.vpush(frame)
        return self._graph.vpull()


def interleaved(pixels: np.ndarray) -> np.ndarray:
    """(H, W, C) in one piece, from (C, H, W)."""
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def _range(full: bool) -> str:
    return "full" if full else "limited"


def _graph(width: int, height: int, source: str, scale: str, target: str) -> Any:
    graph = require("av", "video").filter.Graph()
    graph.link_nodes(
        graph.add_buffer(width=width, height=height, format=source, time_base=Fraction(1, 1000)),
        graph.add("scale", f"{scale}:{_FLAGS}"),
        graph.add("format", target),
        graph.add("buffersink"),
    ).configure()
    return graph


def _plane(plane: Any, bits: int) -> np.ndarray:
    """(H, W) of a plane of uint8, or little-endian uint16 if ``bits`` > 8; a view."""
    dtype = np.dtype("u1" if bits == 8 else "<u2")
    rows = np.frombuffer(plane, dtype).reshape(plane.height, plane.line_size // dtype.itemsize)
    return rows[:, : plane.width]


def _unlevel(samples: np.ndarray, bits: int, full: bool) -> np.ndarray:
    """uint8 of ``samples`` of so many ``bits``, stretched to full range and rounded to the nearest; a copy."""
    if bits == 8 and full:
        return samples.copy()
    black, white = (0, (1 << bits) - 1) if full else (16 << (bits - 8), 235 << (bits - 8))
    table = (np.arange(1 << bits, dtype=np.int64) - black) * 255
    table = (2 * table + (white - black)) // (2 * (white - black))
    return table.clip(0, 255).astype(np.uint8)[samples]
