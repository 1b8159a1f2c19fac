"""Rate-distortion plots, drawn without a display."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from difflate.extras import require

# Okabe and Ito's eight, told apart with any kind of colour vision, in an order that keeps neighbours far apart, and
# four of Paul Tol's "muted"
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999",
    "#882255", "#332288", "#117733", "#AA4499", "#7A4B1E", "#999933",
)  # fmt: skip
_MARKERS = "osD^vP*X"
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def line_style(i: int) -> dict[str, Any]:
    """Colour, marker and line of the codec at place ``i``: no two of the first 96 share both colour and marker."""
    turn = i // len(_COLOURS)
    return {
        "color": _COLOURS[i % len(_COLOURS)],
        "marker": _MARKERS[(i + turn) % len(_MARKERS)],
        "linestyle": _LINES[turn % len(_LINES)],
    }


def quality_plots(
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], measures: Mapping[str, str]
) -> bytes:
    """PNG with one plot per measure of ``measures`` (key to axis label), all against bits per pixel.

    curves: for each codec and measure its (bpp, value) points by rising bpp; one point is drawn as a marker, several
    as a line. The legend has the codecs in the order of ``curves``. Raises ConfigError if matplotlib is not installed.
    """
    # the Figure class alone: pyplot would keep global state and look for a display
    figure = require("matplotlib.figure", "eval").Figure(figsize=(5 * len(measures), 4.6), layout="constrained")
    require("matplotlib.backends.backend_agg", "eval").FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(measures), squeeze=False)[0]
    for axis, (measure, label) in zip(axes, measures.items(), strict=True):
        for i, (codec, values) in enumerate(curves.items()):
            points = values[measure]
            alone = len(points) < 2
            style = line_style(i) | ({"linestyle": "none"} if alone else {})
            axis.plot(
                [bpp for bpp, _ in points],
                [value for _, value in points],
                label=codec,
                markersize=9 if alone else 4,
                **style,
            )
        axis.set_xlabel("bits per pixel")
        axis.set_ylabel(label)
        axis.set_xlim(left=0)
        axis.grid(alpha=0.3)
    if curves:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 8), frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return _with_palette(file)


def _with_palette(file: io.BytesIO) -> bytes:
    """The PNG in ``file`` with 128 colours, which look the same in plots of lines, and in a quarter of the bytes."""
    picture = Image.open(file).convert("RGB").quantize(128, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    smaller = io.BytesIO()
    picture.save(smaller, "PNG", optimize=True)
    return smaller.getvalue()
