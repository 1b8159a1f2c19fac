"""Figure 6 of Rampas, "On Neural Compression using Diffusion Autoencoders" (2024): at which times the loss is.

The thesis draws pie charts of ten ranges of the diffusion's time, of losses in training; here they are bars, of
held-back images after it.
"""

import io
from typing import Any

import torch

from difflate.diffusion import normal
from difflate.evaluate.markdown import cell, markdown_table
from difflate.evaluate.plot import line_style
from difflate.extras import require
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder
from difflate.reproduce.diffae_models import VARIANTS, Scale, held_back, stacked, trained
from difflate.reproduce.diffae_tables import TABLES, protocol
from difflate.seeds import Stream, torch_generator
from difflate.train.diffusion_loss import denoise_noisy, noisy_at

RANGES = 10
_TIMES = 4
"""Of each range, for each image."""


@torch.no_grad()
def losses_by_time(model: DiffusionAutoencoder, images: torch.Tensor, seed: int = 0) -> list[float]:
    """The mean weighted loss in `RANGES` equal ranges of the diffusion's time, of ``images: (B, 3, H, W)`` in [-1, 1].

    Each range is looked at in its middle parts, with noise that follows from ``seed`` and the place of an image.
    """
    x0, z = model.stage.encode(images), model.autoencoder(images).z
    found = []
    for place in range(RANGES):
        of_range = []
        for part in range(_TIMES):
            number = place * _TIMES + part
            t = torch.full((len(images),), (number + 0.5) / (RANGES * _TIMES))
            generators = [
                torch_generator(seed, Stream.DECODER_PICTURE, (image << 16) + number) for image in range(len(images))
            ]
            noisy = noisy_at(model.diffusion, x0, t, normal(x0.shape, generators, x0.device))
            of_range.append(denoise_noisy(model.diffusion, model, x0, noisy, z=z).losses)
        found.append(float(torch.cat(of_range).mean()))
    return found


def figure6(scale: Scale, progress: bool = False) -> tuple[bytes, dict[str, Any]]:
    """The figure as PNG, and its numbers: ``{"rows": [{"model", "losses", "shares"}], "protocol": {...}}``.

    The models are those of Table 1; what is not trained yet is trained first. Raises ConfigError and what trainings
    raise.
    """
    images = stacked(held_back(scale))
    rows = []
    for line in TABLES["diffae-table1"]:
        model = trained(line.model, scale, progress).model
        assert isinstance(model, DiffusionAutoencoder)
        losses = losses_by_time(model, images)
        shares = [loss / sum(losses) for loss in losses]
        rows.append({"model": VARIANTS[line.model].title, "losses": losses, "shares": shares})
    said = {**protocol(scale), "losses": "weighted, of held-back images, in ten ranges of t from 0 (none) to 1 (noise)"}
    return _draw(rows), {"rows": rows, "protocol": said}


def format_shares(result: dict[str, Any]) -> str:
    """``result`` of `figure6` as Markdown: the share of the loss in each range, in per cent."""
    titles = [f"{place / RANGES:.1f}…" for place in range(RANGES)]
    lines = [[row["model"], *(cell(100 * share, 0) for share in row["shares"])] for row in result["rows"]]
    return markdown_table(["% of the loss at t", *titles], lines)


def _draw(rows: list[dict[str, Any]]) -> bytes:
    """PNG of the shares."""
    figure = require("matplotlib.figure", "eval").Figure(figsize=(9, 4.6), layout="constrained")
    require("matplotlib.backends.backend_agg", "eval").FigureCanvasAgg(figure)
    axes = figure.subplots(2, -(-len(rows) // 2), squeeze=False, sharex=True, sharey=True)
    places = [(place + 0.5) / RANGES for place in range(RANGES)]
    for i, (axis, row) in enumerate(zip(axes.flat, rows, strict=False)):
        axis.bar(places, [100 * share for share in row["shares"]], 0.09, color=line_style(i)["color"])
        axis.set_title(row["model"], fontsize=10)
        axis.grid(alpha=0.3, axis="y")
    for axis in axes[-1]:
        axis.set_xlabel("t")
    for axis in axes[:, 0]:
        axis.set_ylabel("% of the loss")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90)
    return file.getvalue()
