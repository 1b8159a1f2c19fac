"""`difflate compress INPUT…`."""

import argparse
import contextlib
import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflate import DEFAULT_CODEC
from difflate.cli.arguments import (
    add_codec_options,
    add_download_option,
    as_flags,
    codec_options,
    input_path,
    output_path,
    spelled_as_flags,
)
from difflate.cli.bulk import add_bulk_options, batch_of
from difflate.cli.device import add_device_option

if TYPE_CHECKING:
    from difflate.bulk.work import Result
    from difflate.codecs.rate_search import Coded
    from difflate.media.picture import Picture

_EPILOG = """examples:
  difflate compress photo.png                        photo.dfl, beside it
  difflate compress photo.png --codec avif -q 60     photo.avif
  difflate compress photo.png --bpp 0.3              at most 0.3 bits per pixel
  difflate compress photo.png --effort 7             fewer bits for the same image, after a minute
  difflate compress holiday/ -o small/               all images below holiday/
  difflate compress holiday/ -o small/ --jobs 8      by 8 processes; again: what is missing
  difflate compress tars/ -o coded/ --shards --jobs 8
  difflate compress - -o - < photo.png > photo.dfl
  difflate compress clip.mp4 --codec diffae-small    clip.dfl, beside it
  difflate compress clip.mp4 --codec diffae-small --audio copy -o with-sound.dfl
  difflate compress frames/ --clip --fps 24          frames.dfl, of the numbered images in frames/"""

_ANIMATED = {".gif", ".webp", ".avif"}
"""Images that may be clips."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "compress",
        help="compress image files and clips",
        description="Compress images and clips: .dfl files with a learned codec, or the own format of a classical "
        "one.\nWithout -o each output stands beside its input. What of an input is left out, or coded in another "
        "way,\nis said on standard error. What is a clip is told by the suffix (.mp4, .mov, .mkv, .webm, .avi, .y4m "
        "…);\na folder of images or standard input is one with --clip.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "inputs", nargs="+", type=input_path, metavar="INPUT", help="image files, clips, folders, or - for stdin"
    )
    parser.add_argument(
        "-o", "--output", type=output_path, metavar="OUT", help="file (one input), folder, or - for stdout"
    )
    parser.add_argument(
        "--codec", default=DEFAULT_CODEC, metavar="NAME|FOLDER", help="see `difflate codecs` (default: %(default)s)"
    )
    parser.add_argument(
        "-q", "--quality", type=float, metavar="Q", help="of a codec that has one, see `difflate codecs`"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--bpp", type=float, metavar="BPP", help="the best quality within so many bits per pixel")
    size.add_argument("--max-bytes", type=int, metavar="N", help="the best quality within so many bytes a file")
    parser.add_argument("--clip", action="store_true", help="a folder of numbered images, or standard input, is a clip")
    parser.add_argument(
        "--fps", type=_fps, metavar="F", help="frames a second of a folder of images, as 24 or 30000/1001 (default: 25)"
    )
    parser.add_argument(
        "--audio", choices=("copy",), help="of clips in .dfl files: keep the sound as it is (default: leave it out)"
    )
    add_codec_options(parser, "encoding")
    add_download_option(parser)
    parser.add_argument("-f", "--force", action="store_true", help="overwrite outputs")
    parser.add_argument(
        "--metadata", action="store_true", help="keep EXIF, ICC profile and XMP (default: convert to sRGB)"
    )
    add_device_option(parser, "cpu")
    add_bulk_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compresses each input; returns the worst exit code."""
    from difflate.cli.batch import plan, run_jobs
    from difflate.cli.bulk import in_bulk, run_in_bulk
    from difflate.cli.clips import clips_in
    from difflate.codecs.base import Codec
    from difflate.codecs.groups import result_of
    from difflate.data.images import files_in, list_images
    from difflate.media.suffixes import SUFFIXES

    workers = in_bulk(args)
    work = _Compressing(args, device=None if workers else args.device)
    codec, options = work.codec, work.options

    def inputs_in(folder: Path) -> list[Path]:
        images = files_in(folder, SUFFIXES, []) if isinstance(codec, Codec) else []
        return (not images and clips_in(folder)) or list_images([folder])

    if workers:
        settings = {key: getattr(args, key) for key in ("quality", "bpp", "max_bytes", "metadata", "audio")}
        model = getattr(codec, "fingerprint", b"").hex() or None
        settings = {"command": "compress", "codec": codec.name, "model": model, **settings, "options": options}
        load = functools.partial(_Compressing, args, args.device)
        return run_in_bulk(args, workers, load, settings, codec.suffix, inputs_in)
    jobs = plan(args.inputs, args.output, codec.suffix, inputs_in, whole_folders=args.clip)
    if len(jobs) == 1:
        _check_suffix(jobs[0].target, codec.suffix, codec.name)

    with _bar(codec, options):
        return run_jobs(jobs, args, lambda job: result_of(work.files([(job.source, job.target)])))


class _Compressing:
    """What is done with each input: a `difflate.bulk.work.Work`."""

    def __init__(self, args: argparse.Namespace, device: str | None):
        """Loads the codec. Raises what is wrong with all inputs."""
        from difflate.cli.device import move_codec
        from difflate.codecs.base import quality_for
        from difflate.codecs.loading import load
        from difflate.codecs.rate_search import check_request

        self.codec: Any = load(args.codec, allow_download=args.allow_download)
        self.options, self.batch = codec_options(args, "encoding"), batch_of(args)
        self._args = args
        with spelled_as_flags():
            check_request(args.quality, args.bpp, args.max_bytes)
            quality_for(self.codec, args.quality)
            self.codec.encoding.of(self.options, self.codec.name)
        move_codec(self.codec, device)

    def files(self, inputs: Sequence[tuple[Path, Path]]) -> "list[Result | Exception]":
        from difflate.codecs.groups import in_groups

        return in_groups(inputs, lambda given: self._file(given[0]), self._made)

    def suffix_of_member(self, name: str) -> str | None:
        from difflate.media.suffixes import SUFFIXES

        return self.codec.suffix if Path(name).suffix.lower() in SUFFIXES else None

    def members(self, members: Sequence[tuple[str, bytes]]) -> "list[Result | Exception]":
        from difflate.codecs.groups import in_groups

        return in_groups(members, lambda member: self._picture(member[1]), self._made)

    def _file(self, source: Path) -> tuple[Path | bool, int, Any]:
        """What `in_groups` asks of an input: a `_Picture`, or what makes the result of a clip, by itself."""
        from difflate.cli.batch import STANDARD, read_input
        from difflate.cli.clips import taken_as_clip

        if self._args.clip or (source != STANDARD and taken_as_clip(source)):
            return source, 1, functools.partial(_clip, source, self.codec, self.options, self._args)
        return self._picture(read_input(source))

    def _picture(self, data: bytes) -> tuple[bool, int, "_Picture"]:
        from difflate.codecs.groups import LARGE_PX
        from difflate.errors import ConfigError
        from difflate.media.picture import open_image

        if self._args.audio or self._args.fps:
            raise ConfigError("--audio and --fps are for clips; leave them out, or add --clip")
        picture = open_image(data, metadata=self._args.metadata)
        large = picture.width * picture.height > LARGE_PX
        return large, 1 if large else self.batch, _Picture(picture, len(data))

    def _made(self, group: Sequence[Any]) -> "Sequence[Result | Exception]":
        from difflate.codecs.groups import one_by_one
        from difflate.codecs.rate_search import encode_pictures

        if not isinstance(group[0], _Picture):
            return [group[0]()]
        args = self._args
        with spelled_as_flags():
            coded = encode_pictures(
                self.codec, [each.picture for each in group], quality=args.quality, bpp=args.bpp,
                max_bytes=args.max_bytes, options=self.options,
            )  # fmt: skip
        return one_by_one(zip(group, coded, strict=True), lambda pair: pair[0].result(pair[1], self.codec.name))


@dataclasses.dataclass(frozen=True)
class _Picture:
    """An image that was read."""

    picture: "Picture"
    size_bytes: int

    def result(self, coded: "Coded | Exception", codec: str) -> "Result":
        """Its file, and what is said of it. Raises ``coded``, if that is an error."""
        from difflate.bulk.work import Result
        from difflate.format.webp import fallback_notes

        if isinstance(coded, Exception):
            raise as_flags(coded)
        picture = self.picture
        bpp = 8 * len(coded.data) / (picture.width * picture.height)
        size = f"{picture.width}x{picture.height}"
        reached = f", the most that {codec} gives" if coded.short else ""
        line = f"{size} px, {self.size_bytes} -> {len(coded.data)} bytes, {bpp:.3f} bpp{reached}"
        notes = (*picture.notes, *fallback_notes(coded.data))
        return Result(coded.data, line, notes, (picture.width, picture.height))


def _clip(source: Path, codec: Any, options: Mapping[str, Any], args: argparse.Namespace) -> "Result":
    """The file of the clip ``source``, and what is said of it."""
    from difflate.bulk.work import Result
    from difflate.cli.batch import STANDARD
    from difflate.cli.clips import Watched
    from difflate.codecs.base import codec_of_clips
    from difflate.errors import ConfigError
    from difflate.format.webp import fallback_notes
    from difflate.media.suffixes import SUFFIXES
    from difflate.media.video import open_clip

    if args.bpp is not None or args.max_bytes is not None or args.metadata:
        raise ConfigError("--bpp, --max-bytes and --metadata are for images; of a clip choose the quality with -q")
    if args.audio and codec.suffix != ".dfl":
        raise ConfigError(f"--audio is for .dfl files, not for those of {codec.name}; leave it out")
    if args.fps and not source.is_dir():
        raise ConfigError("--fps is for folders of images; a file has frame times of its own")
    if source.suffix.lower() in SUFFIXES - _ANIMATED:
        raise ConfigError("is one image; with --clip name the folder of the images that are its frames")
    coder = codec_of_clips(codec)
    given = sys.stdin.buffer if source == STANDARD else source
    clip = open_clip(given, audio=args.audio == "copy", **({"fps": args.fps} if args.fps else {}))
    watched = Watched(clip)
    with spelled_as_flags():
        data = coder.encode_clip(dataclasses.replace(clip, frames=watched), quality=args.quality, **options)
    notes = (*clip.notes, *fallback_notes(data))
    return Result(data, watched.line(len(data)), notes, (clip.width, clip.height))


def _fps(text: str) -> Fraction:
    """Frames a second. Raises ArgumentTypeError."""
    try:
        fps = Fraction(text)
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if fps <= 0:
        raise argparse.ArgumentTypeError(f"(={text}) must be a number or fraction above 0, as 24 or 30000/1001")
    return fps


@contextlib.contextmanager
def _bar(codec: Any, options: Mapping[str, Any]) -> Iterator[None]:
    """Shows on a terminal how far an image is whose encoding takes an effort."""
    if options.get("effort") in (None, 1) or not sys.stderr.isatty():
        yield
        return
    from tqdm import tqdm

    with tqdm(unit="step", leave=False, file=sys.stderr) as bar:

        def show(done: int, total: int) -> None:
            if done == 1:
                bar.reset(total)
            bar.update()

        codec.progress = show
        try:
            yield
        finally:
            codec.progress = None


def _check_suffix(target: Path, suffix: str, codec: str) -> None:
    """Raises ConfigError for a name that promises another format than the codec writes."""
    from difflate.errors import ConfigError
    from difflate.media.suffixes import SUFFIXES
    from difflate.media.video import CLIP_SUFFIXES

    named = target.suffix.lower()
    if named in SUFFIXES | CLIP_SUFFIXES | {".dfl", ".jxl"} and named.replace(".jpeg", ".jpg") != suffix:
        raise ConfigError(
            f"{target}: {codec} writes {suffix} files; end the name in {suffix}, or choose another --codec"
        )
