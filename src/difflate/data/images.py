"""Image files in folders."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from difflate.errors import ConfigError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".jp2"}
"""Of the formats that `difflate.media.files` reads; a file that is named itself may have any suffix."""


def list_images(sources: Iterable[Path]) -> list[Path]:
    """Files as they are named; folders searched with all below them, in the order of their names.

    Raises ConfigError for a source that does not exist, or a folder without images.
    """
    return [path for source in sources for path in _images_of(source)]


def _images_of(source: Path) -> Iterator[Path]:
    if source.is_dir():
        found = sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if not found:
            raise ConfigError(f"{source}: no images in this folder; looked for {', '.join(sorted(SUFFIXES))}")
        yield from found
    elif source.exists():
        yield source
    else:
        raise ConfigError(f"{source}: no such file or folder")
