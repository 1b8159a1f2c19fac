"""Images encoded once, as shards of codec indices for `difflate.data.latents`."""

import json
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
SKIPPED_SHOWN = 10
"""So many images that cannot be read are named."""


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


@dataclass(frozen=True)
class Plan:
    """The shards that are to be written."""

    header: LatentHeader
    names: tuple[str, ...]
    """Of the folders that the images are from."""
    flips: bool
    shard_images: int
    batch: int
    """Images that are encoded at once."""

    @property
    def shards(self) -> list[range]:
        """The numbers of the images of each."""
        count, step = self.header.images, self.shard_images
        return [range(start, min(start + step, count)) for start in range(0, count, step)]

    def batches(self, shard: range) -> list[list[int]]:
        """The numbers of the images of each batch of a shard."""
        return [list(shard[i : i + self.batch]) for i in range(0, len(shard), self.batch)]


def plan_shards(
    items: Sequence[Item],
    space: LatentSpace,
    *,
    sources: Sequence[str | Path] = (),
    image_px: int | None = None,
    flips: bool = True,
    shard_images: int = 8192,
    batch: int = 64,
) -> Plan:
    """What `write_latents` writes. Raises as it, before any image is read but for its size."""
    for key, value in (("shard_images", shard_images), ("batch", batch)):
        if value < 1:
            raise ConfigError(f"{key} (={value}) must be at least 1")
    names = tuple(Path(os.path.abspath(source)).name for source in sources)
    side = common_side(called(sources), items) if image_px is None else image_px
    stride = space.stride_px
    if side < 1 or side % stride:
        raise ConfigError(
            f"images of {side}x{side} px are not whole patches of {stride}x{stride} px, as {space.name} has them; give "
            f"--size, a multiple of {stride}"
        )
    DEFAULT_LIMITS.check_size(side, side)
    header = LatentHeader(space.name, space.fingerprint.hex(), tuple(space.sizes), side, len(items))
    return Plan(header, names, flips, shard_images, batch)


def called(sources: Sequence[str | Path]) -> str:
    """What messages call the images."""
    return ", ".join(map(str, sources[:3])) + (", …" if len(sources) > 3 else "") if sources else "images"


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
    if workers < 0:
        raise ConfigError(f"workers (={workers}) must be at least 0")
    check_shards(out, force)
    plan = plan_shards(
        items, space, sources=sources, image_px=image_px, flips=flips, shard_images=shard_images, batch=batch
    )
    side, lists = plan.header.image_px, list(map(plan.batches, plan.shards))
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
                path = new / shard_name(number)
                written += write_shard(path, plan, space, islice(batches, len(of_shard)), len(plan.shards[number]))
                size += path.stat().st_size
            if not written:
                raise unreadable(called(sources), len(items))
            _swap(new, old, out)
    except OSError as error:
        raise DifflateError(f"{out}: cannot be written ({error.strerror or error}); choose another output") from error
    return Written(written, len(items) - written, len(lists), side, size, time.perf_counter() - began)


def _with_warnings(batches: Iterator[Batch], progress: Callable[[int], object] | None) -> Iterator[Batch]:
    """``batches``, with a warning for the first images that cannot be read."""
    skipped = 0
    for batch in batches:
        for text in batch.skipped[: max(SKIPPED_SHOWN - skipped, 0)]:
            log.warning("skipped: %s", text)
        skipped += len(batch.skipped)
        if progress is not None:
            progress(len(batch.numbers) + batch.dropped)
        yield batch


def write_shard(path: Path, plan: Plan, space: LatentSpace, batches: Iterator[Batch], count: int) -> int:
    """How many of at most ``count`` images a shard has, which is written to ``path``. Raises DifflateError."""
    tensors = _encode_shard(plan, space, batches, count)
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, str(temporary), plan.header.metadata(len(plan.shards), plan.names))
            _in_order(temporary)
    except SafetensorError as error:
        raise DifflateError(f"{path}: cannot be written ({error}); choose another output") from error
    return len(tensors[NUMBERS])


def _encode_shard(plan: Plan, space: LatentSpace, batches: Iterator[Batch], count: int) -> dict[str, np.ndarray]:
    header = plan.header
    side = header.image_px // space.stride_px
    shape = (count, len(header.codebook_sizes), side, side)
    planes = {name: np.empty(shape, header.dtype) for name in (LATENTS, MIRRORED)[: 1 + plan.flips]}
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


def _in_order(path: Path) -> None:
    """Sorts the metadata in a safetensors file, whose order is random, so that equal shards are equal files."""
    with path.open("rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= size
        file.seek(8)
        file.write(text.ljust(size))  # spaces, as the format has them


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
