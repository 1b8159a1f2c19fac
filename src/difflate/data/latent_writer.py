"""Images encoded once, as shards of codec indices for `difflate.data.latents`."""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from difflate.data.crops import Batch, Crops
from difflate.data.items import Item, common_side, unreadable
from difflate.data.latents import LATENTS, MIRRORED, NUMBERS, LatentHeader, shard_files, shard_name
from difflate.data.loader import batches_of
from difflate.errors import ConfigError, DifflateError
from difflate.files import atomic_path, check_output
from difflate.limits import DEFAULT_LIMITS
from difflate.models.latent_space import LatentSpace, latent_space

log = logging.getLogger(__name__)

_TEMPORARY = ".difflate-latents-"
_SKIPPED_SHOWN = 10


@dataclass(frozen=True)
class Written:
    """What `write_latents` has done."""

    images: int
    skipped: int
    """Images that could not be read."""
    shards: int
    image_px: int
    bytes: int
    """Size of all shards together."""
    seconds: float


def check_shards(out: str | Path, force: bool) -> None:
    """Raises what stands against writing shards in the folder ``out``: as `difflate.files.check_output`."""
    for path in shard_files(Path(out)) or [Path(out, shard_name(0))]:
        check_output(path, force)


def write_latents(
    items: Sequence[Item],
    codec: Any,
    out: str | Path,
    *,
    sources: Sequence[str | Path] = (),
    image_px: int | None = None,
    flips: bool = True,
    shard_images: int = 8192,
    batch: int = 64,
    workers: int = 1,
    force: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Written:
    """Writes the indices of ``items`` and, with ``flips``, of the mirrored images, as shards in the folder ``out``.

    ``codec``: a loaded codec with a finite latent space, or a `LatentSpace`. ``sources``: where the items are from, of
    which the names are kept. ``image_px``: images are scaled so that their short side has as many pixels, and the
    middle is taken; None: they must be squares of one size. ``batch`` images are encoded at once, on the space's
    device, and ``workers`` processes read ahead. ``progress`` is told of how many further images are read. Shards that
    are there are replaced when all is done, and only with ``force``.

    Images that cannot be read are left out. Raises ConfigError, OutputExists, ImageError if none can be read,
    LimitExceeded, DifflateError if ``out`` cannot be written.
    """
    began, out = time.perf_counter(), Path(out)
    space = latent_space(codec)
    for key, value, least in (("shard_images", shard_images, 1), ("batch", batch, 1), ("workers", workers, 0)):
        if value < least:
            raise ConfigError(f"{key} (={value}) must be at least {least}")
    check_shards(out, force)
    names = [Path(os.path.abspath(source)).name for source in sources]
    called = ", ".join(map(str, sources[:3])) + (", …" if len(sources) > 3 else "") if sources else "images"
    side = common_side(called, items) if image_px is None else image_px
    stride = space.stride_px
    if side < 1 or side % stride:
        raise ConfigError(
            f"images of {side}x{side} px are not whole patches of {stride}x{stride} px, as {space.name} has them; give "
            f"--size, a multiple of {stride}"
        )
    DEFAULT_LIMITS.check_size(side, side)
    starts = range(0, len(items), shard_images)
    header = LatentHeader(space.name, space.fingerprint.hex(), tuple(space.sizes), side, len(items))
    metadata = header.metadata(len(starts), names)
    groups = [range(start, min(start + shard_images, len(items))) for start in starts]
    lists = [[list(group[i : i + batch]) for i in range(0, len(group), batch)] for group in groups]
    crops = Crops(items, side, short_side=side, augment=False)
    batches = batches_of(crops, (numbers for of_shard in lists for numbers in of_shard), workers, space.device)
    batches = _with_warnings(batches, progress)
    written = size = 0
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=_TEMPORARY) as name:
            new, old = Path(name, "new"), Path(name, "old")
            new.mkdir()
            old.mkdir()
            for number, of_shard in enumerate(lists):
                tensors = _encode_shard(space, header, islice(batches, len(of_shard)), len(groups[number]), flips)
                with atomic_path(new / shard_name(number)) as temporary:
                    save_file(tensors, str(temporary), metadata)
                written += len(tensors[NUMBERS])
                size += (new / shard_name(number)).stat().st_size
            if not written:
                raise unreadable(called, len(items))
            _swap(new, old, out)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DifflateError(f"{out}: cannot be written ({reason}); choose another output") from error
    return Written(written, len(items) - written, len(lists), side, size, time.perf_counter() - began)


def _with_warnings(batches: Iterator[Batch], progress: Callable[[int], object] | None) -> Iterator[Batch]:
    """``batches``, with a warning for the first images that cannot be read."""
    skipped = 0
    for batch in batches:
        for text in batch.skipped[: max(_SKIPPED_SHOWN - skipped, 0)]:
            log.warning("skipped: %s", text)
        skipped += len(batch.skipped)
        if progress is not None:
            progress(len(batch.numbers) + batch.dropped)
        yield batch


def _encode_shard(
    space: LatentSpace, header: LatentHeader, batches: Iterator[Batch], count: int, flips: bool
) -> dict[str, np.ndarray]:
    """The tensors of a shard of at most ``count`` images."""
    side = header.image_px // space.stride_px
    shape = (count, len(header.codebook_sizes), side, side)
    planes = {name: np.empty(shape, header.dtype) for name in (LATENTS, MIRRORED)[: 1 + flips]}
    numbers, used = np.empty(count, np.int64), 0
    for batch in batches:
        if not len(batch.numbers):
            continue
        part = slice(used, used + len(batch.numbers))
        for name, array in planes.items():
            pixels = batch.pixels.flip(3) if name == MIRRORED else batch.pixels
            array[part] = space.to_latent(pixels).cpu().numpy()
        numbers[part] = batch.numbers.numpy()
        used = part.stop
    return {name: array[:used] for name, array in {**planes, NUMBERS: numbers}.items()}


def _swap(new: Path, old: Path, out: Path) -> None:
    """Puts the shards in ``new`` into ``out``, and what was there into ``old``. If that fails, all is as it was."""
    placed: list[Path] = []
    try:
        for path in shard_files(out):
            path.replace(old / path.name)
        for path in shard_files(new):
            placed.append(out / path.name)
            path.replace(placed[-1])
    except BaseException:  # Ctrl-C too
        for path in placed:
            path.unlink(missing_ok=True)
        for path in shard_files(old):
            path.replace(out / path.name)
        raise
