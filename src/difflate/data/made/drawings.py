"""Drawings: line art, maps, geometric shapes."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw
from PIL.ImageDraw import ImageDraw as Pen

from difflate.data.made import fonts, patterns
from difflate.data.made.palette import RGB, ink_and_paper, rgb


def line_art(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: curves, ellipses and hatching in one ink, some of it with a second colour."""
    ink, paper = ink_and_paper(rng)
    scale = 2 if rng.random() < 0.7 else 1
    image = Image.new("RGB", (width * scale, height * scale), paper)
    pen = ImageDraw.Draw(image)
    thick = int(rng.integers(1, 4)) * (scale if rng.random() < 0.7 else 1)
    size = np.array((image.width, image.height))
    second = rgb(rng) if rng.random() < 0.4 else ink
    for _ in range(int(rng.integers(1, 4))):
        _hatching(rng, pen, size, ink, 1 if rng.random() < 0.5 else scale)
    for _ in range(int(rng.integers(6, 22))):
        colour, style = (second if rng.random() < 0.3 else ink), rng.random()
        if style < 0.5:
            points = _bezier(rng.uniform(-0.1, 1.1, 2) * size + rng.normal(0, 0.25, (4, 2)) * size)
            pen.line([tuple(point) for point in points.tolist()], fill=colour, width=thick, joint="curve")
        elif style < 0.75:
            x, y = (rng.uniform(0, 1, 2) * size).tolist()
            a, b = (rng.uniform(0.02, 0.3, 2) * size).tolist()
            start = rng.uniform(0, 360) if rng.random() < 0.4 else 0
            pen.arc((x - a, y - b, x + a, y + b), start, start + (360 if not start else 200), fill=colour, width=thick)
        else:
            outline = _blob(rng, rng.uniform(0, 1, 2) * size, float(rng.uniform(0.03, 0.25)) * size.min())
            fill = paper if rng.random() < 0.7 else second
            pen.polygon([tuple(point) for point in outline.tolist()], fill=fill, outline=ink, width=thick)
    return np.asarray(image.reduce(scale) if scale > 1 else image)


def map_like(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: land and water, regions, roads with edges, contours, names."""
    water, land = ((170, 211, 223), (242, 239, 233)) if rng.random() < 0.5 else (rgb(rng), rgb(rng))
    image = Image.new("RGB", (width, height), land)
    pen = ImageDraw.Draw(image)
    size = np.array((width, height))
    for _ in range(int(rng.integers(4, 13))):
        outline = _blob(rng, rng.uniform(0, 1, 2) * size, float(rng.uniform(0.08, 0.4)) * size.min())
        style = rng.random()
        fill = water if style < 0.35 else (200, 220, 170) if style < 0.6 else rgb(rng) if style < 0.75 else None
        pen.polygon([tuple(p) for p in outline.tolist()], fill=fill, outline=(150, 120, 150), width=1)
        if style > 0.8:  # contours
            middle = outline.mean(0)
            for share in np.linspace(0.3, 0.9, int(rng.integers(3, 8))):
                ring = (middle + share * (outline - middle)).tolist()
                pen.line([tuple(p) for p in [*ring, ring[0]]], fill=(170, 130, 90))
    turn, step = rng.uniform(0, np.pi), rng.uniform(18, 60)
    axis = np.array((np.cos(turn), np.sin(turn)))
    if rng.random() < 0.6:  # streets of a town
        reach = float(np.hypot(*size))
        for direction in (axis, np.array((-axis[1], axis[0]))):
            normal = np.array((-direction[1], direction[0]))
            for offset in np.arange(-reach / 2, reach / 2, step * rng.uniform(0.8, 1.6)):
                if rng.random() < 0.8:
                    middle = size / 2 + normal * offset
                    ends = [tuple((middle + sign * direction * reach).tolist()) for sign in (-1, 1)]
                    _road(pen, ends, 3, (255, 255, 255), (190, 190, 190))
    for _ in range(int(rng.integers(2, 6))):
        points = _bezier(rng.uniform(-0.3, 1.3, (4, 2)) * size)
        colour = ((249, 178, 156), (252, 214, 164), (247, 250, 191), (232, 146, 162))[rng.integers(4)]
        _road(pen, [tuple(p) for p in points.tolist()], int(rng.integers(3, 8)), colour, (130, 110, 100))
    face = fonts.plain_face(rng)
    for _ in range(int(rng.integers(4, 13))):
        x, y = (rng.uniform(0, 1, 2) * size).tolist()
        font = fonts.font(face, int(rng.integers(8, 19)))
        pen.text((x, y), fonts.place(rng), (40, 40, 40), font, anchor="mm", stroke_width=1, stroke_fill=(255,) * 3)
    return np.asarray(image)


def shapes(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: sharp polygons, ellipses and rings in flat colours, on one colour or a gradient."""
    ground = patterns.gradient(rng, height, width) if rng.random() < 0.4 else patterns.flat(rng, height, width)
    image = Image.fromarray(ground)
    pen = ImageDraw.Draw(image)
    size = np.array((width, height))
    for _ in range(int(rng.integers(2, 16))):
        x, y = (rng.uniform(0, 1, 2) * size).tolist()
        r = float(rng.uniform(0.02, 0.35)) * size.min()
        edge = rgb(rng) if rng.random() < 0.3 else None
        thick, style = int(rng.integers(1, 9)), rng.random()
        if style < 0.3:
            pen.rectangle((x - r, y - r * 0.6, x + r, y + r * 0.6), fill=rgb(rng), outline=edge, width=thick)
        elif style < 0.55:
            pen.ellipse((x - r, y - r, x + r, y + r), fill=rgb(rng), outline=edge, width=thick)
        elif style < 0.65:
            pen.ellipse((x - r, y - r, x + r, y + r), outline=rgb(rng), width=thick)
        elif style < 0.8:
            pen.line((x - r, y - r, x + r, y + r * float(rng.uniform(-1, 1))), fill=rgb(rng), width=thick)
        else:
            corners = int(rng.integers(3, 9))
            pen.regular_polygon((x, y, r + 1), corners, rotation=float(rng.uniform(0, 360)), fill=rgb(rng))
    return np.asarray(image)


def _bezier(points: np.ndarray, count: int = 24) -> np.ndarray:
    """(count, 2) on the cubic curve of ``points``, (4, 2)."""
    t = np.linspace(0, 1, count)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return weights @ points


def _blob(rng: Generator, middle: np.ndarray, radius: float) -> np.ndarray:
    """(40, 2): a closed outline around ``middle`` (2,)."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    waves = np.arange(1, 6)
    phases, heights = rng.uniform(0, 2 * np.pi, 5), rng.normal(0, 0.25, 5) / waves
    reach = 1 + (np.cos(angle[:, None] * waves + phases) * heights).sum(1)
    return middle + radius * reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


def _hatching(rng: Generator, pen: Pen, size: np.ndarray, ink: RGB, thick: int) -> None:
    """Parallel strokes, or two layers of them."""
    middle, reach = rng.uniform(0, 1, 2) * size, float(rng.uniform(0.1, 0.4)) * size.min()
    step, turn = float(rng.uniform(3, 10)) * thick, rng.uniform(0, np.pi)
    for angle in (turn, turn + np.pi / 2)[: int(rng.integers(1, 3))]:
        along = np.array((np.cos(angle), np.sin(angle)))
        across = np.array((-along[1], along[0]))
        for offset in np.arange(-reach, reach, step):
            half = along * np.sqrt(max(reach**2 - offset**2, 0.0)) * rng.uniform(0.8, 1.0)
            place = middle + across * offset
            pen.line([tuple((place - half).tolist()), tuple((place + half).tolist())], fill=ink, width=thick)


def _road(pen: Pen, points: list[tuple[float, ...]], width: int, fill: RGB, edge: RGB) -> None:
    pen.line(points, fill=edge, width=width + 2, joint="curve")  # type: ignore[arg-type]  # pairs
    pen.line(points, fill=fill, width=width, joint="curve")  # type: ignore[arg-type]
