"""Images to train on, as items that are opened when needed: files of folders, and members of tar shards.

Shards are WebDataset's: tar archives whose members are images, of any names. Their headers are read once, so that
every member can be read by itself, in any order; that is what an exact resume and a true shuffle need.
"""

import logging
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from difflate.data.images import check_images, check_not_compressed, files_in, is_hidden, log_hidden
from difflate.errors import ConfigError, DifflateError, ImageError, TruncatedError
from difflate.limits import TEXT_BYTES
from difflate.media.files import open_pil
from difflate.media.suffixes import SUFFIXES

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Item:
    """An image file, or ``size`` bytes of a tar archive from ``offset`` on."""

    path: str
    offset: int = -1
    size: int = 0
    label: int = -1
    """Number of its class; -1: none."""
    caption_offset: int = -1
    """Of a tar archive: where its member ``NAME.txt`` lies that belongs to an image ``NAME.jpg``; -1: there is none."""
    caption_size: int = 0

    def source(self) -> Path | bytes:
        """What `difflate.media.picture.open_image` takes. Raises OSError."""
        if self.offset < 0:
            return Path(self.path)
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def caption(self) -> str:
        """The text of the image, without spaces around it: ``NAME.txt`` beside ``NAME.jpg``; empty where there is none.

        Raises ImageError for what is no text, or too long a one, OSError.
        """
        path = Path(self.path) if self.offset >= 0 else Path(self.path).with_suffix(".txt")
        if self.offset >= 0:
            if self.caption_offset < 0:
                return ""
            where, start, size = f"{path} (at byte {self.caption_offset})", self.caption_offset, self.caption_size
        else:
            if not path.is_file():
                return ""
            where, start, size = str(path), 0, path.stat().st_size
        if size > TEXT_BYTES:
            raise ImageError(f"{where}: the text has {size} bytes, above {TEXT_BYTES}; shorten it")
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
        try:
            return data.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise ImageError(f"{where}: is no text in UTF-8; save it as that") from error

    def __str__(self) -> str:
        return self.path if self.offset < 0 else f"{self.path} (at byte {self.offset})"


def list_items(sources: Sequence[str | Path]) -> list[Item]:
    """The images of ``sources``: image files, folders of images or of shards, tar archives, ``name-{0000..0012}.tar``.

    In the order of their names; hidden files of folders and archives are left out, which is logged once. Raises
    ConfigError for a source that does not exist, has no images or is a compressed archive.
    """
    hidden: list[str] = []
    items = [item for source in sources for item in _items_of(str(source), hidden)]
    log_hidden(hidden)
    return items


def label_by_folder(items: Sequence[Item]) -> tuple[list[Item], list[str]]:
    """``items`` with labels, and the names of the classes: the folders that the images, or the shards, lie in.

    Raises ConfigError if that is a single one.
    """
    folders = [Path(item.path).parent for item in items]
    places = sorted(set(folders))
    names = [place.name for place in places]
    if len(places) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            f"classes: the images must lie in two or more folders of different names, not {', '.join(map(str, places))}"
        )
    numbers = {place: i for i, place in enumerate(places)}
    return [replace(item, label=numbers[folder]) for item, folder in zip(items, folders, strict=True)], names


def _items_of(source: str, hidden: list[str]) -> Iterator[Item]:
    for name in _braces(source):
        if not name:
            raise ConfigError("images holds an empty name; name folders of images with images=FOLDER")
        path = Path(name)
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
        check_not_compressed(path)
        if path.is_dir():
            shards, images = (files_in(path, suffixes, hidden) for suffixes in ({".tar"}, SUFFIXES))
        else:
            shards, images = ([path], []) if path.suffix == ".tar" else ([], [path])
        items = [item for shard in shards for item in _members(shard, hidden)]
        items += [Item(str(image)) for image in images]  # they may lie beside the shards
        if shards and not items:
            raise ConfigError(f"{name}: no images in its tar archives; looked for {', '.join(sorted(SUFFIXES))}")
        check_images(items, path)
        yield from items


def _members(shard: Path, hidden: list[str]) -> Iterator[Item]:
    """The images of a shard, with their captions, which may lie before or behind them."""
    images: list[tuple[PurePosixPath, Item]] = []
    captions: dict[PurePosixPath, tuple[int, int]] = {}
    try:
        for member in tar_members(shard):
            name = PurePosixPath(member.name)
            if name.suffix.lower() == ".txt":
                captions[name.with_suffix("")] = (member.offset_data, member.size)
            if name.suffix.lower() not in SUFFIXES:
                continue
            if is_hidden(name):
                hidden.append(f"{shard}: {name}")
            else:
                images.append((name.with_suffix(""), Item(str(shard), member.offset_data, member.size)))
    except TruncatedError as error:
        log.warning("%s", error)
    for name, item in images:
        offset, size = captions.get(name, (-1, 0))
        yield replace(item, caption_offset=offset, caption_size=size)


def tar_members(shard: Path) -> Iterator[tarfile.TarInfo]:
    """The files in an archive without compression: only so can a member be read by itself.

    Raises ConfigError for what is none, TruncatedError behind the last member of one that is damaged.
    """
    read = 0
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                read += 1
                if member.isfile():
                    yield member
    except (tarfile.TarError, OSError) as error:
        if not read:
            raise ConfigError(f"{shard}: is not an uncompressed tar archive ({error}); unpack or repack it") from error
        raise TruncatedError(f"{shard}: is damaged ({error}); only the {read} members before that are used") from error


def _braces(name: str) -> Iterable[str]:
    """``a-{00..12}.tar`` as its names, as the shell and WebDataset write them."""
    before, brace, rest = name.partition("{")
    inside, closed, after = rest.partition("}")
    first, dots, last = inside.partition("..")
    if not (brace and closed and dots and first.isdigit() and last.isdigit()):
        return [name]
    numbers = range(int(first), int(last) + 1)
    return [f"{before}{number:0{len(first)}d}{after}" for number in numbers]


def hold_back(items: Sequence[Item], count: int) -> tuple[list[Item], list[Item]]:
    """(for training, held back): ``count`` items, evenly spaced, are kept from training.

    Raises ConfigError if none would be left.
    """
    chosen = held_back_numbers(len(items), count)
    return [x for i, x in enumerate(items) if i not in chosen], [x for i, x in enumerate(items) if i in chosen]


def held_back_numbers(total: int, count: int) -> set[int]:
    """``count`` numbers of 0 … ``total`` - 1, evenly spaced. Raises ConfigError if none would be left."""
    if not 0 <= count < total:
        raise ConfigError(f"holdback (={count}) must be below the number of images (={total})")
    return {i * total // count for i in range(count)}


def common_side(name: str | Path, items: Sequence[Item]) -> int:
    """The side in px of all of ``items`` that can be opened. Pixels are not decoded.

    Raises ConfigError, with the ``name`` of where they are from, if they are not squares of one size, ImageError if
    none can be opened.
    """
    sizes = {}  # in the order in which they are found
    for item in items:
        try:
            sizes[open_pil(item.source()).size] = True
        except (DifflateError, OSError):
            continue  # told when the images are read
    if not sizes:
        raise unreadable(name, len(items))
    width, height = next(iter(sizes))
    if len(sizes) > 1 or width != height:
        some = ", ".join(f"{width}x{height}" for width, height in list(sizes)[:3])
        raise ConfigError(f"{name}: not squares of one size ({some}{', …' if len(sizes) > 3 else ''}); give --size")
    return width


def unreadable(name: str | Path, count: int) -> ImageError:
    """What is said of ``count`` images of which none can be read."""
    return ImageError(f"{name}: none of its {count} images can be read; check one with difflate compress")
