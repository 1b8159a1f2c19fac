"""Crops of images for training: any of them can be made from its number alone.

Training shows the images n = 0, 1, 2 … What n is, which image, crop and flip, follows from the seed and n. So neither
the number of workers or processes nor an interruption changes what is shown.
"""

import functools
import logging
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from difflate.data.items import Item
from difflate.errors import ConfigError, DifflateError, FormatError, ImageError
from difflate.media.alpha import over_white
from difflate.media.picture import Picture, open_image
from difflate.seeds import Stream, numpy_generator

_TRIES = 100
"""So many unreadable images in a row are given up: what is read is something else than images."""

log = logging.getLogger(__name__)


class Note(NamedTuple):
    """What was lost of an image when it was opened."""

    name: str
    """The image's file, and its place in it."""
    text: str
    """The note, as `difflate.media.picture.Picture.notes` has it."""


@dataclass(frozen=True)
class Batch:
    """Crops, or latents, with their numbers, which seed all randomness that belongs to them."""

    pixels: Tensor
    """(B, 3, H, W) uint8 of crops, with the time before H of clips; of latents (B, C, …) uint8 or int32 indices."""
    numbers: Tensor
    """(B,) int64."""
    labels: Tensor
    """(B,) int64, the class of each image; -1: none."""
    skipped: list[str]
    """What was said of images that could not be read."""
    dropped: int = 0
    """Samples that are missing: no other could be taken instead."""
    notes: tuple[Note, ...] = ()
    """What was lost of images when they were opened."""
    captions: tuple[str, ...] = ()
    """The text of each image, empty where there is none or `Crops` read none; (): none of all."""

    def pin_memory(self) -> "Batch":
        """The batch in pinned memory, for DataLoader: copies from it do not hold up the GPU."""
        return replace(self, pixels=self.pixels.pin_memory())

    def images(self, device: torch.device) -> Tensor:
        """(B, 3, …) float32 in [-1, 1] on ``device``; of crops only."""
        return self.pixels.to(device, non_blocking=True).float() / 127.5 - 1


class Sample(NamedTuple):
    """What a network is shown of one image."""

    pixels: Tensor
    """(3, size, size) uint8 of a crop; of a latent (C, …) indices. Without a value: nothing could be read."""
    number: int
    label: int = -1
    """The class of the image; -1: none."""
    skipped: Sequence[str] = ()
    """What was said of images that could not be read."""
    notes: tuple[Note, ...] = ()
    """What was lost of the image when it was opened."""
    caption: str = ""
    """The text of the image; empty: there is none, or nobody has asked for it."""


class Samples(Dataset[Sample], ABC):
    """What is trained on: sample n = 0, 1, 2 … follows from the seed and n alone."""

    @functools.cached_property
    def noted(self) -> set[str]:
        """The kinds of notes that `log_notes` has logged of these."""
        return set()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, number: int) -> Sample:
        """Sample ``number``. Raises FormatError if it cannot be read."""

    @abstractmethod
    def identity(self) -> str:
        """What tells these samples from others, in one line: a training goes on with the same only."""

    def __getitem__(self, number: int) -> Sample:
        """Sample ``number``; with pixels (0,) if it cannot be read, as a worker's error could not be told well."""
        try:
            return self.read(number)
        except FormatError as error:
            return Sample(torch.empty(0, dtype=torch.uint8), number, skipped=str(error).splitlines())


class Crops(Samples):
    """Square crops of ``items``: item n.

    ``short_side``: images are scaled so that their short side has as many pixels; None: they keep their size.
    Smaller images than a crop are enlarged to it, and transparent ones laid over white. Without ``augment`` crop n
    is the centre of item n; with it the items are shuffled anew each time round, cropped at random places and, with
    ``flips``, mirrored half of the time. ``captions``: the texts of the images are read too.
    """

    def __init__(
        self,
        items: Sequence[Item],
        size: int,
        *,
        short_side: int | None = None,
        flips: bool = True,
        augment: bool = True,
        seed: int = 0,
        captions: bool = False,
    ):
        if not items:
            raise ConfigError("there are no images to train on; name folders or tar shards")
        if size < 1 or (short_side is not None and short_side < size):
            raise ConfigError(f"short_side (={short_side}) must not be below the crop's size (={size})")
        self.items, self.size, self.short_side = list(items), size, short_side
        self.flips, self.augment, self.seed, self.captions = flips, augment, seed, captions
        self._held: dict[int, Picture] = {}

    def hold(self) -> None:
        """Opens all images and keeps them in memory: a GPU may take them faster than they can be opened.

        What cannot be opened is tried again, and told of, when its turn comes.
        """

        def opened(item: Item) -> Picture | None:
            try:
                return open_image(item.source())
            except (DifflateError, OSError):
                return None

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            pictures = enumerate(threads.map(opened, self.items))
            self._held = {place: picture for place, picture in pictures if picture is not None}

    def __len__(self) -> int:
        return len(self.items)

    def identity(self) -> str:
        """Their order follows from their number, and what they are from their names."""
        names = "\n".join(f"{Path(item.path).name} {item.offset} {item.label}" for item in self.items)
        return f"{len(self.items)} images, names {zlib.crc32(names.encode('utf-8', 'surrogateescape')):08x}"

    def read(self, number: int) -> Sample:
        """Sample ``number``; with ``augment`` the next image that can be read takes the place of one that cannot.

        Raises ImageError if none can.
        """
        image = self.open(number)
        pixels = torch.from_numpy(self._crop(image.pixels, number))
        return Sample(pixels, number, image.item.label, image.skipped, image.notes, image.caption)

    def open(self, number: int) -> "Opened":
        """The whole image of sample ``number``, or of the next that can be read, as `read`. Raises ImageError."""
        count, messages = len(self.items), []
        for further in range(min(_TRIES, count) if self.augment else 1):
            place = self._place(number + further)
            item = self.items[place]
            try:
                picture = over_white(self._held.get(place) or open_image(item.source()))
                caption = item.caption() if self.captions else ""
            except (DifflateError, OSError) as error:
                text = " ".join(str(error).split())
                messages.append(text if text.startswith(item.path) else f"{item}: {text}")
                continue
            pixels = picture.pixels if len(picture.pixels) == 3 else np.repeat(picture.pixels, 3, axis=0)
            return Opened(item, pixels, caption, messages, tuple(Note(str(item), text) for text in picture.notes))
        raise ImageError("\n".join(messages))

    def _place(self, number: int) -> int:
        turn, index = divmod(number, len(self.items))
        return int(order_of(self.seed, turn, len(self.items))[index]) if self.augment else index

    def _crop(self, pixels: np.ndarray, number: int) -> np.ndarray:
        sides = pixels.shape[1:]
        scale = (self.short_side or max(min(sides), self.size)) / min(sides)
        height, width = (max(round(side * scale), self.size) for side in sides)
        if self.augment:
            rng = numpy_generator(self.seed, Stream.CROP, number)
            top, left = int(rng.integers(height - self.size + 1)), int(rng.integers(width - self.size + 1))
            flip = self.flips and bool(rng.integers(2))
        else:
            top, left, flip = (height - self.size) // 2, (width - self.size) // 2, False
        if (height, width) == sides:
            pixels = pixels[:, top : top + self.size, left : left + self.size]
        else:
            tall, wide = sides[0] / height, sides[1] / width
            box = (left * wide, top * tall, (left + self.size) * wide, (top + self.size) * tall)
            pixels = scaled(pixels, self.size, self.size, box)
        return np.array(pixels[:, :, ::-1] if flip else pixels, order="C")


class Opened(NamedTuple):
    """An image of `Crops`."""

    item: Item
    pixels: np.ndarray
    """(3, H, W) uint8."""
    caption: str
    skipped: Sequence[str]
    """What was said of images that could not be read."""
    notes: tuple[Note, ...]


def scaled(
    pixels: np.ndarray, height: int, width: int, box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """(3, height, width) uint8 of ``pixels: (3, H, W)``, or of their part from left, top to right, bottom of ``box``.

    Itself if that is its size.
    """
    if box is None and pixels.shape[1:] == (height, width):
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box)).transpose(2, 0, 1)


@functools.lru_cache(maxsize=2)
def order_of(seed: int, turn: int, count: int) -> np.ndarray:
    """(count,) int64: the numbers of ``count`` items in the order of one time round."""
    return numpy_generator(seed, Stream.ORDER, turn).permutation(count)


def collate(samples: Sequence[Sample]) -> Batch:
    """The batch of what `Samples` give; its pixels are (0,) if nothing could be read."""
    kept = [sample for sample in samples if sample.pixels.numel()]
    pixels = torch.stack([sample.pixels for sample in kept]) if kept else torch.empty(0, dtype=torch.uint8)
    numbers, labels = (torch.tensor([sample[i] for sample in kept], dtype=torch.int64) for i in (1, 2))
    skipped = [text for sample in samples for text in sample.skipped]
    notes = tuple(note for sample in samples for note in sample.notes)
    captions = tuple(sample.caption for sample in kept)
    return Batch(pixels, numbers, labels, skipped, len(samples) - len(kept), notes, captions)


def log_notes(notes: Iterable[Note], logged: set[str]) -> None:
    """Logs the first of each kind of ``notes``, with the image's name; ``logged`` holds the kinds that were."""
    for note in first_of_kinds(notes, logged):
        log.warning("%s: %s; the like is not said again of other images", note.name, note.text)


def first_of_kinds(notes: Iterable[Note], known: set[str]) -> Iterator[Note]:
    """The first of each kind of ``notes`` that is not ``known`` yet; then it is."""
    for note in notes:
        kind = note.text.partition(" (")[0]
        if kind not in known:
            known.add(kind)
            yield note


def numbers_of(batch: int, part: int, parts: int, first_step: int, pieces: int) -> Iterator[list[int]]:
    """The numbers of this process's share (``part`` of ``parts``) of each step, in ``pieces`` for each step."""
    size = batch // (parts * pieces)
    step = first_step
    while True:
        for piece in range(pieces):
            start = step * batch + (piece * parts + part) * size
            yield list(range(start, start + size))
        step += 1
