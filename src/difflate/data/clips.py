"""Clips for training: of real ones, and of photographs that are moved. Each can be made from its number alone."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from difflate.data import made as made_pictures
from difflate.data.crops import Crops, Note, Sample, Samples, scaled
from difflate.data.mixed import check_share, drawn_shares, without_colour
from difflate.data.moving import clip_of_any
from difflate.errors import ConfigError, LimitExceeded
from difflate.media.video import open_clip
from difflate.seeds import Stream, numpy_generator

CLIP_BYTES = 2**32
"""Of the frames of all clips that are loaded at once."""
_STEPS, _STEP_SHARES = (1, 2, 3), (0.7, 0.2, 0.1)
"""From one frame to the next of a training clip, and how often."""
_SCALED = 0.3
"""Share of the crops of real clips that are of a smaller clip."""
_SMALLEST = 0.5


@dataclass(frozen=True)
class LoadedClip:
    """A clip in memory."""

    name: str
    frames: Tensor
    """(T, C, H, W) uint8, C = 1 or 3; a tensor, as processes that read ahead share its memory."""


def load_clips(sources: Sequence[str | Path]) -> list[LoadedClip]:
    """All frames of ``sources``: video files and folders of numbered images. To train on, so they should be short.

    Raises what `difflate.media.video.open_clip` raises, and LimitExceeded if they need more than `CLIP_BYTES` together.
    """
    loaded, used = [], 0
    for source in map(Path, sources):
        frames = []
        for frame in open_clip(source).frames:
            used += frame.pixels.size
            if used > CLIP_BYTES:
                raise LimitExceeded(
                    f"{source}: the clips need more than {CLIP_BYTES >> 20} MiB of memory; give fewer, cut them to a "
                    "few seconds or scale them down"
                )
            frames.append(frame.pixels)
        loaded.append(LoadedClip(source.name, torch.from_numpy(np.stack(frames))))
    return loaded


class ClipCrops(Samples):
    """Clips of ``frames`` square frames, (3, T, size, size) uint8: of ``photographs`` that are moved, and ``clips``.

    ``photographs`` give the size, the seed and whether there is augmentation. With it a share ``moving`` of the
    samples is made motion (all, if there are no clips; see `difflate.data.moving`), a share ``made`` of which moves
    pictures that are no photographs. The others are crops of ``clips`` in space and time: mirrored half of the time,
    backwards half of the time, sometimes with frames left out, sometimes scaled down. A share ``grey`` has no colour.
    Without augmentation the first samples are the middles of ``clips`` in space and time, and those of the photographs
    in their order, with made motion, follow. A clip that is too short is played forth and back.

    Raises ConfigError for shares that are not from 0 to 1 and less than one frame.
    """

    def __init__(
        self,
        photographs: Crops,
        clips: Sequence[LoadedClip],
        frames: int,
        *,
        moving: float = 0.8,
        made: float = 0.0,
        grey: float = 0.0,
    ):
        for share, key in ((moving, "moving"), (made, "made"), (grey, "grey")):
            check_share(share, key)
        if frames < 1:
            raise ConfigError(f"frames (={frames}) must be at least 1")
        self.photographs, self.clips, self.frames = photographs, list(clips), frames
        self.moving, self.made, self.grey = moving if clips else 1.0, made, grey

    def __len__(self) -> int:
        return len(self.clips) + len(self.photographs)

    def identity(self) -> str:
        """That of the photographs, the names and lengths of the clips, and the shares."""
        names = "\n".join(f"{clip.name} {len(clip.frames)}" for clip in self.clips)
        clips = f"{len(self.clips)} clips, names {zlib.crc32(names.encode('utf-8', 'surrogateescape')):08x}"
        shares = f"{self.moving:g} moving, {self.made:g} made, {self.grey:g} grey"
        return f"{clips}, {self.photographs.identity()}, {self.frames} frames, {shares}"

    def read(self, number: int) -> Sample:
        """Sample ``number``; with augmentation the next image that can be read takes the place of one that cannot.

        Raises ImageError if none can.
        """
        seed = self.photographs.seed
        is_made, is_grey = drawn_shares(seed, number, self.made, self.grey)
        rng = numpy_generator(seed, Stream.MOVING, number)
        if self.photographs.augment:
            is_moving, first = rng.random() < self.moving, number
        else:
            is_moving, first = number >= len(self.clips), number - len(self.clips)
        sample = self._moved(rng, number, first, is_made) if is_moving else self._real(number)
        return sample._replace(pixels=without_colour(sample.pixels)) if is_grey else sample

    def _moved(self, rng: Generator, number: int, first: int, is_made: bool) -> Sample:
        """Made motion of the photograph ``first`` and further ones, or of made pictures."""
        photographs, skipped, notes = self.photographs, list[str](), list[Note]()

        def pictures() -> Iterator[np.ndarray]:
            chosen = first
            while True:
                image = photographs.open(chosen)
                skipped.extend(image.skipped)
                notes.extend(image.notes)
                yield image.pixels
                chosen = int(rng.integers(len(photographs)))

        def made() -> Iterator[np.ndarray]:
            side = 2 * photographs.size
            while True:
                yield made_pictures.picture(photographs.seed, int(rng.integers(2**62)), side, side)

        clip = clip_of_any(rng, made() if is_made else pictures(), self.frames, photographs.size)
        return Sample(torch.from_numpy(clip), number, skipped=skipped, notes=tuple(notes))

    def _real(self, number: int) -> Sample:
        """A crop of a real clip; the middle of clip ``number`` without augmentation."""
        size, count = self.photographs.size, self.frames
        if self.photographs.augment:
            rng = numpy_generator(self.photographs.seed, Stream.CLIP, number)
            frames = self.clips[int(rng.integers(len(self.clips)))].frames.numpy()
            step = int(rng.choice(_STEPS, p=_STEP_SHARES))
            step = max(min(step, (len(frames) - 1) // max(count - 1, 1)), 1)
            start = int(rng.integers(max(len(frames) - (count - 1) * step, 1)))
            scale = rng.uniform(_SMALLEST, 1) if rng.random() < _SCALED else 1.0
            side = min(round(size / scale), *frames.shape[2:])
            top, left = (int(rng.integers(whole - side + 1)) for whole in frames.shape[2:])
            backwards, flip = rng.random(2) < 0.5
        else:
            frames, step = self.clips[number].frames.numpy(), 1
            start = max(len(frames) - count, 0) // 2
            side = min(size, *frames.shape[2:])
            top, left = ((whole - side) // 2 for whole in frames.shape[2:])
            backwards = flip = False
        places = forth_and_back(start + step * np.arange(count), len(frames))
        parts = []
        for place in places[::-1] if backwards else places:
            part = frames[place, :, top : top + side, left : left + side]
            part = scaled(np.broadcast_to(part, (3, side, side)), size, size)
            parts.append(part[:, :, ::-1] if flip else part)
        return Sample(torch.from_numpy(np.stack(parts, 1)), number)


def forth_and_back(places: np.ndarray, count: int) -> np.ndarray:
    """``places`` from 0 on, of any number, as those of ``count`` frames that are played to the end and back."""
    turn = max(2 * (count - 1), 1)
    return (count - 1) - np.abs(places % turn - (count - 1))
