"""Folders of numbered images: to clips, and clips to them."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from difflate.errors import ConfigError, DifflateError, ImageError, OutputExists
from difflate.files import file_mode
from difflate.limits import Limits
from difflate.media.clip import Clip, Frame, check_frame
from difflate.media.picture import Picture, open_image, to_srgb
from difflate.media.suffixes import SUFFIXES
from difflate.media.video_colour import interleaved

_NUMBER = re.compile(r"(.*?)(\d+)")
_NAME = "{:06d}.png"


def read_folder(folder: Path, fps: Fraction, limits: Limits) -> Clip:
    """The clip of the numbered images in ``folder``. See `difflate.media.video.open_clip`."""
    if fps <= 0:
        raise ConfigError(f"fps (={fps}) must be above 0")
    paths = _numbered(folder)
    first = open_image(paths[0], limits=limits)
    limits.check_frames(len(paths), first.width, first.height)
    frames = _Images(paths, first, limits)
    return Clip(first.width, first.height, len(first.pixels), fps, 1 / fps, frames, None, frames.notes)


def _numbered(folder: Path) -> list[Path]:
    """The images in ``folder`` by their number. Raises ImageError for none, gaps, and other patterns of names."""
    try:
        images = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    except OSError as error:
        raise ConfigError(f"{folder} cannot be opened ({error.strerror})") from error
    images = [path for path in images if not path.name.startswith(".")]
    if not images:
        raise ImageError(f"{folder}: has no images; give a folder of numbered ones, as 000001.png")
    numbers: dict[int, Path] = {}
    patterns = set()
    for path in sorted(images):
        match = _NUMBER.fullmatch(path.stem)
        if match is None:
            raise ImageError(f"{folder}: {path.name} does not end in a number; take it out, or number all images")
        number = int(match[2])
        if number in numbers:
            names = f"{numbers[number].name} and {path.name}"
            raise ImageError(f"{folder}: {names} have the same number; keep one of them")
        patterns.add((match[1], path.suffix.lower()))
        numbers[number] = path
    if len(patterns) > 1:
        (a, b), (c, d) = sorted(patterns)[:2]
        raise ImageError(f"{folder}: has images named {a}N{b} and {c}N{d}; keep those of one clip")
    ordered = sorted(numbers)
    gap = next((before + 1 for before, after in itertools.pairwise(ordered) if after != before + 1), None)
    if gap is not None:
        raise ImageError(f"{folder}: number {gap} is missing, after {numbers[gap - 1].name}; number them without gaps")
    return [numbers[number] for number in ordered]


class _Images:
    """The frames of a clip, read as they are asked for."""

    def __init__(self, paths: list[Path], first: Picture, limits: Limits) -> None:
        self._paths, self._limits = paths, limits
        self._width, self._height = first.width, first.height
        self._channels = len(first.pixels)
        self.notes = list(first.notes)

    def __iter__(self) -> Iterator[Frame]:
        for number, path in enumerate(self._paths):
            yield Frame(self._read(path, number), number)

    def _read(self, path: Path, number: int) -> np.ndarray:
        picture = to_srgb(open_image(path, limits=self._limits))
        try:
            check_frame(picture, number, self._width, self._height)
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error
        self.notes += [note for note in picture.notes if note not in self.notes]
        pixels = picture.pixels
        if len(pixels) > self._channels:
            raise ImageError(f"{path}: frame {number} has colour, the first none; save the first one as RGB")
        return pixels if len(pixels) == self._channels else np.repeat(pixels, self._channels, axis=0)


def write_folder(clip: Clip, frames: Iterator[Frame], folder: Path, force: bool) -> None:
    """Writes each of ``frames`` of ``clip`` as PNG, from 000001.png on. The folder is complete or not there."""
    check_folder(folder, force)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".difflate-", suffix=".tmp"))
    except OSError as error:
        raise _cannot(folder, error) from error
    try:
        for number, frame in enumerate(frames, 1):
            pixels = frame.pixels
            image = Image.fromarray(np.ascontiguousarray(pixels[0]) if len(pixels) == 1 else interleaved(pixels))
            image.save(temporary / _NAME.format(number))
        temporary.chmod(file_mode(folder) | 0o111 if folder.exists() else _folder_mode())
        if folder.exists():
            former = temporary.with_name(temporary.name + "-former")
            folder.rename(former)
            temporary.rename(folder)
            shutil.rmtree(former)
        else:
            temporary.rename(folder)
    except OSError as error:
        raise _cannot(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_folder(folder: Path, force: bool) -> None:
    """Raises what `write_folder` would raise of what is there: only folders that it wrote itself are replaced."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise ConfigError(f"{folder}: is no folder; name another")
    names = [entry.name for entry in folder.iterdir()]
    if names and not force:
        raise OutputExists(f"{folder}: exists already; use --force to overwrite it, or name another output")
    if not all(re.fullmatch(r"\d{6,}\.png", name) for name in names):
        raise OutputExists(f"{folder}: holds other files than numbered PNGs; name another folder")


def _folder_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o777 & ~mask


def _cannot(folder: Path, error: OSError) -> DifflateError:
    return DifflateError(f"{folder}: cannot be written ({error.strerror or error}); choose another output")
