"""Clips in and out: video files, streams and folders of numbered images (docs/video.md)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np

from difflate.errors import ConfigError, ImageError
from difflate.files import atomic_path
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.clip import Clip, Frame

CLIP_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".y4m", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".flv", ".wmv"}
    | {".ogv", ".3gp", ".mxf", ".nut", ".ivf"}
)
"""Of files that are taken as clips, in lower case."""
WRITTEN = ("mp4", "mkv", "webm", "y4m", "folder")
"""The formats of `write_clip`."""


def is_clip(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a clip by its name alone. A folder is none: it may be images that have nothing in common."""
    return Path(path).suffix.lower() in CLIP_SUFFIXES


def open_clip(
    source: str | os.PathLike[str] | IO[bytes] | bytes,
    *,
    audio: bool = False,
    fps: Fraction | int = 25,
    limits: Limits = DEFAULT_LIMITS,
) -> Clip:
    """The clip in ``source``: a video file, its bytes, a folder of numbered images at ``fps`` a second, or a binary
    stream of video.

    Upright, 8 bits, grey or sRGB; matrix and range of its colours are what the file says, BT.601 and limited range
    where it says nothing. Frames are decoded as they are asked for; those of a stream once only. With ``audio`` the
    packets of its first audio stream are kept, as they are, unless ``source`` is a stream. `Clip.notes` has what is
    lost of the file; what is found of it later is added while frames are read.

    Raises ConfigError for a path that cannot be opened, ImageError for what is no video, has no frame, transparency or
    damage (while frames are read: with the frame's number), LimitExceeded.
    """
    if isinstance(source, bytes):
        from difflate.media.video_reader import read_video

        return read_video(source, "video data", audio, limits)
    if not isinstance(source, str | os.PathLike):
        from difflate.media.video_reader import Pipe, read_video

        name = getattr(source, "name", None)
        return read_video(Pipe(source), name if isinstance(name, str) else "video data", audio, limits)
    path = Path(source)
    if path.is_dir():
        from difflate.media.video_folder import read_folder

        return read_folder(path, Fraction(fps), limits)
    from difflate.media.video_reader import read_video

    try:
        return read_video(path, str(path), audio, limits)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; check the path") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be opened ({error.strerror or error})") from error


def write_clip(
    clip: Clip,
    target: str | os.PathLike[str] | IO[bytes],
    *,
    format: str | None = None,
    crf: int | None = None,
    force: bool = True,
) -> list[str]:
    """Writes ``clip`` to a file or folder, complete or not there, or a binary stream; gives what is lost, a line each.

    ``format`` is one of `WRITTEN`; None: by the suffix, "folder" for a folder or a name that ends in ``/``, "y4m" for a
    stream. mkv (FFV1) and folder (PNG) are lossless. mp4 is H.264, 4:2:0, and webm VP9, 4:2:0, both BT.709 in limited
    range with ``crf`` (12 and 15) as their quality. y4m is 4:4:4 in BT.601, limited range; grey in full range. The
    number of frames and the size are never changed; times are exact but for what the notes say.

    Raises ConfigError for a format that is unknown or cannot hold the clip, OutputExists without ``force``, ImageError
    for frames that are not as the clip says and what reading them raises.
    """
    path = Path(target) if isinstance(target, str | os.PathLike) else None
    kind = format or _format_of(target)
    if kind not in WRITTEN:
        raise ConfigError(f"format (={kind!r}) is not one that is written here; choose from {', '.join(WRITTEN)}")
    frames = checked_frames(clip)
    if kind == "folder":
        from difflate.media.video_folder import write_folder

        if path is None or crf is not None:
            raise ConfigError("a folder of images is written to a path, and takes no crf")
        write_folder(clip, frames, path, force)
        return []
    from difflate.media.video_writer import check_settings, write_video

    check_settings(clip, kind, crf, stream=path is None)
    if path is None:
        return write_video(clip, frames, target, kind, crf)  # type: ignore[arg-type]
    with atomic_path(path, force) as temporary:
        return write_video(clip, frames, temporary, kind, crf)


def _is_folder(path: str | os.PathLike[str]) -> bool:
    return os.fspath(path).endswith(("/", os.sep)) or Path(path).is_dir()


def _format_of(target: str | os.PathLike[str] | IO[bytes]) -> str:
    if not isinstance(target, str | os.PathLike):
        return "y4m"
    suffix = Path(target).suffix.lower().removeprefix(".")
    if _is_folder(target):
        return "folder"
    if suffix not in WRITTEN:
        raise ConfigError(f"{target}: a clip is written as .mp4, .mkv, .webm, .y4m or a folder; end its name so")
    return suffix


def checked_frames(clip: Clip) -> Iterator[Frame]:
    """The frames of ``clip``. Raises ImageError where they are not as it says, or none."""
    shape, last = (clip.channels, clip.height, clip.width), None
    for number, frame in enumerate(clip.frames):
        if frame.pixels.shape != shape or frame.pixels.dtype != np.uint8:
            found = f"{frame.pixels.shape} {frame.pixels.dtype}"
            raise ImageError(f"frame {number} is {found}, and must be {shape} uint8 in this clip")
        if last is not None and frame.time <= last:
            raise ImageError(f"frame {number} has the time {frame.time}, not above that before ({last})")
        last = frame.time
        yield frame
    if last is None:
        raise ImageError("the clip has no frame; give at least one")
