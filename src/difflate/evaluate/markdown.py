"""Tables as text."""

import math
from collections.abc import Iterable, Sequence


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table that ends with a line break; its first column is set to the left, the others to the right."""
    lines = [f"| {' | '.join(cells)} |\n" for cells in (titles, *rows)]
    lines.insert(1, "|:--|" + "--:|" * (len(titles) - 1) + "\n")
    return "".join(lines)


def cell(value: float | None, places: int) -> str:
    """The number with that many decimals; – for None."""
    return "–" if value is None else "∞" if value == math.inf else f"{value:.{places}f}"
