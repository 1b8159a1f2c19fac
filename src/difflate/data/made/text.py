"""Rendered text: of many fonts, sizes, colours and languages, sharp and with anti-aliasing."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from difflate.data.made import fonts, patterns
from difflate.data.made.palette import RGB, ink_and_paper, ink_on, rgb

_SHARP = 0.2
"""Share of the texts that are drawn without anti-aliasing."""
_SLANTED = 0.15


def small(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: a page in one small font."""
    ink, paper = ink_and_paper(rng)
    return _page(rng, np.full((height, width, 3), paper, np.uint8), ink, int(rng.integers(7, 15)))


def medium(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: lines in a font of 14 to 48 pixels."""
    ink, paper = ink_and_paper(rng)
    return _page(rng, np.full((height, width, 3), paper, np.uint8), ink, int(rng.integers(14, 49)))


def large(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: letters of 48 to 200 pixels."""
    ink, paper = ink_and_paper(rng)
    return _page(rng, np.full((height, width, 3), paper, np.uint8), ink, int(rng.integers(48, 201)))


def on_gradient(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: lines over a gradient, or over what a photograph may be blurred."""
    ground = patterns.scene(rng, height, width) if rng.random() < 0.3 else patterns.gradient(rng, height, width)
    mean = ground[::8, ::8].reshape(-1, 3).mean(0)
    ink = ink_on(rng, (int(mean[0]), int(mean[1]), int(mean[2])))
    return _page(rng, ground, ink, int(rng.integers(10, 64)))


def coloured(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: words in colours of their own, as editors show programs, in fonts of 8 to 24 pixels."""
    _, paper = ink_and_paper(rng)
    colours = [ink_on(rng, paper) for _ in range(int(rng.integers(2, 7)))] if rng.random() < 0.8 else None
    image = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(image)
    pen.fontmode = "1" if rng.random() < _SHARP else "L"
    face, size = fonts.face(rng), int(rng.integers(8, 25))
    font, step = fonts.font(face, size), round(size * rng.uniform(1.1, 1.6))
    space, indent = pen.textlength(" ", font), 0
    text = fonts.CODE if rng.random() < 0.5 else fonts.running_text(rng, face)
    y = -int(rng.integers(step))
    for line in fonts.lines(rng, text, int(width / size * rng.uniform(0.6, 2.0)) + 4, (height - y) // step + 1):
        indent = max(indent + int(rng.integers(-1, 2)), 0) if text is fonts.CODE else 0
        x = size * 2.0 * indent
        for word in line.split():
            colour = rgb(rng) if colours is None else colours[rng.integers(len(colours))]
            pen.text((round(x), y), word, fill=colour, font=font)
            x += pen.textlength(word, font) + space
            if x > width:
                break
        y += step
    return np.asarray(image)


def _page(rng: Generator, ground: np.ndarray, ink: RGB, size: int) -> np.ndarray:
    """Lines of one text from above the upper to below the lower edge of ``ground``."""
    height, width = ground.shape[:2]
    face = fonts.face(rng)
    font = fonts.font(face, size)
    stroke = int(rng.integers(1, size // 16 + 1)) if rng.random() < 0.15 and size > 15 else 0
    step = round(size * rng.uniform(1.0, 1.7)) + stroke
    sharp, slant = rng.random() < _SHARP, float(rng.uniform(0.1, 0.35)) if rng.random() < _SLANTED else 0.0
    mask = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(mask)
    pen.fontmode = "1" if sharp else "L"
    left, y = int(rng.integers(-size, size)), -int(rng.integers(size // 2 + 1))
    text, letters = fonts.running_text(rng, face), int(width / size * rng.uniform(1.3, 2.4)) + 2
    for number, line in enumerate(fonts.lines(rng, text, letters, (height - y) // step + 1)):
        if number == 0 or rng.random() > 0.06:  # an end of a paragraph
            pen.text((left, y), line, fill=255, font=font, stroke_width=stroke)
        y += step
    if slant:
        kind = Image.Resampling.NEAREST if sharp else Image.Resampling.BILINEAR
        mask = mask.transform(mask.size, Image.Transform.AFFINE, (1, slant, -slant * height / 2, 0, 1, 0), kind)
    page = Image.fromarray(ground)
    page.paste(ink, (0, 0), mask)
    return np.asarray(page)
