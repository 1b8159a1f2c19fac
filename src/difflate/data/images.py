"""Image files in folders."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from difflate.errors import ConfigError
from difflate.media.suffixes import SUFFIXES

log = logging.getLogger(__name__)

_ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".zip", ".7z", ".rar")


def list_images(sources: Iterable[Path], recursive: bool = True) -> list[Path]:
    """Files as they are named; folders searched in the order of their names, with all below them if ``recursive``.

    Hidden files (see `is_hidden`) of folders are left out, which is logged once. Raises ConfigError for a source that
    does not exist or is a compressed archive, or a folder without images.
    """
    hidden: list[str] = []
    paths = [path for source in sources for path in _images_of(source, recursive, hidden)]
    log_hidden(hidden)
    return paths


def files_in(folder: Path, suffixes: Iterable[str], hidden: list[str], recursive: bool = True) -> list[Path]:
    """The files in ``folder`` of these ``suffixes``, in the order of their names; those left out go to ``hidden``."""
    paths = folder.rglob("*") if recursive else folder.iterdir()
    files = sorted(path for path in paths if path.suffix.lower() in suffixes and path.is_file())
    hidden += [str(path) for path in files if is_hidden(path.relative_to(folder))]
    return [path for path in files if not is_hidden(path.relative_to(folder))]


def is_hidden(path: PurePath) -> bool:
    """Whether a part of ``path`` begins with a dot, as macOS's ``._photo.jpg``, or is its folder ``__MACOSX``."""
    return any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in path.parts)


def log_hidden(names: Sequence[str]) -> None:
    """Says which files were left out, if any."""
    if names:
        log.warning("ignored %d hidden file%s, the first %s", len(names), "s" * (len(names) > 1), names[0])


def check_not_compressed(source: Path) -> None:
    """Raises ConfigError if ``source`` is, by its name, an archive whose members cannot be read one by one."""
    if source.name.lower().endswith(_ARCHIVES) and not source.is_dir():
        raise ConfigError(
            f"{source}: images cannot be read from a compressed archive; unpack it and name the folder, or repack it "
            "as a plain .tar"
        )


def check_images(images: Sequence[object], folder: Path) -> None:
    """Raises ConfigError if there are no ``images`` in ``folder``."""
    if images:
        return
    for path in sorted(folder.rglob("*")):
        check_not_compressed(path)
    raise ConfigError(f"{folder}: no images in this folder; looked for {', '.join(sorted(SUFFIXES))}")


def _images_of(source: Path, recursive: bool, hidden: list[str]) -> Iterator[Path]:
    if source.is_dir():
        images = files_in(source, SUFFIXES, hidden, recursive)
        check_images(images, source)
        yield from images
    elif source.exists():
        check_not_compressed(source)
        yield source
    else:
        raise ConfigError(f"{source}: no such file or folder")
