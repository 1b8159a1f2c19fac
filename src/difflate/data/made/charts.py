"""Tables and charts."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw
from PIL.ImageDraw import ImageDraw as Pen
from PIL.ImageFont import FreeTypeFont

from difflate.data.made import fonts
from difflate.data.made.palette import RGB, WHITE, accent, between, grey, ink_and_paper, ink_on, rgb


def table(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: cells of numbers and words, with lines between them or with stripes."""
    ink, paper = ink_and_paper(rng)
    size = int(rng.integers(9, 18))
    font = fonts.font(fonts.plain_face(rng), size)
    image = Image.new("RGB", (width, height), paper)
    pen = ImageDraw.Draw(image)
    step = round(size * rng.uniform(1.3, 2.0))
    edges = -int(rng.integers(size)) + np.cumsum(rng.integers(size * 3, size * 11, max(width // (size * 3), 1) + 1))
    numeric = rng.random(len(edges)) < 0.6
    lines, striped = rng.random(), rng.random() < 0.4
    band, rule = between(paper, ink, 0.12), between(paper, ink, 0.4)
    head = accent(rng) if rng.random() < 0.5 else rule
    for row, y in enumerate(range(-int(rng.integers(step)), height, step)):
        if row == 1:
            pen.rectangle((0, y, width, y + step), fill=head)
        elif striped and row % 2:
            pen.rectangle((0, y, width, y + step), fill=band)
        colour = ink_on(rng, head) if row == 1 and rng.random() < 0.5 else ink
        for left, right, number in zip(edges[:-1].tolist(), edges[1:].tolist(), numeric.tolist(), strict=False):
            room = max((right - left) * 17 // (size * 10) - 1, 1)
            if number and row != 1:
                text = _number(rng)[:room]
                pen.text((right - 4, y + step // 2), text, fill=colour, font=font, anchor="rm")
            else:
                text = fonts.words(rng, 2)[:room]
                pen.text((left + 4, y + step // 2), text, fill=colour, font=font, anchor="lm")
            if right > width:
                break
        if lines < 0.7:
            pen.line([(0, y), (width, y)], fill=rule)
    if lines < 0.4:
        for edge in edges.tolist():
            pen.line([(edge, 0), (edge, height)], fill=rule)
    return np.asarray(image)


def _number(rng: Generator) -> str:
    style = int(rng.integers(4))
    value = float(rng.uniform(-1, 10)) * 10.0 ** int(rng.integers(4))
    return (f"{value:.2f}", f"{value:.0f}", f"{value / 10:.1f} %", f"{value:,.1f}")[style]


def chart(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: bars, lines, points or a pie, with axes, labels, a grid and a legend."""
    dark = rng.random() < 0.15
    paper, ink = (grey(rng, 0, 45), grey(rng, 190)) if dark else (grey(rng, 235), grey(rng, 0, 80))
    rule = between(paper, ink, 0.2)
    size = int(rng.integers(8, 15))
    font = fonts.font(fonts.plain_face(rng), size)
    scale = 2 if rng.random() < 0.5 else 1  # of what is drawn of the data; halved, it is smooth at its edges
    style = int(rng.integers(4))
    left, top, right, bottom = size * 4, size * 2, width - size, height - size * 3
    data = Image.new("RGB", (max(right - left, 1) * scale, max(bottom - top, 1) * scale), paper)
    colours = [accent(rng) if rng.random() < 0.8 else rgb(rng) for _ in range(6)]
    ticks = np.linspace(0, 1, int(rng.integers(3, 8)))
    pen = ImageDraw.Draw(data)
    if style != 3 and rng.random() < 0.7:
        for tick in ticks:
            y = round(tick * (data.height - 1))
            pen.line([(0, y), (data.width, y)], fill=rule, width=scale)
            if style and rng.random() < 0.9:
                x = round(tick * (data.width - 1))
                pen.line([(x, 0), (x, data.height)], fill=rule, width=scale)
    (_bars, _lines, _points, _pie)[style](rng, pen, data.width, data.height, colours, ink, scale)
    if scale > 1:
        data = data.reduce(scale)
    image = Image.new("RGB", (width, height), paper)
    image.paste(data, (left, top))
    pen = ImageDraw.Draw(image)
    pen.text((width // 2, size), fonts.words(rng, 4), fill=ink, font=font, anchor="mm")
    if style != 3:
        pen.line([(left, top), (left, bottom), (right, bottom)], fill=ink)
        unit = 10.0 ** int(rng.integers(-1, 4))
        for tick in ticks:
            y, x = round(top + (1 - tick) * (bottom - top)), round(left + tick * (right - left))
            pen.line([(left - 4, y), (left, y)], fill=ink)
            pen.text((left - 6, y), f"{tick * unit:.3g}", fill=ink, font=font, anchor="rm")
            pen.line([(x, bottom), (x, bottom + 4)], fill=ink)
            pen.text((x, bottom + 5), f"{tick * 10:.2g}", fill=ink, font=font, anchor="mt")
        pen.text(((left + right) // 2, height - 2), fonts.words(rng, 2), fill=ink, font=font, anchor="mb")
    if rng.random() < 0.6:
        _legend(rng, pen, right - size * 8, top + 4, font, size, colours[: int(rng.integers(2, 5))], (paper, ink, rule))
    return np.asarray(image)


def _legend(
    rng: Generator, pen: Pen, left: int, top: int, font: FreeTypeFont, size: int, colours: list[RGB],
    look: tuple[RGB, RGB, RGB],
) -> None:  # fmt: skip
    paper, ink, rule = look
    step = round(size * 1.4)
    pen.rectangle((left, top, left + size * 8, top + step * len(colours) + 4), fill=paper, outline=rule)
    for i, colour in enumerate(colours):
        y = top + 3 + i * step
        pen.rectangle((left + 4, y + 2, left + 4 + size, y + size - 2), fill=colour)
        pen.text((left + size + 10, y), fonts.words(rng, 1), fill=ink, font=font)


def _bars(rng: Generator, pen: Pen, width: int, height: int, colours: list[RGB], ink: RGB, scale: int) -> None:
    count, groups = int(rng.integers(4, 16)), int(rng.integers(1, 4))
    step, outlined = width / count, rng.random() < 0.3
    for i in range(count):
        for group in range(groups):
            x = round(step * (i + 0.15 + 0.7 * group / groups))
            end = max(round(step * (i + 0.15 + 0.7 * (group + 1) / groups)) - 1, x)
            y = round(height * rng.uniform(0.05, 0.95))
            pen.rectangle((x, y, end, height), fill=colours[group], outline=ink if outlined else None)


def _lines(rng: Generator, pen: Pen, width: int, height: int, colours: list[RGB], ink: RGB, scale: int) -> None:
    count = int(rng.integers(8, 80))
    x = np.linspace(0, width, count)
    thick = int(rng.integers(1, 4)) * scale
    for colour in colours[: int(rng.integers(1, 6))]:
        y = rng.uniform(0.2, 0.8) + np.cumsum(rng.normal(0, 0.5 / np.sqrt(count), count))
        points = list(zip(x.tolist(), (height * y.clip(0, 1)).tolist(), strict=True))
        pen.line(points, fill=colour, width=thick, joint="curve")
        if count < 20:
            for a, b in points:
                pen.ellipse((a - 2 * thick, b - 2 * thick, a + 2 * thick, b + 2 * thick), fill=colour)


def _points(rng: Generator, pen: Pen, width: int, height: int, colours: list[RGB], ink: RGB, scale: int) -> None:
    r = int(rng.integers(1, 5)) * scale
    for colour in colours[: int(rng.integers(1, 4))]:
        spots = rng.normal(rng.uniform(0.2, 0.8, 2), 0.15, (int(rng.integers(20, 90)), 2)) * (width, height)
        square = rng.random() < 0.3
        for a, b in spots.tolist():
            (pen.rectangle if square else pen.ellipse)((a - r, b - r, a + r, b + r), fill=colour)


def _pie(rng: Generator, pen: Pen, width: int, height: int, colours: list[RGB], ink: RGB, scale: int) -> None:
    r = min(width, height) // 2 - 2
    ends = np.cumsum(rng.dirichlet(np.full(len(colours), 2.0))) * 360
    box = (width // 2 - r, height // 2 - r, width // 2 + r, height // 2 + r)
    for start, end, colour in zip([0.0, *ends[:-1].tolist()], ends.tolist(), colours, strict=True):
        if r > 0:
            pen.pieslice(box, start, end, fill=colour, outline=WHITE, width=scale)
