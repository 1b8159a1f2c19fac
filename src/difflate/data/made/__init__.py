"""Pictures that are no photographs: text, screens, drawings, dithers and patterns, made from a seed and a number.

Codecs that have seen photographs alone fail on these. They are made as they are needed, by numpy and Pillow, in a few
milliseconds each. Text is set in the font that comes with Pillow, and in those of matplotlib where it is installed.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.random import Generator

from difflate.data.made import charts, drawings, patterns, screens, text
from difflate.seeds import Stream, numpy_generator

Maker = Callable[[Generator, int, int], np.ndarray]
"""(rng, height, width) -> (H, W, 3) uint8."""


def collage(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: two other kinds side by side, as on pages and screens that mix them."""
    kinds = [_any(rng), _any(rng)]
    upright = rng.random() < 0.5
    long = height if upright else width
    cut = int(rng.integers(long // 4, long - long // 4))
    sizes = [(cut, width), (height - cut, width)] if upright else [(height, cut), (height, width - cut)]
    parts = [make(kind, rng, *size) for kind, size in zip(kinds, sizes, strict=True)]
    return np.concatenate(parts, 1 if upright else 2).transpose(1, 2, 0)


KINDS: dict[str, tuple[float, Maker]] = {
    "text-small": (8, text.small),
    "text": (8, text.medium),
    "text-large": (3, text.large),
    "text-colour": (6, text.coloured),
    "text-on-gradient": (6, text.on_gradient),
    "window": (14, screens.window),
    "chart": (7, charts.chart),
    "table": (5, charts.table),
    "line-art": (6, drawings.line_art),
    "map": (5, drawings.map_like),
    "shapes": (5, drawings.shapes),
    "bayer-1bit": (3, patterns.bayer_1bit),
    "bayer-colour": (3, patterns.bayer_colour),
    "error-diffusion": (3, patterns.error_diffusion),
    "halftone": (3, patterns.halftone),
    "checkerboard-1px": (1, patterns.checkerboard_1px),
    "checkerboard": (1, patterns.checkerboard),
    "stripes-1px": (1, patterns.stripes_1px),
    "stripes": (1, patterns.stripes),
    "stripes-diagonal": (2, patterns.stripes_diagonal),
    "gradient": (3, patterns.gradient),
    "gradient-banded": (2, patterns.gradient_banded),
    "pixel-art": (4, patterns.pixel_art),
    "blocks": (2, patterns.blocks),
    "noise": (2, patterns.noise),
    "flat": (1, patterns.flat),
    "collage": (8, collage),
}
"""Kinds of made pictures: of how many parts of all each has, and what makes it."""
_NO_SAMPLE_OF_ITSELF = {"text", "text-large", "shapes", "checkerboard", "stripes", "blocks", "collage"}
ODD = tuple(name for name in KINDS if name not in _NO_SAMPLE_OF_ITSELF)
"""The 20 kinds of the test set."""
_ODD_PX = (384, 512)
_ODD_SEED = 8
"""One in which the checkerboard and the stripes of 1 px are black and white, which is the hardest."""
_LEAST_PX = 64
"""Smaller pictures are cut out of one of this size, so that something is in them."""


def picture(seed: int, number: int, height: int, width: int) -> np.ndarray:
    """(3, height, width) uint8: picture ``number`` of a training, which follows from these four numbers alone."""
    rng = numpy_generator(seed, Stream.MADE, number)
    return make(_any(rng), rng, height, width)


def odd_pictures() -> Iterator[tuple[str, np.ndarray]]:
    """The test set: (name, (3, 384, 512) uint8), one picture of each kind of `ODD`. No training sees one of them."""
    for number, name in enumerate(ODD):
        yield name, make(name, numpy_generator(_ODD_SEED, Stream.ODD, number), *_ODD_PX)


def make(kind: str, rng: Generator, height: int, width: int) -> np.ndarray:
    """(3, height, width) uint8: a picture of a kind of `KINDS`."""
    tall, wide = max(height, _LEAST_PX), max(width, _LEAST_PX)
    pixels = KINDS[kind][1](rng, tall, wide)
    top, left = int(rng.integers(tall - height + 1)), int(rng.integers(wide - width + 1))
    return np.ascontiguousarray(pixels[top : top + height, left : left + width].transpose(2, 0, 1))


def _any(rng: Generator) -> str:
    """A kind, by the weights of `KINDS`."""
    ends = np.cumsum([weight for weight, _ in KINDS.values()])
    return list(KINDS)[int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))]
