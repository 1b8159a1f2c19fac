"""The model card that a training writes: data, command, results."""

from collections.abc import Callable, Sequence
from pathlib import Path

from difflate.nn.unet import parameters
from difflate.store.folders import FolderModel
from difflate.train.checkpoint import Progress

_ROWS = 12


def card_of(
    model: FolderModel, images: Sequence[str], trained_on: int, held_back: int, command: str
) -> Callable[[Progress], str]:
    """A function from what the training knows of itself to the card of ``model``."""
    count = parameters(model)

    def card(progress: Progress) -> str:
        names = ", ".join(Path(name).name for name in images)
        return f"""---
license: apache-2.0
library_name: difflate
tags: [{model.kind}]
---
# A {model.kind} model

{count / 1e6:.1f} million parameters.

- Data: {trained_on} images of {names}; {held_back} more were held back for the results below.
  Unreadable images that were skipped: {progress.skipped}.
- Training: {progress.step} steps in {progress.seconds / 60:.0f} minutes.
- Command: `{command}`

Losses on the held-back images, with averaged weights:

{_table(progress)}

Use: `{model.usage}`
"""

    return card


def _table(progress: Progress) -> str:
    rows = progress.validations
    if not rows:
        return "(none were held back)"
    chosen = sorted({round(i * (len(rows) - 1) / (_ROWS - 1)) for i in range(_ROWS)}) if len(rows) > _ROWS else None
    shown = rows if chosen is None else [rows[i] for i in chosen]
    keys = list(shown[-1][1])
    lines = ["| step | " + " | ".join(keys) + " |", "|--:|" + "--:|" * len(keys)]
    lines += [f"| {step} | " + " | ".join(f"{values[key]:.4f}" for key in keys) + " |" for step, values in shown]
    return "\n".join(lines)
