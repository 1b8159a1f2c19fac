"""Recipe `vq`: codebooks and context model of the model-based codec, from folders of images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from difflate.data.images import list_images
from difflate.errors import ConfigError, ImageError, OutputExists
from difflate.media.alpha import over_white
from difflate.media.picture import open_image, to_tensor
from difflate.models.codebooks import CodebookModel
from difflate.nn.colour import rgb_to_ycrcb
from difflate.nn.patches import to_patches
from difflate.quantize import Quantizer
from difflate.store.config import CONFIG
from difflate.train.config import plain_settings, write_settings
from difflate.train.context import SITES_PER_STEP, train_context_shown
from difflate.train.lock import lock
from difflate.train.quantizers import METHODS, train_quantizer
from difflate.train.recipe import Recipe

log = logging.getLogger(__name__)
CHANNELS = ("Y", "Cr", "Cb")


@dataclass(frozen=True)
class VqTraining:
    """Settings of the recipe `vq`."""

    out: str
    """Folder that the model is written to."""
    images: list[str] = field(default_factory=list)
    """Folders or files of images for the codebooks. The paper: the 18 images of McM."""
    context_images: list[str] = field(default_factory=list)
    """Folders or files of images for the context model; default: those of the codebooks."""
    method: str = "opq"
    """vq, pq, opq, eopq (opq with a better start) or rq."""
    bits: list[int] = field(default_factory=lambda: [32, 8, 8])
    """Bits of a patch of Y, Cr and Cb."""
    patch_px: int = 8
    """Side of a patch."""
    ordered: bool = True
    """Re-index each codebook along its principal axis (3.2.1)."""
    vertical_flips: bool = True
    """Train the codebooks on each image's vertical flip too (4.1)."""
    iterations: int = 25
    """Iterations of k-means."""
    points_per_centroid: int | None = 256
    """Patches per codeword that k-means draws from all; 256 is FAISS's own default. null: all of them, in a fifth as
    many further iterations after those on a million."""
    max_patches: int = 10_000_000
    """Patches of each channel that are kept, drawn at random from all windows of all images."""
    context_views: int = 4
    """Times that each image is coded for the context model, shifted and mirrored at random."""
    context_steps: int = 2000
    """Steps of the context model's training."""
    context_minutes: float | None = None
    """Ends the context model's training after so many minutes, its schedule shortened to fit."""
    seed: int = 0
    force: bool = False
    """Write over a model that is in `out` already."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method (={self.method}) must be one of {', '.join(METHODS)}")
        if len(self.bits) != 3:
            raise ConfigError(f"bits (={self.bits}) must be three numbers, for Y, Cr and Cb")
        if not 1 <= self.patch_px <= 64:
            raise ConfigError(f"patch_px (={self.patch_px}) must be from 1 to 64")
        for key in ("iterations", "max_patches", "points_per_centroid", "context_views", "context_steps"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(f"{key} (={value}) must be at least 1")
        if not self.images:
            raise ConfigError("images is empty; name folders of images with images=FOLDER")

    @property
    def name(self) -> str:
        """The name as the paper writes it, in small letters: ``opq-32-8-8``; with the patch's side unless it is 8."""
        base = "-".join([self.method, *map(str, self.bits)])
        return base if self.patch_px == 8 else f"{base}-p{self.patch_px}"


def _train(settings: VqTraining, command: str, progress: bool) -> Path:
    out = Path(settings.out)
    with lock(out):
        _train_alone(settings, out, command, progress)
    return out


def _train_alone(settings: VqTraining, out: Path, command: str, progress: bool) -> None:
    if (out / CONFIG).exists() and not settings.force:
        raise OutputExists(f"{out}: holds a model already; choose another folder or set force=true")
    paths = list_images(Path(p) for p in settings.images)
    context_paths = list_images(Path(p) for p in settings.context_images) or paths
    quantizers = train_quantizers(settings, paths, progress)
    grids = _grids(settings, quantizers, context_paths, progress)
    plane_bits = [size.bit_length() - 1 for q in quantizers for size in q.sizes]
    context = train_context_shown(
        grids, plane_bits, step_count=settings.context_steps, progress=progress, seed=settings.seed,
        max_minutes=settings.context_minutes, sites_per_step=SITES_PER_STEP,
    )  # fmt: skip
    model = CodebookModel(
        settings.name, settings.patch_px, quantizers, neutral_indices(quantizers, settings.patch_px), context
    )
    model.save(out, settings.method, _card(settings, command, len(paths), len(context_paths)))
    write_settings(plain_settings(settings, "vq"), out)


def train_quantizers(settings: VqTraining, paths: Sequence[Path], progress: bool) -> list[Quantizer]:
    """The quantizers for Y, Cr and Cb, each trained by itself (3.1)."""
    quantizers = []
    with tqdm(total=3, desc="codebooks", disable=not progress, unit="channel") as bar:
        for channel, bits in enumerate(settings.bits):
            bar.set_postfix_str(f"{CHANNELS[channel]}: reading images")
            patches = windows(paths, channel, settings)
            log.info("%s: %d patches of %d images", CHANNELS[channel], len(patches), len(paths))

            def report(what: str, channel: int = channel) -> None:
                bar.set_postfix_str(f"{CHANNELS[channel]}: {what}")
                log.info("%s: %s", CHANNELS[channel], what)

            quantizers.append(
                train_quantizer(
                    settings.method,
                    bits,
                    patches,
                    iterations=settings.iterations,
                    seed=settings.seed,
                    ordered=settings.ordered,
                    report=report,
                    points=settings.points_per_centroid,
                )
            )
            bar.update()
    return quantizers


def _channels(path: Path) -> torch.Tensor:
    """(3, H, W) float32 Y, Cr, Cb of an image file, a transparent one laid over white."""
    pixels = to_tensor(over_white(open_image(path)))
    return rgb_to_ycrcb(pixels.expand(3, -1, -1)[None])[0]


def _for_each_image(paths: Sequence[Path], use: Callable[[torch.Tensor], None], what: str) -> None:
    skipped = 0
    for path in paths:
        try:
            channels = _channels(path)
        except ImageError as error:
            log.warning("skipped: %s", error)
            skipped += 1
            continue
        use(channels)
    if skipped == len(paths):
        raise ConfigError(f"none of the {len(paths)} {what} can be read")
    if skipped:
        log.warning("%d of %d %s could not be read and were skipped", skipped, len(paths), what)


def windows(paths: Sequence[Path], channel: int, settings: VqTraining) -> np.ndarray:
    """(N, s*s) float32: every s x s window of a channel of every image, or a random share of them if too many (4.1)."""
    size, rng = settings.patch_px, np.random.default_rng(settings.seed)
    flips = 2 if settings.vertical_flips else 1
    per_image = max(1, settings.max_patches // (len(paths) * flips))
    parts: list[np.ndarray] = []

    def use(channels: torch.Tensor) -> None:
        plane = channels[channel].numpy()
        if min(plane.shape) < size:
            return
        for view in (plane, plane[::-1])[:flips]:
            patches = np.lib.stride_tricks.sliding_window_view(view, (size, size))
            rows, columns = patches.shape[:2]
            if rows * columns <= per_image:
                parts.append(patches.reshape(-1, size * size))
            else:
                chosen = rng.choice(rows * columns, per_image, replace=False)
                parts.append(patches[chosen // columns, chosen % columns].reshape(-1, size * size))

    _for_each_image(paths, use, "images")
    if not parts:
        raise ConfigError(f"no image is as large as a patch of {size}x{size} px")
    return np.concatenate(parts)


def _grids(
    settings: VqTraining, quantizers: Sequence[Quantizer], paths: Sequence[Path], progress: bool
) -> list[np.ndarray]:
    """Index grids (C, h, w) uint16 of each image, seen `context_views` times, shifted and mirrored at random."""
    size, rng = settings.patch_px, np.random.default_rng(settings.seed)
    grids: list[np.ndarray] = []
    bar = tqdm(total=len(paths), desc="indices", disable=not progress, unit="image")

    def use(channels: torch.Tensor) -> None:
        for _ in range(settings.context_views):
            top, left = rng.integers(0, size, 2)
            view = channels[:, top:, left:]
            if rng.random() < 0.5:
                view = view.flip(2)
            grids.extend(_grid(view, quantizers, size))
        bar.update()

    with bar:
        _for_each_image(paths, use, "images")
    if not grids:
        raise ConfigError(f"no image for the context model is as large as a patch of {size}x{size} px")
    return grids


def _grid(channels: torch.Tensor, quantizers: Sequence[Quantizer], size: int) -> list[np.ndarray]:
    rows, columns = channels.shape[1] // size, channels.shape[2] // size
    if not rows * columns:
        return []
    whole = channels[:, : rows * size, : columns * size]
    codes = [q.encode(to_patches(whole[c : c + 1], size)) for c, q in enumerate(quantizers)]
    return [torch.cat(codes, dim=1).T.reshape(-1, rows, columns).numpy().astype(np.uint16)]


def neutral_indices(quantizers: Sequence[Quantizer], patch_px: int) -> list[int]:
    """The index, for each plane of Cr and Cb, of a patch without colour."""
    flat = torch.full((1, patch_px**2), 128.0, dtype=torch.float32)
    return [int(v) for q in quantizers[1:] for v in q.encode(flat)[0]]


def _card(settings: VqTraining, command: str, images: int, context_images: int) -> str:
    size, points = settings.patch_px, settings.points_per_centroid
    drawn = "all of them" if points is None else f"{points} of them per codeword"
    return f"""---
license: apache-2.0
library_name: difflate
tags: [image-compression, vector-quantization]
---
# {settings.name}

Model-based image codec of Scribano et al. (Algorithms 2023, 16, 501): {settings.method.upper()} with
{settings.bits[0]}, {settings.bits[1]} and {settings.bits[2]} bits for each patch of Y, Cr and Cb, {size}x{size} px.
Codewords are in the order of {"their principal axis" if settings.ordered else "k-means"}.

- Codebooks: {images} images{" and their vertical flips" if settings.vertical_flips else ""}, at most
  {settings.max_patches} windows a channel; {settings.iterations} iterations of k-means on {drawn};
  seed {settings.seed}.
- Context model for the lossless coding of the indices: {context_images} images, at most {settings.context_steps} steps.
- Command: `{command}`

Use: `difflate compress photo.png --codec {settings.name}` (bundled) or `--codec FOLDER`.
"""


RECIPE = Recipe("vq", VqTraining, _train)
