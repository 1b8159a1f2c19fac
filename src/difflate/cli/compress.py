"""`difflate compress INPUT…`."""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflate import DEFAULT_CODEC
from difflate.cli.arguments import (
    add_codec_options,
    add_download_option,
    codec_options,
    input_path,
    output_path,
    spelled_as_flags,
)

if TYPE_CHECKING:
    from difflate.cli.batch import Result

_EPILOG = """examples:
  difflate compress photo.png                        photo.dfl, beside it
  difflate compress photo.png --codec avif -q 60     photo.avif
  difflate compress photo.png --bpp 0.3              at most 0.3 bits per pixel
  difflate compress photo.png --effort 7             fewer bits for the same image, after a minute
  difflate compress holiday/ -o small/               all images below holiday/
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
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compresses each input; returns the worst exit code."""
    from difflate.cli.batch import STANDARD, Job, Result, plan, run_jobs
    from difflate.cli.clips import clips_in, taken_as_clip
    from difflate.codecs.base import Codec, quality_for
    from difflate.codecs.loading import load
    from difflate.codecs.rate_search import check_request
    from difflate.data.images import files_in, list_images
    from difflate.media.suffixes import SUFFIXES

    codec = load(args.codec, allow_download=args.allow_download)
    options = codec_options(args, "encoding")
    with spelled_as_flags():  # what is wrong with all files is said once
        check_request(args.quality, args.bpp, args.max_bytes)
        quality_for(codec, args.quality)
        codec.encoding.of(options, codec.name)

    def inputs_in(folder: Path) -> list[Path]:
        images = files_in(folder, SUFFIXES, []) if isinstance(codec, Codec) else []
        return (not images and clips_in(folder)) or list_images([folder])

    jobs = plan(args.inputs, args.output, codec.suffix, inputs_in, whole_folders=args.clip)
    if len(jobs) == 1:
        _check_suffix(jobs[0].target, codec.suffix, codec.name)

    def work(job: Job) -> Result:
        if args.clip or (job.source != STANDARD and taken_as_clip(job.source)):
            return _clip(job.source, codec, options, args)
        return _picture(job.source, codec, options, args)

    with _bar(codec, options):
        return run_jobs(jobs, args, work)


def _picture(source: Path, codec: Any, options: Mapping[str, Any], args: argparse.Namespace) -> "Result":
    """The file of the image ``source``, and what is said of it."""
    from difflate.cli.batch import Result, read_input
    from difflate.codecs.base import codec_of_pictures
    from difflate.codecs.rate_search import encode_picture
    from difflate.errors import ConfigError
    from difflate.format.webp import fallback_notes
    from difflate.media.picture import open_image

    if args.audio or args.fps:
        raise ConfigError("--audio and --fps are for clips; leave them out, or add --clip")
    data = read_input(source)
    picture = open_image(data, metadata=args.metadata)
    with spelled_as_flags():
        coded = encode_picture(
            codec_of_pictures(codec), picture, quality=args.quality, bpp=args.bpp, max_bytes=args.max_bytes,
            options=options,
        )  # fmt: skip
    bpp = 8 * len(coded.data) / (picture.width * picture.height)
    size = f"{picture.width}x{picture.height}"
    reached = f", the most that {codec.name} gives" if coded.short else ""
    line = f"{size} px, {len(data)} -> {len(coded.data)} bytes, {bpp:.3f} bpp{reached}"
    return Result(coded.data, line, (*picture.notes, *fallback_notes(coded.data)))


def _clip(source: Path, codec: Any, options: Mapping[str, Any], args: argparse.Namespace) -> "Result":
    """The file of the clip ``source``, and what is said of it."""
    from difflate.cli.batch import STANDARD, Result
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
    return Result(data, watched.line(len(data)), (*clip.notes, *fallback_notes(data)))


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
