"""What programs show: windows and dialogs."""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw
from PIL.ImageDraw import ImageDraw as Pen

from difflate.data.made import fonts, patterns
from difflate.data.made.palette import RGB, WHITE, accent, choose, grey


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
    pen.text((left + 8, top + size // 2), fonts.words(rng, 3), fill=_ink_on_bar(theme, title), font=font)
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


def _ink_on_bar(theme: _Theme, title: RGB) -> RGB:
    """The colour of a title on its bar."""
    return theme.ink if title == theme.panel else WHITE


def _buttons_of_window(rng: Generator, pen: Pen, theme: _Theme, title: RGB, right: int, top: int, bar: int) -> None:
    style, ink = rng.random(), _ink_on_bar(theme, title)
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
            art = choose(np.hstack([small, small[:, ::-1]]), theme.panel, fill)
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
