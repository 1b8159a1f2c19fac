"""Patterns that follow from a formula: stripes, gradients, dithers, halftones, noise, pixel art."""

import functools

import numpy as np
from numpy.random import Generator
from PIL import Image

from difflate.data.made.palette import BLACK, RGB, WHITE, choose, ink_and_paper, mix, rgb


def flat(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: one colour."""
    return np.full((height, width, 3), rgb(rng), np.uint8)


def checkerboard(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: fields of 1 to 8 pixels in two colours."""
    return _fields(rng, height, width, int(rng.integers(1, 9)))


def checkerboard_1px(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: fields of one pixel."""
    return _fields(rng, height, width, 1)


def stripes_1px(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: every other row, or column, in another colour."""
    rows, columns = np.ogrid[:height, :width]
    place = rows + 0 * columns if rng.random() < 0.5 else columns + 0 * rows
    return choose(place % 2 == 0, *_two(rng))


def stripes(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: rows, or columns, of a period of 2 to 8 pixels, of which one colour has one or more."""
    period = int(rng.integers(2, 9))
    rows, columns = np.ogrid[:height, :width]
    place = rows + 0 * columns if rng.random() < 0.5 else columns + 0 * rows
    return choose(place % period < rng.integers(1, period), *_two(rng))


def stripes_diagonal(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: stripes at any angle, or waves, of a period of 2 to 12 pixels."""
    angle, period = rng.uniform(0, 2 * np.pi), float(rng.uniform(2, 12))
    rows, columns = np.ogrid[:height, :width]
    if rng.random() < 0.3:  # in steps of whole pixels
        place = (rows * int(rng.integers(1, 4)) + columns * int(rng.choice((-2, -1, 1, 2)))) % round(period)
        return choose(place < round(period) / 2, *_two(rng))
    turns = (rows * np.float32(np.sin(angle)) + columns * np.float32(np.cos(angle))) / np.float32(period)
    if rng.random() < 0.4:
        frequency = 2 * np.pi / period
        wave = _wave(height, width, np.sin(angle) * frequency, np.cos(angle) * frequency)
        return mix(0.5 + 0.5 * wave, *_two(rng))
    return choose(turns % 1 < rng.uniform(0.3, 0.7), *_two(rng))


def gradient(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: from one colour to another, or between four at the corners."""
    if rng.random() < 0.25:
        corners = Image.fromarray(rng.integers(0, 256, (2, 2, 3), np.uint8))
        box = (0.5, 0.5, 1.5, 1.5)
        return np.asarray(corners.resize((width, height), Image.Resampling.BILINEAR, box))
    return mix(_slope(rng, height, width), rgb(rng), rgb(rng))


def gradient_banded(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: a gradient in 3 to 24 steps."""
    steps = int(rng.integers(3, 25))
    slope = np.minimum(np.floor(_slope(rng, height, width) * steps), steps - 1) / (steps - 1)
    first = rgb(rng)
    return mix(slope, first, rgb(rng))


def noise(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: noise in grains of 1 to 8 pixels, of all colours or two, or a little of it over one colour."""
    grain = int(rng.choice((1, 1, 1, 2, 3, 4, 8)))
    size = (-(-height // grain), -(-width // grain))
    style = rng.random()
    if style < 0.3:
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
    elif style < 0.5:
        pixels = choose(rng.random(size, np.float32) < rng.uniform(0.02, 0.5), *ink_and_paper(rng))
    else:
        spread = np.float32(rng.uniform(2, 60))
        channels = 3 if rng.random() < 0.5 else 1
        pixels = rng.standard_normal((*size, channels), np.float32) * spread + np.array(rgb(rng), np.float32)
        pixels = pixels.clip(0, 255).astype(np.uint8)
    return np.repeat(np.repeat(pixels, grain, 0), grain, 1)[:height, :width]


def scene(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: soft light, a little colour and texture, and a few edges, as a photograph out of focus has."""
    layers = [(int(rng.integers(2, 6)), 1.0), (int(rng.integers(8, 20)), 0.4), (int(rng.integers(24, 64)), 0.15)]
    light = np.zeros((height, width), np.float32)
    for count, weight in layers:
        light += _soft(rng, count, "L", height, width) * np.float32(weight)
    light *= np.float32(rng.uniform(0.8, 1.5) / 1.55)
    pixels = _soft(rng, int(rng.integers(2, 5)), "RGB", height, width).astype(np.float32)
    pixels *= np.float32(rng.uniform(0.1, 0.5))
    pixels += (light - pixels.mean())[..., None]
    rows, columns = np.ogrid[:height, :width]
    for _ in range(int(rng.integers(4))):
        y, x, tall, wide = rng.uniform(0, 1, 4) * (height, width, height / 2, width / 2)
        inside = ((rows - y) / (tall + 1)) ** 2 + ((columns - x) / (wide + 1)) ** 2 < 1
        pixels[inside] = pixels[inside] * np.float32(rng.uniform(0.2, 0.8)) + rng.integers(0, 130, 3, np.uint8)
    return pixels.clip(0, 255).astype(np.uint8)


def _soft(rng: Generator, count: int, mode: str, height: int, width: int) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8: a grid of ``count`` squared random values, smooth between them."""
    grid = rng.integers(0, 256, (count, count, 3) if mode == "RGB" else (count, count), np.uint8)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def bayer_1bit(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: an ordered dither of something smooth, in two colours."""
    ink, paper = _two(rng)
    grain = int(rng.choice((1, 1, 1, 2)))
    height_, width_ = -(-height // grain), -(-width // grain)
    shades = _smooth(rng, height_, width_).mean(2) / 255
    lit = shades > _tiled(int(rng.choice((2, 4, 8))), height_, width_)
    return np.repeat(np.repeat(choose(lit, ink, paper), grain, 0), grain, 1)[:height, :width]


def bayer_colour(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: an ordered dither of something smooth, in 2 to 6 levels of each channel."""
    levels = int(rng.integers(2, 7)) - 1
    shades = _smooth(rng, height, width) * np.float32(levels / 255)
    steps = np.floor(shades + _tiled(int(rng.choice((2, 4, 8))), height, width)[..., None])
    return (steps.clip(0, levels) * (255 / levels)).astype(np.uint8)


def error_diffusion(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: Floyd and Steinberg's dither of something smooth, in black and white or a few colours."""
    image = Image.fromarray(_smooth(rng, height, width))
    if rng.random() < 0.4:
        return choose(np.asarray(image.convert("1")), *_two(rng))
    palette = Image.new("P", (1, 1))
    count = int(rng.choice((4, 8, 16, 27)))
    if count in (8, 27):
        side = round(count ** (1 / 3))
        levels = np.linspace(0, 255, side).astype(np.uint8)
        colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    else:
        colours = np.asarray(image)[rng.integers(0, height, count), rng.integers(0, width, count)]
    palette.putpalette(np.concatenate([colours, np.repeat(colours[:1], 256 - count, 0)]).tobytes())
    return np.asarray(image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB"))


def halftone(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: dots on a turned grid whose size follows what is printed, in one ink or in three."""
    pitch, smooth = float(rng.uniform(3, 10)), _smooth(rng, height, width)
    soft = np.float32(rng.uniform(1, 8))
    if rng.random() < 0.6:
        angle = rng.uniform(0, np.pi / 2)
        dots = _screen(height, width, pitch, angle)
        ink, paper = _two(rng)
        return mix(((smooth.mean(2, dtype=np.float32) / 255 - dots) * soft * 2 + 0.5).clip(0, 1), ink, paper)
    angles = np.deg2rad((15, 75, 0)) + rng.uniform(0, np.pi / 2)
    screens = np.stack([_screen(height, width, pitch, angle) for angle in angles], -1)
    return (((smooth / np.float32(255) - screens) * soft * 2 + 0.5).clip(0, 1) * 255).astype(np.uint8)


def pixel_art(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: a ground of tiles and symmetric figures in few colours, each pixel 2 to 8 pixels wide."""
    scale, side = int(rng.integers(2, 9)), 8 * int(rng.integers(1, 3))
    rows, columns = -(-height // scale), -(-width // scale)
    down, across = -(-rows // side), -(-columns // side)
    colours = np.array([rgb(rng) for _ in range(int(rng.integers(6, 17)))], np.uint8)
    plan = rng.integers(0, 2, (down, across)) if rng.random() < 0.3 else np.zeros((down, across), int)
    plan += 2 * (np.arange(down)[:, None] >= rng.integers(down + 1))  # sky and earth
    tiles = np.stack([_tile(rng, side, len(colours)) for _ in range(4)])
    art = tiles[plan].transpose(0, 2, 1, 3).reshape(down * side, across * side)
    for _ in range(max(down * across // 3, 1)):
        figure, shape = _figure(rng, side, len(colours))
        top, left = int(rng.integers(down * side - side + 1)), int(rng.integers(across * side - side + 1))
        art[top : top + side, left : left + side][shape] = figure[shape]
    return np.repeat(np.repeat(colours[art], scale, 0), scale, 1)[:height, :width]


def _tile(rng: Generator, side: int, colours: int) -> np.ndarray:
    """(side, side) int: of one colour, with specks, bricks or a slope of it in another."""
    first, second = rng.integers(0, colours, 2)
    rows, columns = np.mgrid[:side, :side]
    style = int(rng.integers(4))
    if style == 0:
        marked = np.zeros((side, side), bool)
    elif style == 1:
        marked = rng.random((side, side)) < 0.08
    elif style == 2:
        marked = (rows % 4 == 3) | ((columns + rows // 4 % 2 * 4) % 8 == 7)
    else:
        marked = (rows + columns) % 2 * (rows > side // 2) == 1
    return np.where(marked, second, first)


def _figure(rng: Generator, side: int, colours: int) -> tuple[np.ndarray, np.ndarray]:
    """(side, side) int of colours, and bool where the figure is: the same left and right, with an outline."""
    half = rng.random((side, side // 2)) + np.linspace(-0.5, 0.4, side // 2) > 0.45
    half[0] = half[-1] = False
    half[:, 0] = False
    body = np.hstack([half, half[:, ::-1]])
    near = body.copy()
    for axis in (0, 1):
        near |= np.roll(body, 1, axis) | np.roll(body, -1, axis)
    outline, eyes, *skins = rng.integers(0, colours, 5)
    stripes = np.array(skins)[np.sort(rng.integers(0, len(skins), side))]
    figure = np.where(body, stripes[:, None], outline)
    figure[side // 3, [side // 2 - 2, side // 2 + 1]] = eyes
    return figure, near


def blocks(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: square modules in two colours with finders in three corners, as of a QR code, or bars."""
    ink, paper = _two(rng)
    module = int(rng.integers(2, 9))
    if rng.random() < 0.25:
        bars = np.repeat(rng.integers(0, 2, -(-width // module)) == 0, module)[:width]
        return choose(np.broadcast_to(bars, (height, width)), ink, paper)
    count = max(min(height, width) // module - 4, 21)
    code = rng.integers(0, 2, (count, count)).astype(bool)
    ring = np.maximum(*np.abs(np.mgrid[-4:5, -4:5]))
    finder = (ring == 2) | (ring == 4)
    code[:8, :8] = finder[1:, 1:]
    code[:8, -8:] = finder[1:, :-1]
    code[-8:, :8] = finder[:-1, 1:]
    page = np.ones((-(-height // module), -(-width // module)), bool)
    top, left = (max(side - count, 0) // 2 for side in page.shape)
    part = page[top : top + count, left : left + count]
    part[:] = code[: part.shape[0], : part.shape[1]]
    return choose(np.repeat(np.repeat(page, module, 0), module, 1)[:height, :width], ink, paper)


def _two(rng: Generator) -> tuple[RGB, RGB]:
    """Two colours of a pattern, in half of them black and white."""
    return (BLACK, WHITE) if rng.random() < 0.5 else ink_and_paper(rng)


def _fields(rng: Generator, height: int, width: int, side: int) -> np.ndarray:
    rows, columns = np.ogrid[:height, :width]
    return choose((rows // side + columns // side) % 2 == 0, *_two(rng))


def _slope(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W) float32 from 0 to 1: along a line, or away from a point."""
    rows, columns = np.ogrid[:height, :width]
    style = rng.random()
    if style < 0.6:
        angle = rng.uniform(0, 2 * np.pi) if style < 0.3 else rng.integers(4) * np.pi / 2
        slope = rows * np.float32(np.sin(angle)) + columns * np.float32(np.cos(angle))
    else:
        y, x = rng.uniform(-0.2, 1.2, 2) * (height, width)
        slope = np.hypot(rows - np.float32(y), columns - np.float32(x))
    low, high = slope.min(), slope.max()
    return ((slope - low) / max(high - low, 1)).astype(np.float32)


def _smooth(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: what is dithered or printed."""
    style = rng.random()
    if style < 0.6:
        return scene(rng, height, width)
    return gradient(rng, height, width) if style < 0.8 else mix(_slope(rng, height, width), BLACK, WHITE)


def _screen(height: int, width: int, pitch: float, angle: float) -> np.ndarray:
    """(H, W) float32 from 0 to 1: the levels at which a halftone's pixel turns white."""
    turn = 2 * np.pi / pitch
    sine, cosine = np.sin(angle) * turn, np.cos(angle) * turn
    waves = _wave(height, width, sine, cosine) + _wave(height, width, cosine, -sine)
    return waves * np.float32(0.25) + np.float32(0.5)


def _wave(height: int, width: int, down: float, across: float) -> np.ndarray:
    """(H, W) float32: cos(down·y + across·x), as sums of products of what rows and columns have."""
    y, x = down * np.arange(height), across * np.arange(width)
    return (np.outer(np.cos(y), np.cos(x)) - np.outer(np.sin(y), np.sin(x))).astype(np.float32)


@functools.cache
def _bayer(side: int) -> np.ndarray:
    """(side, side) float32 above 0, below 1: the matrix of Bayer (1973) for a side that is a power of two."""
    matrix = np.zeros((1, 1))
    while len(matrix) < side:
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    return ((matrix + 0.5) / side**2).astype(np.float32)


def _tiled(side: int, height: int, width: int) -> np.ndarray:
    """`_bayer` over (H, W)."""
    return np.tile(_bayer(side), (-(-height // side), -(-width // side)))[:height, :width]
