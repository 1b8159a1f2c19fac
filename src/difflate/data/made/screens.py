"""What programs show: windows and dialogs, charts, tables."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw
from PIL.ImageDraw import ImageDraw as Pen
from PIL.ImageFont import FreeTypeFont

from difflate.data.made import fonts, patterns
from difflate.data.made.palette import RGB, WHITE, accent, grey, ink_and_paper, ink_on, rgb


class _Theme:
    """Colours and the font of a user interface."""

    def __init__(self, rng: Generator):
        dark = rng.random() < 0.35
        self.panel = grey(rng, 25, 60) if dark else grey(rng, 210)
        self.field = grey(rng, 10, 45) if dark else WHITE
        self.ink = grey(rng, 190) if dark else grey(rng, 0, 70)
        self.edge = grey(rng, 65, 110) if dark else grey(rng, 120, 200)
        self.accent = accent(rng)
        self.bevel = rng.random() < 0.25
        self.radius = 0 if self.bevel else int(rng.choice((0, 2, 4, 8)))
        self.size = int(rng.integers(10, 17))
        self.face = fonts.plain_face(rng)
        self.font = fonts.font(self.face, self.size)

    def box(self, pen: Pen, box: tuple[int, int, int, int], fill: RGB, raised: bool = True) -> None:
        """A button or a field: rounded, or with edges of light and shadow."""
        if not self.bevel:
            pen.rounded_rectangle(box, self.radius, fill=fill, outline=self.edge)
            return
        left, top, right, bottom = box
        pen.rectangle(box, fill=fill)
        light, shadow = ((255, 255, 255), (90, 90, 90)) if raised else ((90, 90, 90), (255, 255, 255))
        pen.line([(left, bottom), (left, top), (right, top)], fill=light)
        pen.line([(right, top), (right, bottom), (left, bottom)], fill=shadow)


def window(rng: Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: a desktop with one or two windows, parts of which may lie outside."""
    style = rng.random()
    if style < 0.4:
        ground = patterns.flat(rng, height, width)
    elif style < 0.7:
        ground = patterns.gradient(rng, height, width)
    else:
        ground = patterns.scene(rng, height, width)
    image = Image.fromarray(ground)
    pen = ImageDraw.Draw(image)
    for _ in range(1 + int(rng.random() < 0.4)):
        wide, tall = (int(rng.integers(side * 2 // 3, side * 2)) for side in (width, height))
        left = int(rng.integers(-wide // 3, width // 5))
        top = int(rng.integers(-tall // 3, height // 5))
        _one_window(rng, image, pen, left, top, left + wide, top + tall)
    return np.asarray(image)


def _one_window(rng: Generator, image: Image.Image, pen: Pen, left: int, top: int, right: int, bottom: int) -> None:
    theme = _Theme(rng)
    size, font = theme.size, theme.font
    if rng.random() < 0.5:  # a hard shadow
        pen.rectangle((left + 3, top + 3, right + 3, bottom + 3), fill=grey(rng, 0, 90))
    pen.rectangle((left, top, right, bottom), fill=theme.panel, outline=theme.edge)
    bar = size * 2
    title = theme.accent if rng.random() < 0.5 else theme.panel
    pen.rectangle((left + 1, top + 1, right - 1, top + bar), fill=title)
    pen.text((left + 8, top + size // 2), fonts.words(rng, 3), fill=ink_on_bar(theme, title), font=font)
    _buttons_of_window(rng, pen, theme, title, right, top, bar)
    y = top + bar
    if rng.random() < 0.6:
        x = left + 8
        for _ in range(int(rng.integers(3, 7))):
            word = fonts.words(rng, 1)
            pen.text((x, y + size // 3), word, fill=theme.ink, font=font)
            x += round(pen.textlength(word, font)) + size
        y += round(size * 1.8)
        pen.line([(left, y), (right, y)], fill=theme.edge)
    x, y, end = left + size, y + size, right - size
    if rng.random() < 0.35:
        y = _list(rng, pen, theme, x, y, x + (end - x) // 3, bottom - size)
        x, y = x + (end - x) // 3 + size, top + bar * 2
    rows = (_label, _field, _button_row, _check, _slider, _progress, _tabs, _icons, _text_box, _label)
    while y < bottom - size * 2 and end > x + size * 3:
        row = rows[rng.integers(len(rows))]
        y = row(rng, image, pen, theme, x, y, end) + size // 2


def ink_on_bar(theme: _Theme, title: RGB) -> RGB:
    """The colour of a title on its bar."""
    return theme.ink if title == theme.panel else WHITE


def _buttons_of_window(rng: Generator, pen: Pen, theme: _Theme, title: RGB, right: int, top: int, bar: int) -> None:
    style, ink = rng.random(), ink_on_bar(theme, title)
    for i in range(3):
        x, y, r = right - bar // 2 - i * bar, top + bar // 2, bar // 5
        if style < 0.4:
            pen.ellipse((x - r, y - r, x + r, y + r), fill=((237, 106, 94), (244, 191, 79), (97, 197, 84))[i])
            continue
        if theme.bevel:
            theme.box(pen, (x - 2 * r, y - 2 * r, x + 2 * r, y + 2 * r), theme.panel)
            ink = theme.ink
        if i == 0:
            pen.line([(x - r, y - r), (x + r, y + r)], fill=ink)
            pen.line([(x - r, y + r), (x + r, y - r)], fill=ink)
        elif i == 1:
            pen.rectangle((x - r, y - r, x + r, y + r), outline=ink)
        else:
            pen.line([(x - r, y + r), (x + r, y + r)], fill=ink)


def _label(rng: Generator, image: Image.Image, pen: Pen, theme: _Theme, x: int, y: int, end: int) -> int:
    text = fonts.words(rng, int(rng.integers(2, 9)))
    pen.text((x, y), text[: max((end - x) * 2 // theme.size, 1)], fill=theme.ink, font=theme.font)
    return y + round(theme.size * 1.3)


def _field(rng: Generator, image: Image.Image, pen: Pen, theme: _Theme, x: int, y: int, end: int) -> int:
    tall = theme.size * 2
    pen.text((x, y + theme.size // 2), fonts.words(rng, 1) + ":", fill=theme.ink, font=theme.font)
    left = x + theme.size * 7
    if left + theme.size < end:
        theme.box(pen, (left, y, end, y + tall), theme.field, raised=False)
        text = str(rng.integers(10000)) if rng.random() < 0.3 else fonts.words(rng, int(rng.integers(1, 5)))
        pen.text((left + 6, y + theme.size // 2), text[: (end - left) * 2 // theme.size - 2], theme.ink, theme.font)
    return y + tall


def _button_row(rng: Generator, image: Image.Image, pen: Pen, theme: _Theme, x: int, y: int, end: int) -> int:
    tall = theme.size * 2
    for i in range(int(rng.integers(1, 4))):
        word = fonts.words(rng, 1)
        wide = round(pen.textlength(word, theme.font)) + theme.size * 2
        if x + wide > end:
            break
        chosen = i == 0 and rng.random() < 0.5
        theme.box(pen, (x, y, x + wide, y + tall), theme.accent if chosen else theme.panel)
        ink = WHITE if chosen else theme.ink
        pen.text((x + theme.size, y + theme.size // 2), word, fill=ink, font=theme.font)
        x += wide + theme.size // 2
    return y + tall


def _check(rng: Generator, image: Image.Image, pen: Pen, theme: _Theme, x: int, y: int, end: int) -> int:
    side, circle = theme.size, rng.random() < 0.4
    on = rng.random() < 0.5
    if circle:
        pen.ellipse((x, y, x + side, y + side), fill=theme.field, outline=theme.edge)
        if on:
            pen.ellipse((x + 3, y + 3, x + side - 3, y + side - 3), fill=theme.accent)
    else:
        theme.box(pen, (x, y, x + side, y + side), theme.accent if on else theme.field, raised=False)
        if on:
            tick = [(x + side // 5, y + side // 2), (x + side * 2 // 5, y + side * 4 // 5), (x + side * 4 // 5, y + 3)]
            pen.line(tick, fill=WHITE, width=2)
    return _label(rng, image, pen, theme, x + side * 2, y, end)


def _slider(rng: Generator, image: Image.Image, pen: Pen, theme: _Theme, x: int, y: int, end: int) -> int:
    middle, r = y + theme.size // 2, theme.size // 2
    at = int(rng.integers(x + r, max(end - r, x + r + 1)))
    pen.rectangle((x, middle - 1, end, middle + 1), fill=theme.edge)
    pen.rectangle((x, middle - 1, at, middle + 1), fill=theme.accent)
    pen.ellipse((at - r, middle - r, at + r, middle + r), fill=theme.panel, outline=theme.edge)
    return y + theme.size


def _progress(rng: Generator, image: Image.Image, pen: Pen, theme: _Theme, x: int, y: int, end: int) -> int:
    at = int(rng.integers(x + 2, end))
    theme.box(pen, (x, y, end, y + theme.size), theme.field, raised=False)
    pen.rectangle((x + 2, y + 2, at, y + theme.size - 2), fill=theme.accent)
    return y + theme.size


def _tabs(rng: Generator, image: Image.Image, pen: Pen, theme: _Theme, x: int, y: int, end: int) -> int:
    tall, chosen, left = theme.size * 2, int(rng.integers(3)), x
    for i in range(3):
        word = fonts.words(rng, 1)
        wide = round(pen.textlength(word, theme.font)) + theme.size
        if left + wide > end:
            break
        pen.rectangle((left, y, left + wide, y + tall), theme.field if i == chosen else theme.panel, theme.edge)
        if i == chosen:
            pen.line([(left, y), (left + wide, y)], fill=theme.accent, width=2)
        pen.text((left + theme.size // 2, y + theme.size // 2), word, fill=theme.ink, font=theme.font)
        left += wide
    pen.line([(x, y + tall), (end, y + tall)], fill=theme.edge)
    return y + tall


def _icons(rng: Generator, image: Image.Image, pen: Pen, theme: _Theme, x: int, y: int, end: int) -> int:
    side = int(rng.choice((16, 24, 32)))
    while x + side < end and rng.random() < 0.9:
        fill, shape = accent(rng), rng.random()
        box = (x + 2, y + 2, x + side - 2, y + side - 2)
        if shape < 0.3:
            pen.ellipse(box, fill=fill, outline=theme.ink)
        elif shape < 0.6:
            pen.rectangle(box, fill=fill)
            pen.rectangle((x + 4, y + 4, x + side - 4, y + side // 2), fill=theme.field)
        elif shape < 0.8:
            pen.polygon([(x + 2, y + side - 2), (x + side - 2, y + side - 2), (x + side // 2, y + 2)], fill=fill)
        else:
            small = rng.integers(0, 2, (8, 4)).astype(bool)
            art = np.where(np.hstack([small, small[:, ::-1]])[..., None], np.uint8(fill), np.uint8(theme.panel))
            image.paste(Image.fromarray(art).resize((side, side), Image.Resampling.NEAREST), (x, y))
        x += side + 6
    return y + side


def _text_box(rng: Generator, image: Image.Image, pen: Pen, theme: _Theme, x: int, y: int, end: int) -> int:
    """A field of several lines, or a picture, with a bar to scroll it."""
    tall = theme.size * int(rng.integers(4, 10))
    theme.box(pen, (x, y, end, y + tall), theme.field, raised=False)
    inner = end - x - theme.size - 2
    if inner < theme.size * 2:
        return y + tall
    if rng.random() < 0.25:
        image.paste(Image.fromarray(patterns.scene(rng, tall - 4, inner)), (x + 2, y + 2))
    else:
        text, step = fonts.running_text(rng, theme.face), round(theme.size * 1.3)
        shown = fonts.lines(rng, text, inner * 17 // (theme.size * 10), (tall - 4) // step)
        for number, line in enumerate(shown):
            pen.text((x + 5, y + 4 + number * step), line, fill=theme.ink, font=theme.font)
    pen.rectangle((end - theme.size, y + 1, end - 1, y + tall - 1), fill=theme.panel)
    start = y + int(rng.integers(2, max(tall // 2, 3)))
    theme.box(pen, (end - theme.size + 1, start, end - 2, start + tall // 3), theme.edge)
    return y + tall


def _list(rng: Generator, pen: Pen, theme: _Theme, x: int, y: int, end: int, bottom: int) -> int:
    if end - x < theme.size * 3 or bottom - y < theme.size * 3:
        return y
    theme.box(pen, (x, y, end, bottom), theme.field, raised=False)
    step, chosen = round(theme.size * 1.5), int(rng.integers(8))
    for i, top in enumerate(range(y + 3, bottom - step, step)):
        if i == chosen:
            pen.rectangle((x + 1, top - 1, end - 1, top + step - 2), fill=theme.accent)
        indent = x + 5 + theme.size * int(rng.integers(2))
        pen.rectangle((indent, top + 3, indent + theme.size // 2, top + 3 + theme.size // 2), outline=theme.ink)
        text = fonts.words(rng, 2)[: max((end - indent) * 2 // theme.size - 3, 1)]
        pen.text((indent + theme.size, top), text, fill=WHITE if i == chosen else theme.ink, font=theme.font)
    return bottom


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
    band = tuple(int(0.88 * p + 0.12 * i) for p, i in zip(paper, ink, strict=True))
    rule = tuple(int(0.6 * p + 0.4 * i) for p, i in zip(paper, ink, strict=True))
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
    rule = tuple((p * 4 + i) // 5 for p, i in zip(paper, ink, strict=True))
    size = int(rng.integers(8, 15))
    font = fonts.font(fonts.plain_face(rng), size)
    scale = 2 if rng.random() < 0.5 and height * width <= 2**17 else 1
    """Of what is drawn of the data; halved, it is smooth at its edges."""
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
    look: tuple[RGB, RGB, tuple[int, ...]],
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
