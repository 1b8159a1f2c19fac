"""`difflate decompress INPUT…`."""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflate.cli.arguments import (
    add_codec_options,
    add_download_option,
    as_flags,
    codec_options,
    input_path,
    name_of,
    output_path,
    spelled_as_flags,
)
from difflate.cli.batch import STANDARD
from difflate.cli.bulk import add_bulk_options, batch_of
from difflate.cli.device import add_device_option
from difflate.cli.report import write_output
from difflate.files import make_folder

if TYPE_CHECKING:
    from difflate.bulk.work import Result
    from difflate.codecs.base import Codec
    from difflate.media.clip import Clip
    from difflate.media.picture import Picture

_EPILOG = """examples:
  difflate decompress photo.dfl                      photo.png, beside it
  difflate decompress photo.dfl -o photo.jpg
  difflate decompress small/ -o restored/            all .dfl files below small/
  difflate decompress small/ -o restored/ --jobs 8   by 8 processes; again: what is missing
  difflate decompress - -o - --format webp < photo.dfl > photo.webp
  difflate decompress photo.dfl --refine             of opq-32-8-8: improved by its refiner
  difflate decompress clip.dfl                       clip.mkv, beside it
  difflate decompress clip.dfl -o clip.mp4
  difflate decompress clip.dfl -o frames --format png
  difflate decompress clip.dfl -o - | ffplay -
  difflate decompress cut.dfl --salvage              what is left of a damaged clip"""
_PEEKED_BYTES = 2**16
"""Of a file, to know whether it is a clip: all that stands before its frames' section."""
_VIDEO = ("mkv", "mp4", "webm", "y4m")
"""Formats of clips; their frames are written as png."""
_COMPRESSED = ((".dfl",), (".avif", ".jxl", ".webp"))
"""What is restored of a folder: the second group where there is none of the first."""
_SAVE: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "AVIF": {"quality": 95}}
"""What was restored should not lose again what can be seen."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds the command to the command line."""
    parser = subparsers.add_parser(
        "decompress",
        help="restore images and clips from compressed files",
        description="Restore images and clips. The codec and its model are found from the file itself. Without -o "
        "each output\nstands beside its input, an image as PNG, a clip as .mkv (FFV1): what was restored is not lossy "
        "a second\ntime. Another format is chosen by the suffix of -o or by --format: of clips .mp4 (H.264) or .webm "
        "(VP9)\nfor players and browsers, .y4m, or png for a folder of frames. To standard output a clip is y4m.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        type=input_path,
        metavar="INPUT",
        help=".dfl, classical image or video files, folders of .dfl files (of .avif, .jxl and .webp, if there are "
        "none), or - for stdin",
    )
    parser.add_argument(
        "-o", "--output", type=output_path, metavar="OUT", help="file (one input), folder, or - for stdout"
    )
    parser.add_argument("--codec", type=name_of, metavar="FOLDER", help="for .dfl files: a model that is not bundled")
    add_download_option(parser)
    add_codec_options(parser, "decoding")
    parser.add_argument(
        "--format",
        metavar="SUFFIX",
        help="png, jpg, webp, avif, tif, bmp … (default: png), of clips mkv, "
        "mp4, webm, y4m, or png: a folder of frames (default: mkv, on standard output y4m)",
    )
    parser.add_argument(
        "--salvage", action="store_true", help="of a clip that was cut or damaged, restore the frames before the damage"
    )
    parser.add_argument("-f", "--force", action="store_true", help="overwrite outputs")
    add_device_option(parser, "cpu")
    add_bulk_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Restores each input; returns the worst exit code."""
    from difflate.cli.batch import find_compressed, plan, run_jobs
    from difflate.cli.bulk import in_bulk, run_in_bulk
    from difflate.codecs.groups import result_of

    workers = in_bulk(args)
    work = _Restoring(args, device=None if workers else args.device)
    named = work.named

    def suffix_of(source: Path) -> str:
        if not _holds_clip(source):
            return f".{named or 'png'}"
        return f".{named or 'mkv'}" if named in (None, *_VIDEO) else ""

    def find(folder: Path) -> list[Path]:
        return find_compressed(folder, *_COMPRESSED)

    if workers:
        settings = {"command": "decompress", "codec": args.codec, "format": named, "salvage": args.salvage}
        settings |= {"model": getattr(work.codec, "fingerprint", b"").hex() or None}
        load = functools.partial(_Restoring, args, args.device)
        settings |= {"options": codec_options(args, "decoding")}
        return run_in_bulk(args, workers, load, settings, suffix_of, find)
    jobs = plan(args.inputs, args.output, suffix_of, find)
    frames = named is not None and named not in _VIDEO
    jobs = [dataclasses.replace(job, folder=frames and _holds_clip(job.source)) for job in jobs]
    return run_jobs(jobs, args, lambda job: result_of(work.files([(job.source, job.target)])))


class _Restoring:
    """What is done with each input: a `difflate.bulk.work.Work`."""

    def __init__(self, args: argparse.Namespace, device: str | None):
        """Loads what is named. Raises what is wrong with all inputs."""
        from difflate.cli.device import device_of
        from difflate.codecs.loading import load_for_files
        from difflate.errors import ConfigError

        self.named = args.format.lower().lstrip(".") if args.format else None
        if self.named is not None and self.named not in _VIDEO and image_kind(f".{self.named}") is None:
            raise ConfigError(
                f"--format (={args.format}) is no image format; choose png, jpg, webp, avif, tif or bmp, of "
                "clips mkv, mp4, webm, y4m or png"
            )
        self._args, self._device, self.batch = args, device and device_of(device), batch_of(args)
        with spelled_as_flags():
            self.codec: Codec | None = load_for_files(args.codec, args.allow_download) if args.codec else None
        self._options = codec_options(args, "decoding")
        if "refiner" in self._options:  # read once for all inputs
            from difflate.models.refiner import open_refiner

            self._options["refiner"] = open_refiner(args.refiner, allow_download=args.allow_download)

    def files(self, inputs: Sequence[tuple[Path, Path]]) -> "list[Result | Exception]":
        from difflate.codecs.groups import in_groups

        return in_groups(inputs, lambda given: self._file(*given), self._made)

    def suffix_of_member(self, name: str) -> str | None:
        compressed = {suffix for group in _COMPRESSED for suffix in group}
        return f".{self.named or 'png'}" if Path(name).suffix.lower() in compressed else None

    def members(self, members: Sequence[tuple[str, bytes]]) -> "list[Result | Exception]":
        from difflate.codecs.groups import in_groups

        suffix = f".{self.named or 'png'}"
        return in_groups(members, lambda each: self._picture(each[1], Path(each[0]).with_suffix(suffix)), self._made)

    def _file(self, source: Path, target: Path) -> tuple[Any, int, Any]:
        """What `in_groups` asks of an input: a `_Coded`, or what makes the result of a clip, by itself."""
        from difflate.cli.batch import read_input
        from difflate.cli.clips import taken_as_clip
        from difflate.format import container

        if source != STANDARD and taken_as_clip(source):
            return source, 1, functools.partial(_clip_of_video, source, self.named, self._options, self._args)
        data = read_input(source)
        if self._args.salvage or container.begins_as_clip(data[:_PEEKED_BYTES]):
            return source, 1, functools.partial(_clip, data, self.codec, self.named, self._options, self._args)
        return self._picture(data, target)

    def _picture(self, data: bytes, target: Path) -> tuple[tuple[int, bool], int, "_Coded"]:
        from difflate.codecs.groups import LARGE_PX
        from difflate.codecs.loading import codec_for
        from difflate.errors import ConfigError
        from difflate.format import container

        suffix = target.suffix.lower() if target != STANDARD and self.named is None else f".{self.named or 'png'}"
        kind = image_kind(suffix)
        if kind is None:
            raise ConfigError(f"output (={target}) has a suffix of no image format; end it in .png, or use --format")
        chosen: Any = self.codec if self.codec and data.startswith(container.MAGIC) else codec_for(data)
        if self._device is not None and hasattr(chosen, "to"):
            chosen.to(self._device)
        alone = True
        if hasattr(chosen, "decode_many"):
            file = container.read_dfl(data)
            alone = file.width * file.height > LARGE_PX
        return (id(chosen), alone), 1 if alone else self.batch, _Coded(data, chosen, kind)

    def _made(self, group: Sequence[Any]) -> "Sequence[Result | Exception]":
        from difflate.codecs.groups import one_by_one

        first = group[0]
        if not isinstance(first, _Coded):
            return [first()]
        if not hasattr(first.codec, "decode_many"):
            with spelled_as_flags():
                return [first.result(first.codec.decode(first.data, **self._options))]
        pictures = first.codec.decode_many([each.data for each in group], **self._options)
        return one_by_one(zip(group, pictures, strict=True), lambda pair: pair[0].result(pair[1]))


@dataclasses.dataclass(frozen=True)
class _Coded:
    """A file that was read, whose codec was found."""

    data: bytes
    codec: Any
    kind: str
    """Of the file that it becomes, as Pillow calls it."""

    def result(self, picture: "Picture | Exception") -> "Result":
        """The file of its ``picture``, and what is said of it. Raises ``picture``, if that is an error."""
        from difflate.bulk.work import Result

        if isinstance(picture, Exception):
            raise as_flags(picture)
        line = f"{picture.width}x{picture.height} px"
        return Result(image_file(picture, self.kind), line, picture.notes, (picture.width, picture.height))


def _clip(
    data: bytes, codec: "Codec | None", named: str | None, options: dict[str, Any], args: argparse.Namespace
) -> "Result":
    """What writes the clip in the .dfl file ``data``, and what is said of it."""
    from difflate.bulk.work import Result
    from difflate.cli.clips import clip_line
    from difflate.codecs.base import codec_of_clips
    from difflate.codecs.loading import codec_of
    from difflate.errors import ChecksumError, TruncatedError
    from difflate.format.salvage import salvage_clip_file, salvageable
    from difflate.format.stream import read_clip_file

    try:
        file = salvage_clip_file(data) if args.salvage else read_clip_file(data)
    except (TruncatedError, ChecksumError) as error:
        left = salvageable(data)
        raise type(error)(f"{error}; --salvage restores {left} frames" if left else str(error)) from error
    chosen = codec_of_clips(codec or codec_of(file.header))
    with spelled_as_flags():
        clip = chosen.decode_clip(data, **({"salvage": True} if args.salvage else {}), **options)
    line = clip_line(clip.width, clip.height, file.frames, file.seconds, len(data))
    return Result(_writer(clip, named, args.force), line, size=(clip.width, clip.height))


def _clip_of_video(source: Path, named: str | None, options: dict[str, Any], args: argparse.Namespace) -> "Result":
    """What writes the clip in a video file as another one, and what is said of it."""
    from difflate.bulk.work import Result
    from difflate.cli.clips import Watched
    from difflate.errors import ConfigError
    from difflate.media.video import open_clip
    from difflate.options import Options

    if args.salvage:
        raise ConfigError("--salvage is for .dfl files; leave it out")
    Options.of(options, "video files")
    clip = open_clip(source, audio=True)
    watched = Watched(clip)
    size_bytes = source.stat().st_size
    writer = _writer(dataclasses.replace(clip, frames=watched), named, args.force)
    return Result(writer, lambda: watched.line(size_bytes), size=(clip.width, clip.height))


def _writer(clip: "Clip", named: str | None, force: bool) -> Callable[[Path], Sequence[str]]:
    """What writes ``clip`` in the format ``named``, else in that of the target's suffix; y4m to standard output."""
    from difflate.cli.clips import Watched
    from difflate.errors import ConfigError
    from difflate.media.video import write_clip

    if named not in (None, "png", *_VIDEO):
        raise ConfigError(f"--format (={named}) is for images; choose mkv, mp4, webm, y4m, or png for its frames")

    def write(target: Path) -> Sequence[str]:
        shown = clip if isinstance(clip.frames, Watched) else dataclasses.replace(clip, frames=Watched(clip))
        form = "folder" if named == "png" else named
        if target == STANDARD:
            notes = _write_to_output(shown, form)
        else:
            make_folder(target)
            notes = write_clip(shown, target, format=form, force=force)
        return [*clip.notes, *notes]

    return write


class _Output:
    """Standard output as a file; `problem` is what writing to it raised."""

    problem: Exception | None = None

    def write(self, data: bytes) -> int:
        try:
            write_output(data)
        except Exception as error:
            self.problem = error
            raise
        return len(data)


def _write_to_output(clip: "Clip", form: str | None) -> Sequence[str]:
    """Raises as `write_output`, and as `difflate.media.video.write_clip`."""
    from difflate.errors import DifflateError
    from difflate.media.video import write_clip

    output: Any = _Output()
    try:
        return write_clip(clip, output, format=form)
    except DifflateError:
        if output.problem is not None:  # FFmpeg, which is between, knows only that there was one
            raise output.problem from None
        raise


def _holds_clip(source: Path) -> bool:
    """Whether the file ``source`` is a video or a .dfl file of a clip; False for what cannot be read, and stdin."""
    from difflate.cli.clips import taken_as_clip
    from difflate.format.container import begins_as_clip

    if source == STANDARD or not source.is_file():
        return False
    if taken_as_clip(source):
        return True
    try:
        with source.open("rb") as file:
            return begins_as_clip(file.read(_PEEKED_BYTES))
    except OSError:
        return False


def image_kind(suffix: str) -> str | None:
    """Pillow's name of the format that it writes for a suffix, if it does."""
    from PIL import Image

    Image.init()
    kind = Image.registered_extensions().get(suffix)
    # Pillow knows .dfl too once `difflate.integrations.pillow` is imported: nothing is restored to it
    return kind if kind in Image.SAVE and suffix != ".dfl" else None


def image_file(picture: "Picture", kind: str) -> bytes:
    """The bytes of an image file of format ``kind``. Raises ConfigError if it cannot hold the picture."""
    import io

    from difflate.errors import ConfigError
    from difflate.media.picture import to_pil

    image, file = to_pil(picture), io.BytesIO()
    if kind in ("JPEG", "BMP") and image.mode in ("RGBA", "LA"):
        raise ConfigError(f"{kind} cannot hold the image's alpha; restore it as PNG or WebP")
    carried = {key: image.info[key] for key in ("exif", "icc_profile", "xmp") if key in image.info}
    try:
        image.save(file, kind, **carried, **_SAVE.get(kind, {}))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{kind} cannot hold this image ({error}); restore it as PNG") from error
    return file.getvalue()
