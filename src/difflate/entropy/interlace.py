"""The order in which the sites of a grid are coded, coarse to fine, and the neighbours that each site knows.

A grid is coded in a few large passes, so that all sites of one pass can be predicted at once, as in interlaced
pictures: first every `COARSEST`-th site of every `COARSEST`-th row, then the centres of the squares that they make,
then the centres of the sides, and so on with half the stride. BITSTREAM: everything in this file.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

COARSEST = 32
SITES_PER_STEP = 8192
"""Sites predicted together; bounds the memory of large grids."""

CENTRES = np.array(
    [(-1, -1), (-1, 1), (1, -1), (1, 1), (-3, -1), (-3, 1), (-1, -3), (-1, 3), (1, -3), (1, 3), (3, -1), (3, 1)],
)
SIDES = np.array(
    [(-1, 0), (0, -1), (0, 1), (1, 0), (-2, -1), (-2, 1), (-1, -2), (-1, 2), (1, -2), (1, 2), (2, -1), (2, 1)],
)
"""(12, 2) rows and columns to the neighbours of a site, in strides: all decoded before it, where inside the grid."""
NEIGHBOURS = 12
PAST = np.array([(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
"""(9, 2) rows and columns to the sites of the frame before that a site looks back at, row by row."""
KINDS = 5
"""0: first pass, no neighbours; 1, 2: centres and sides at a stride above 1; 3, 4: centres and sides at stride 1."""


@dataclass(frozen=True)
class Step:
    """Sites that are predicted together."""

    kind: int
    sites: np.ndarray
    """(n,) int64 positions in the row-major grid."""
    neighbours: np.ndarray
    """(n, 12) int64 positions of the neighbours; rows*columns where there is none. (n, 0) in the first pass."""


def steps(rows: int, columns: int) -> Iterator[Step]:
    """The steps that cover each site of a grid of ``rows`` x ``columns`` exactly once, in coding order."""
    yield from _split(0, _lattice(rows, columns, 0, 0, COARSEST), None, 0, rows, columns)
    stride = COARSEST // 2
    while stride:
        near = 2 if stride == 1 else 0
        centres = _lattice(rows, columns, stride, stride, 2 * stride)
        yield from _split(1 + near, centres, CENTRES, stride, rows, columns)
        sides = np.concatenate(
            [_lattice(rows, columns, stride, 0, 2 * stride), _lattice(rows, columns, 0, stride, 2 * stride)]
        )
        yield from _split(2 + near, sides, SIDES, stride, rows, columns)
        stride //= 2


def _lattice(rows: int, columns: int, top: int, left: int, stride: int) -> np.ndarray:
    """(n, 2) row and column of every ``stride``-th site from ``top``, ``left`` on, row by row."""
    i, j = np.meshgrid(np.arange(top, rows, stride), np.arange(left, columns, stride), indexing="ij")
    return np.stack([i.ravel(), j.ravel()], axis=1)


def _split(
    kind: int, where: np.ndarray, offsets: np.ndarray | None, stride: int, rows: int, columns: int
) -> Iterator[Step]:
    for start in range(0, len(where), SITES_PER_STEP):
        part = where[start : start + SITES_PER_STEP]
        sites = part[:, 0] * columns + part[:, 1]
        if offsets is None:
            neighbours = np.empty((len(part), 0), np.int64)
        else:
            neighbours = _positions(part, stride * offsets, rows, columns)
        yield Step(kind, sites, neighbours)


def same_place(sites: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(n, 9) int64 positions, in the frame before, of the 3 x 3 sites around ``sites: (n,)``; rows*columns outside."""
    return _positions(np.stack(np.divmod(sites, columns), axis=1), PAST, rows, columns)


def _positions(where: np.ndarray, offsets: np.ndarray, rows: int, columns: int) -> np.ndarray:
    i = where[:, 0, None] + offsets[:, 0]
    j = where[:, 1, None] + offsets[:, 1]
    inside = (i >= 0) & (i < rows) & (j >= 0) & (j < columns)
    return np.where(inside, i * columns + j, rows * columns)
