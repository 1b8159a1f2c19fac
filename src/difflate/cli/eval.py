"""``difflate eval``: codecs measured on images or clips, with a report."""

import argparse
import functools
import json
import shlex
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from difflate.cli.arguments import add_download_option, add_overlay_option
from difflate.cli.bulk import add_workers_options, workers_of
from difflate.evaluate import measures

if TYPE_CHECKING:
    from tqdm import tqdm

    from difflate.evaluate.compressai import Overlay
    from difflate.evaluate.journal import Journal
    from difflate.evaluate.means import Anchor
    from difflate.evaluate.records import Record
    from difflate.evaluate.settings import CodecSetting

INTERVAL_S = 10.0
"""Between two lines of progress where stderr is no terminal."""
DEFAULT_CODECS = {
    "images": "jpeg:10..90..20,webp:10..90..20,opq-32-8-8",
    "clips": "avc:20..45..5,hevc:20..45..5,av1:25..60..5",
}
DEFAULT_ANCHORS = {"images": "jpeg", "clips": "avc"}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to those of ``difflate``."""
    parser = subparsers.add_parser(
        "eval",
        help="measure codecs on images or clips: rate, PSNR, SSIM, MS-SSIM, SSIMULACRA2 or flicker, times",
        description="Encodes every image with every codec setting to a file's bytes, decodes those bytes again, and "
        "writes\nreport.html (a page for a browser: curves, tables, pictures side by side), results.json, results.md,\n"
        "rate_distortion.png and the restored images. Alpha and metadata are left out of files and metrics.\n"
        "Clips, with their frames one after the other, are measured likewise, without their sound.\n"
        "If it is interrupted, the same command with the same --out goes on.\nNeeds pip install "
        "'difflate[eval]'.",
        epilog="examples:\n  difflate eval kodak/ --out report/\n"
        "  difflate eval photo.png --codecs jpeg:50,webp:10..90..20,jxl:1.0,opq-32-8-8 --json\n"
        "  difflate eval kodak/ --codecs webp:10..90..20,avif:20..80..20 --anchor webp --lpips alex\n"
        "  difflate eval clip.mp4 --codecs avc:20..40..5,av1+preset=4:50,diffae-small --lpips alex --vmaf",
    )
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGES", help="image files, or folders of them; or clips, likewise"
    )
    parser.add_argument(
        "--codecs",
        metavar="LIST",
        help="name, name:quality or name:low..high..step, separated by commas; options behind the name, as in "
        f"cdc-small+steps=4:30 or avif+speed=0:50 (default: {DEFAULT_CODECS['images']}; of clips "
        f"{DEFAULT_CODECS['clips']})",
    )
    for measure in measures.MEASURES:
        if measure.optional:
            text = f"measure {measure.title}{f' of {measure.of}' * bool(measure.of)} too"
            if measure.nets:
                text += ", with that network, whose weights must be there: none are downloaded"
                parser.add_argument(f"--{measure.key}", choices=measure.nets, help=text)
            else:
                parser.add_argument(f"--{measure.key}", action="store_true", help=text)
    parser.add_argument(
        "--anchor",
        metavar="CODEC",
        help="the codec that BD-rates are relative to, with four or more qualities (default: jpeg, of clips avc, if "
        "it has them)",
    )
    parser.add_argument(
        "--bpp-range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="BD-rates only over the qualities that the anchor has between these rates",
    )
    add_download_option(parser)
    parser.add_argument("--out", type=Path, metavar="REPORT", help="folder for the report (default: none is written)")
    parser.add_argument(
        "--no-pictures", action="store_true", help="keep no restored images in REPORT, and show none in its page"
    )
    add_overlay_option(parser)
    parser.add_argument(
        "--export-compressai",
        action="store_true",
        help="write each codec's curve as a result file of CompressAI too, into REPORT/compressai/",
    )
    parser.add_argument("--max-images", type=int, metavar="N", help="stop after the first N images")
    parser.add_argument(
        "--holdback",
        type=int,
        metavar="N",
        help="only the N images that a training with holdback=N on IMAGES kept back",
    )
    add_workers_options(
        parser.add_argument_group(
            "many images",
            "Workers of one thread each measure at once. Their times do not compare with those of one process, as the "
            "report says. With Ray, --out is a folder that all machines see.",
        )
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument(
        "-f", "--force", action="store_true", help="overwrite a report that is there, start an interrupted run anew"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The worst exit code of all images; the report and the table hold the images that could be measured."""
    from difflate.codecs import loading
    from difflate.evaluate.journal import Journal
    from difflate.evaluate.pictures import PictureFolder
    from difflate.evaluate.records import worst_exit_code
    from difflate.evaluate.report import JOURNAL, as_json, bd_table, check_output, table, write_report
    from difflate.evaluate.run import evaluate, find_images, kind_of_files
    from difflate.evaluate.settings import parse_codecs

    _check_report_options(args)
    workers = workers_of(args)
    overlays = _overlays(args)
    journal = Journal(args.out / JOURNAL) if args.out else None
    # who began the run that is to be gone on with agreed to overwrite what was there
    force = args.force or (journal is not None and journal.kept > 0)
    if args.out:
        check_output(args.out, force)
    images = find_images(args.images, args.max_images, args.holdback)
    kind = kind_of_files(images)
    args.codecs = args.codecs or DEFAULT_CODECS[kind]
    args.default_anchor = DEFAULT_ANCHORS[kind]
    allowed = {"allow_download": True} if args.allow_download else {}
    load = functools.partial(loading.load, **allowed)
    cached = functools.cache(load)
    settings = parse_codecs(args.codecs, cached)
    anchor = _anchor(args, settings)
    if journal is not None and args.force:
        journal.remove()
    pictures = PictureFolder(args.out) if args.out and kind == "images" and not args.no_pictures else None
    with Progress(len(images) * len(settings), journal) as progress:
        records = evaluate(
            images,
            settings,
            load=load if workers else cached,  # the one goes to other processes
            also=_also(args),
            journal=journal,
            pictures=pictures,
            progress=progress.add,
            workers=workers,
            out=args.out,
        )
    command = _command(args)
    if args.out:
        write_report(
            records,
            args.out,
            command=command,
            force=force,
            anchor=anchor,
            overlays=overlays,
            pictures=pictures,
        )
        if args.export_compressai:
            _export(args.out, records, command)
    if journal is not None:
        journal.remove()
    if args.json:
        print(json.dumps(as_json(records, command, anchor, pictures is not None), allow_nan=False))
    else:
        print("\n".join(part for part in (table(records), bd_table(records, anchor)) if part), end="")
    return worst_exit_code(records)


def _check_report_options(args: argparse.Namespace) -> None:
    """Raises ConfigError for options of a report without one."""
    from difflate.errors import ConfigError

    given = {
        "--overlay": args.overlay,
        "--export-compressai": args.export_compressai,
        "--no-pictures": args.no_pictures,
    }
    for flag, value in given.items():
        if value and not args.out:
            raise ConfigError(f"{flag} is for the report; add --out REPORT")
    if args.engine == "ray" and not args.out:
        raise ConfigError("--engine ray needs a folder that all machines see; add --out REPORT")


def _overlays(args: argparse.Namespace) -> "list[Overlay]":
    """The curves of --overlay, read before hours of work. Raises ConfigError and FormatError."""
    from difflate.evaluate.compressai import read_overlay

    return [read_overlay(path) for path in args.overlay]


def _export(folder: Path, records: "list[Record]", command: str) -> None:
    from difflate import files
    from difflate.evaluate.compressai import file_name, to_compressai

    for codec, content in to_compressai(records, command).items():
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        files.atomic_write(folder / "compressai" / file_name(codec), text.encode())


class Progress:
    """Says on stderr how far a run is: a bar on a terminal, elsewhere a line every ten seconds; and what failed."""

    def __init__(self, total: int, journal: "Journal | None"):
        self.total, self.journal = total, journal
        self.done = 0
        self.bar: tqdm | None = None
        self._said: set[tuple[str, str]] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._say_regularly, daemon=True)
        self._start_s = time.monotonic()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, file=sys.stderr, unit="file")
        else:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if self.bar is not None:
            self.bar.close()
        else:
            self._ended.set()
            self._thread.join()
        if self.journal is None:
            return
        if kind is not None and issubclass(kind, KeyboardInterrupt) and self.journal.kept:
            _say(f"{self.journal.path} has what was measured; the same command without --force goes on from there")
        elif kind is None and self.journal.reused:
            _say(f"{self.journal.reused} of {self.total} were measured before the interruption")

    def add(self, record: "Record") -> None:
        """Counts ``record`` and says what its error is."""
        self.done += 1
        if self.bar is not None:
            self.bar.update()
        if record.error and (record.image, record.error) not in self._said:
            self._said.add((record.image, record.error))  # an image that cannot be read fails with every codec
            if self.bar is not None:
                self.bar.clear()
            _say(f"{record.image}: {record.error}")

    def line(self, elapsed_s: float) -> str:
        """How many records there are, and the time that those which are missing will take."""
        measured = self.done - (self.journal.reused if self.journal else 0)
        left = f", {_duration(elapsed_s / measured * (self.total - self.done))} left" if measured > 0 else ""
        return f"{self.done} of {self.total} measured{left}"

    def _say_regularly(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            _say(self.line(time.monotonic() - self._start_s))


def _say(text: str) -> None:
    print(f"difflate: {text}", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _anchor(args: argparse.Namespace, settings: "list[CodecSetting]") -> "Anchor":
    """What BD-rates are relative to. Raises ConfigError for one that was asked for and cannot be."""
    from difflate.errors import ConfigError
    from difflate.evaluate.means import Anchor
    from difflate.metrics.bjontegaard import MIN_POINTS

    anchor = Anchor(args.anchor or args.default_anchor, args.bpp_range and tuple(args.bpp_range))
    count = sum(setting.codec == anchor.codec for setting in settings)
    if count < MIN_POINTS and (args.anchor or args.bpp_range):
        raise ConfigError(
            f"anchor (={anchor.codec}) has {count} qualities in --codecs; BD-rates need {MIN_POINTS}, "
            f"such as {anchor.codec}:LOW..HIGH..STEP"
        )
    return anchor


def _command(args: argparse.Namespace) -> str:
    """The command that repeats the run, without the options that only say where its results go."""
    words = ["difflate", "eval", *map(str, args.images), "--codecs", args.codecs]
    for key, net in _also(args).items():
        words += [f"--{key}", net] if net else [f"--{key}"]
    if args.anchor:
        words += ["--anchor", args.anchor]
    if args.bpp_range:
        words += ["--bpp-range", *map(str, args.bpp_range)]
    if args.allow_download:
        words.append("--allow-download")
    if args.max_images is not None:
        words += ["--max-images", str(args.max_images)]
    if args.holdback is not None:
        words += ["--holdback", str(args.holdback)]
    if args.jobs is not None:
        words += ["--jobs", str(args.jobs)]
    if args.engine is not None:
        words += ["--engine", args.engine]
    return shlex.join(words)


def _also(args: argparse.Namespace) -> dict[str, str | None]:
    """The optional measures that are asked for, with the network of those that have one."""
    given = {measure.key: getattr(args, measure.key) for measure in measures.MEASURES if measure.optional}
    return {key: None if value is True else value for key, value in given.items() if value}
