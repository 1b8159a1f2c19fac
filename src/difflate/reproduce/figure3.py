"""Figure 3 of Scribano et al. (Algorithms 2023, 16, 501): why the order of the codewords matters to a diffusion model.

One is added to every index of an encoded image. With the codewords in k-means' order, which is arbitrary, each patch
turns into an unrelated one; ordered along the principal axis, into a similar one.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from difflate.errors import ConfigError
from difflate.extras import require
from difflate.media.picture import open_image
from difflate.metrics.pairs import decibels
from difflate.reproduce.table1 import IMAGES, find_image, finite

if TYPE_CHECKING:
    from torch import Tensor

CODEC = "opq-32-8-8"
"""The codec of the printed figure."""
PANELS = ("x", "D(E(x))", "D(E(x) + 1), arbitrary order", "D(E(x) + 1), ordered")
SEED = 0


class LatentCodec(Protocol):
    """What a codec has to have beside `difflate.codecs.base.Codec`: its indices, before and after."""

    name: str

    @property
    def codebook_sizes(self) -> Sequence[int]:
        """One per channel of the latent."""
        ...

    def to_latent(self, images: "Tensor", /) -> "Tensor":
        """(B, C, h, w) int64 indices of ``images: (B, 3, H, W)`` uint8."""
        ...

    def from_latent(self, latent: "Tensor", /, height: int, width: int) -> "Tensor":
        """(B, 3, height, width) uint8 pixels of ``latent: (B, C, h, w)`` int64."""
        ...


def add_one(indices: "Tensor", sizes: Sequence[int]) -> "Tensor":
    """``indices: (B, C, h, w)`` int64 plus one; a codebook's last index stays, as its order is no circle."""
    import torch

    last = torch.tensor(sizes).view(1, -1, 1, 1) - 1
    return torch.minimum(indices + 1, last)


def add_one_in_arbitrary_order(indices: "Tensor", sizes: Sequence[int], seed: int = SEED) -> "Tensor":
    """What `add_one` does if each codebook is re-indexed by a pseudo-random permutation: k-means gives any order."""
    import torch

    random = np.random.Generator(np.random.Philox(seed))
    result = torch.empty_like(indices)
    for channel, size in enumerate(sizes):
        shuffled = torch.from_numpy(random.permutation(size))
        moved = add_one(shuffled[indices[:, channel : channel + 1]], [size])
        result[:, channel : channel + 1] = torch.argsort(shuffled)[moved]
    return result


def panels(pixels: np.ndarray, codec: LatentCodec) -> list[np.ndarray]:
    """The four pictures of `PANELS`, each (3, H, W) uint8, for ``pixels: (3, H, W)`` uint8."""
    import torch

    height, width = pixels.shape[1:]
    rgb = np.array(np.broadcast_to(pixels, (3, height, width)))
    indices = codec.to_latent(torch.from_numpy(rgb)[None])
    sizes = list(codec.codebook_sizes)
    latents = (indices, add_one_in_arbitrary_order(indices, sizes), add_one(indices, sizes))
    return [rgb, *(codec.from_latent(latent, height, width)[0].numpy() for latent in latents)]


def figure3(image_folder: str | Path, codec_name: str = CODEC) -> tuple[bytes, dict[str, Any]]:
    """The figure as PNG, a row per image of Table 1 in ``image_folder`` and a column per panel, and its numbers.

    The numbers: ``{"codec": ..., "rows": [{"image": ..., "psnr": [dB of the three decoded panels]}]}``.
    Raises ConfigError if an image or matplotlib is missing, or the codec has no ordered codebooks.
    """
    from difflate.codecs.loading import load

    codec: Any = load(codec_name)
    if not all(hasattr(codec, name) for name in ("to_latent", "from_latent", "codebook_sizes")):
        raise ConfigError(f"codec (={codec_name}) has no codebooks; use one such as {CODEC}")
    rows = [(name, panels(open_image(find_image(image_folder, name)).pixels, codec)) for name in IMAGES]
    numbers = [{"image": name, "psnr": [finite(decibels(row[0], panel)) for panel in row[1:]]} for name, row in rows]
    return _draw([row for _, row in rows], [row["psnr"] for row in numbers]), {"codec": codec_name, "rows": numbers}


def _draw(rows: Sequence[Sequence[np.ndarray]], psnrs: Sequence[Sequence[float | None]]) -> bytes:
    """PNG of ``rows`` of panels with their titles and PSNRs."""
    size = (3 * len(PANELS), 3.3 * len(rows))
    figure = require("matplotlib.figure", "eval").Figure(figsize=size, layout="constrained")
    require("matplotlib.backends.backend_agg", "eval").FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(PANELS), squeeze=False)
    for i, (row, values) in enumerate(zip(rows, psnrs, strict=True)):
        for j, (panel, psnr_db) in enumerate(zip(row, [None, *values], strict=True)):
            axes[i, j].imshow(panel.transpose(1, 2, 0))
            axes[i, j].set_axis_off()
            number = "" if psnr_db is None else f"{psnr_db:.1f} dB"
            axes[i, j].set_title(f"{PANELS[j]}\n{number}" if i == 0 else number, fontsize=10)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()
