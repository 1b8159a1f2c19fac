"""Pairs of images and what lossy formats leave of them, made as they are asked for; any from its number alone."""

import functools
import io

import numpy as np
import torch
from PIL import Image

from difflate.data.crops import Sample, Samples
from difflate.media.jpeg import UNKNOWN
from difflate.seeds import Stream, numpy_generator

GRID_PX = 16
"""Blocks of 8x8 px, and of chroma at half size of 16x16."""
HELD_BACK_QUALITIES = (10, 20, 30, 40, 50)
"""JPEG at these, one after the other, is what is held back."""
_JPEG, _WEBP = 0.85, 0.08
"""Shares of the formats; the rest is AVIF."""
_SHIFTED = 0.15
"""Share whose blocks begin anywhere: of files that were cropped and saved again."""
_GOOD = 0.2
"""Share of good quality, of which nothing should be changed."""
_LOW_QUALITY, _GOOD_QUALITY = (10, 51), (51, 96)
_HALF_CHROMA = 0.75
"""Share of JPEG with chroma at half size."""
# ISO/IEC 10918-1, tables K.1 and K.2, which libjpeg scales by the quality
_LUMINANCE = """
16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
_CHROMA = """
17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""
_STEEPNESS = (1.0, 0.5, 0.75, 1.25)
"""Powers of the tables about their geometric means: other encoders treat high frequencies better or worse."""
_STANDARD = 0.7
"""Share of the first of them."""


@functools.cache
def all_tables() -> np.ndarray:
    """(801, 2, 64) float32: the tables of each label of `Degradations`, those of the last, -1, unknown.

    First come those of four families of tables at the qualities from 1 to 100, then the same without chroma.
    """
    base = np.array([[int(step) for step in text.split()] for text in (_LUMINANCE, _CHROMA)], np.float64)
    means = np.exp(np.log(base).mean(1, keepdims=True))
    families = np.stack([np.floor(means * (base / means) ** power + 0.5) for power in _STEEPNESS])
    quality = np.arange(1, 101)
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    scaled = (families[:, None] * percent[:, None, None] + 50) // 100
    colour = scaled.clip(1, 255).reshape(-1, 2, 64)
    grey = colour * np.array([[1], [0]])
    return np.concatenate([colour, grey, UNKNOWN[None]]).astype(np.float32)


class Degradations(Samples):
    """``images``, crops of ``size`` + 16 px, each beside what a lossy file at a random quality leaves of it.

    Sample n has pixels (6, size, size): the image and the degraded one, whose label names its tables in `all_tables`,
    -1: unknown. Images that are grey are degraded as grey ones. ``held_back``: JPEG of five qualities in turn instead,
    whose blocks begin at the crop's first pixel.
    """

    def __init__(self, images: Samples, size: int, *, seed: int = 0, held_back: bool = False):
        self.images, self.size, self.seed, self.held_back = images, size, seed, held_back

    def __len__(self) -> int:
        return len(self.images)

    def identity(self) -> str:
        """That of the images, degraded."""
        return f"{self.images.identity()}, degraded"

    def read(self, number: int) -> Sample:
        """Sample ``number``. Raises FormatError if it cannot be read."""
        sample = self.images.read(number)
        rng = numpy_generator(self.seed, Stream.DEGRADATION, number)
        pixels = sample.pixels.numpy()
        grey = bool((pixels == pixels[:1]).all())
        if self.held_back:
            label = _label(grey, 0, HELD_BACK_QUALITIES[number % len(HELD_BACK_QUALITIES)])
            degraded, top, left = _jpeg(pixels, label, half_chroma=True), 0, 0
        else:
            degraded, label = _degrade(pixels, grey, rng)
            top, left = rng.integers(GRID_PX + 1, size=2)
            if rng.random() >= _SHIFTED:
                top, left = (at // GRID_PX * GRID_PX for at in (top, left))
        both = np.concatenate([pixels, degraded])[:, top : top + self.size, left : left + self.size]
        return sample._replace(pixels=torch.from_numpy(both.copy()), label=label)


def _label(grey: bool, family: int, quality: int) -> int:
    return 100 * (len(_STEEPNESS) * grey + family) + quality - 1


def _degrade(pixels: np.ndarray, grey: bool, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """What a file leaves of ``pixels: (3, H, W)`` uint8, and its label."""
    kind, good, standard, half = rng.random(4)
    quality = int(rng.integers(*(_GOOD_QUALITY if good < _GOOD else _LOW_QUALITY)))
    family = 0 if standard < _STANDARD else int(rng.integers(1, len(_STEEPNESS)))
    if kind < _JPEG:
        label = _label(grey, family, quality)
        return _jpeg(pixels, label, half < _HALF_CHROMA), label
    if kind < _JPEG + _WEBP:
        return _through(pixels, "WEBP", quality=quality, method=2), -1
    # the same numbers stand for better images there
    return _through(pixels, "AVIF", quality=int(0.8 * quality), speed=9), -1


def _jpeg(pixels: np.ndarray, label: int, half_chroma: bool) -> np.ndarray:
    luminance, chroma = all_tables()[label].astype(int)
    if not chroma.any():
        return np.repeat(_through(pixels[:1], "JPEG", qtables=[luminance.tolist()]), 3, axis=0)
    tables = [luminance.tolist(), chroma.tolist()]
    return _through(pixels, "JPEG", qtables=tables, subsampling="4:2:0" if half_chroma else "4:4:4")


def _through(pixels: np.ndarray, kind: str, **settings: object) -> np.ndarray:
    """``pixels: (C, H, W)`` uint8, saved by Pillow as ``kind`` and opened again, same shape."""
    file = io.BytesIO()
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.save(file, kind, **settings)
    with Image.open(file) as opened:
        restored = np.asarray(opened.convert(image.mode))
    return restored[None] if restored.ndim == 2 else restored.transpose(2, 0, 1)
