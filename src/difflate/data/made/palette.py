"""Colours of pictures that are no photographs."""

import numpy as np
from numpy.random import Generator

RGB = tuple[int, int, int]
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
ACCENTS = (
    (0, 120, 215), (26, 115, 232), (53, 132, 228), (217, 48, 37), (230, 97, 0), (245, 194, 17), (46, 194, 126),
    (15, 157, 88), (145, 65, 172), (94, 92, 100), (0, 0, 128), (192, 28, 40), (31, 119, 180), (255, 127, 14),
    (44, 160, 44), (214, 39, 40), (148, 103, 189), (140, 86, 75), (227, 119, 194), (23, 190, 207),
)  # fmt: skip
"""Those that interfaces and charts like."""
_LEAST_CONTRAST = 70


def rgb(rng: Generator) -> RGB:
    """Any colour; the corners of the cube are as frequent as they are among drawn pictures."""
    style = rng.random()
    if style < 0.2:
        red, green, blue = (rng.integers(0, 2, 3) * 255).tolist()
    elif style < 0.4:
        red, green, blue = ACCENTS[rng.integers(len(ACCENTS))]
    else:
        red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue


def grey(rng: Generator, low: int = 0, high: int = 256) -> RGB:
    """A grey of a level from ``low`` to ``high`` - 1."""
    level = int(rng.integers(low, high))
    return level, level, level


def accent(rng: Generator) -> RGB:
    """One of `ACCENTS`."""
    return ACCENTS[rng.integers(len(ACCENTS))]


def luma(colour: RGB) -> float:
    """Brightness, 0 to 255 (BT.601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def ink_and_paper(rng: Generator) -> tuple[RGB, RGB]:
    """Two colours that can be told apart, the first for what is drawn: mostly black on white, or white on black."""
    style = rng.random()
    if style < 0.3:
        return BLACK, WHITE
    if style < 0.5:
        return grey(rng, 0, 90), grey(rng, 225)
    if style < 0.65:
        return grey(rng, 190), grey(rng, 0, 60)
    return ink_on(rng, paper := rgb(rng)), paper


def ink_on(rng: Generator, paper: RGB) -> RGB:
    """A colour that can be told from ``paper`` by its brightness."""
    for _ in range(8):
        ink = rgb(rng)
        if abs(luma(ink) - luma(paper)) > _LEAST_CONTRAST:
            return ink
    return BLACK if luma(paper) > 127 else WHITE


def between(first: RGB, second: RGB, share: float) -> RGB:
    """``first`` with a share of ``second``."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(first, second, strict=True))
    return red, green, blue


def mix(weight: np.ndarray, first: RGB, second: RGB) -> np.ndarray:
    """(H, W, 3) uint8: from ``first`` where ``weight``, (H, W) from 0 to 1, is 0 to ``second`` where it is 1."""
    start, end = (np.array(colour, np.float32) for colour in (first, second))
    return (start + weight.astype(np.float32)[..., None] * (end - start) + 0.5).astype(np.uint8)


def choose(mask: np.ndarray, first: RGB, second: RGB) -> np.ndarray:
    """(H, W, 3) uint8: ``first`` where ``mask``, (H, W) bool, is false, ``second`` where it is true."""
    return np.array([first, second], np.uint8)[mask.astype(np.uint8)]
