"""--jobs, --shards, --engine: many inputs at once, with a manifest."""

import argparse
import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflate.cli.arguments import spelled_as_flags
from difflate.errors import ConfigError, DifflateError

if TYPE_CHECKING:
    from difflate.bulk.conversion import Input
    from difflate.bulk.run import Done
    from difflate.bulk.tasks import Load
    from difflate.bulk.workers import Workers
    from difflate.cli.batch import Suffix


_BATCH_OF_GPU = 64
_OPTIONS = "--jobs, --batch, --shards and --engine"


def add_bulk_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of bulk work."""
    group = parser.add_argument_group(
        "many files",
        "-o is a folder, which gets a manifest.jsonl. A second run makes what is missing or has changed, and checks "
        "what is there.",
    )
    add_workers_options(group)
    group.add_argument(
        "--batch", type=int, metavar="N", help="images that a worker codes at once, which a learned codec on a GPU is "
        f"faster by (default: {_BATCH_OF_GPU} with --device cuda, else 1)",
    )  # fmt: skip
    group.add_argument(
        "--shards", action="store_true", help="inputs are .tar files, or folders of them; outputs are .tar files too"
    )


def add_workers_options(parser: "argparse._ActionsContainer") -> None:
    """Adds --jobs and --engine."""
    parser.add_argument("--jobs", type=int, metavar="N", help="so many processes (or workers of Ray) at once")
    parser.add_argument(
        "--engine", choices=("processes", "ray"), help="processes of this machine (default), or a Ray cluster"
    )


def workers_of(args: argparse.Namespace) -> "Workers | None":
    """What --jobs and --engine ask for, if one was given. Raises ConfigError."""
    if args.jobs is None and args.engine is None:
        return None
    from difflate.bulk.workers import Workers
    from difflate.extras import require

    if args.engine == "ray":
        require("ray", "ray")  # before anything is written
    with spelled_as_flags():
        return Workers(1 if args.jobs is None else args.jobs, args.engine or "processes", not _on_cpu(args))


def batch_of(args: argparse.Namespace) -> int:
    """What --batch asks for. Raises ConfigError."""
    if args.batch is None:
        return 1 if _on_cpu(args) else _BATCH_OF_GPU
    if args.batch < 1:
        raise ConfigError(f"--batch (={args.batch}) must be at least 1")
    return args.batch


def _on_cpu(args: argparse.Namespace) -> bool:
    return (getattr(args, "device", None) or "cpu") == "cpu"


def in_bulk(args: argparse.Namespace) -> "Workers | None":
    """Who does the work, if one of these options was given. Raises ConfigError for what does not go with them."""
    from difflate.bulk.workers import Workers

    workers = workers_of(args) or (Workers() if args.shards or args.batch is not None else None)
    if workers is None:
        return None
    if args.output in (None, "-") or Path("-") in args.inputs:
        raise ConfigError(f"{_OPTIONS} need files as inputs, and a folder as output; name it with -o")
    if getattr(args, "clip", False):
        raise ConfigError(f"--clip goes with one clip after the other; leave {_OPTIONS} out")
    batch = batch_of(args)
    return workers if args.shards else dataclasses.replace(workers, batch=batch)  # a shard has batches of its own


def run_in_bulk(
    args: argparse.Namespace,
    workers: "Workers",
    load: "Load",
    settings: Mapping[str, Any],
    suffix: "Suffix",
    find: Callable[[Path], Iterable[Path]],
) -> int:
    """Runs the command on all inputs by what ``load`` gives; returns the worst exit code."""
    from difflate.bulk.run import run_bulk

    began, counts = time.perf_counter(), _Counts()
    inputs = _inputs(args, ".tar" if args.shards else suffix, _shards_in if args.shards else find)
    out = Path(args.output)
    made = run_bulk(inputs, out, load, {**settings, "shards": args.shards}, workers, force=args.force)
    for done in shown(made, len(inputs), "file", _said):
        counts.add(done)
    print(f"{counts.line(time.perf_counter() - began)}; see {out / 'manifest.jsonl'}")
    return counts.code


def shown(
    made: "Generator[Done, None, None]", total: int, unit: str, said: Callable[["Done"], Iterable[str]]
) -> Iterator["Done"]:
    """``made``, with a bar on a terminal and what is ``said`` of each on standard error."""
    from tqdm import tqdm

    bar = tqdm(made, total=total, disable=not sys.stderr.isatty(), unit=unit, file=sys.stderr)
    with contextlib.closing(made):
        for done in bar:
            with bar.external_write_mode(file=sys.stderr):
                for text in said(done):
                    print(f"difflate: {text}", file=sys.stderr)
            yield done


def _inputs(args: argparse.Namespace, suffix: "Suffix", find: Callable[[Path], Iterable[Path]]) -> list["Input"]:
    from difflate.bulk.conversion import Input
    from difflate.cli.batch import check_name, plan, real

    inputs, made = [], dict[Path, Path]()
    for job in plan(args.inputs, args.output.rstrip("/") + "/", suffix, find):
        problem, target = job.problem, job.target
        if problem is None and args.shards and job.source.suffix != ".tar" and job.source.exists():
            problem = ConfigError(f"{job.source}: is no .tar file; leave --shards out, or name others")
        if problem is None and not target.suffix:
            problem = ConfigError(f"{job.source}: a folder of frames is not made in bulk; leave --jobs out")
        if problem is None:
            try:
                check_name(job, made)
                made[real(target)] = job.source
            except DifflateError as error:
                problem = error
        elif not target.is_relative_to(args.output):
            target = Path(args.output, job.source.name)  # an input folder with nothing in it
        inputs.append(Input(job.source, target, problem, args.shards))
    return inputs


def _shards_in(folder: Path) -> list[Path]:
    """The .tar files below ``folder``. Raises ConfigError if there are none."""
    from difflate.cli.batch import find_compressed

    return find_compressed(folder, (".tar",))


def _said(done: "Done") -> list[str]:
    """What standard error is told."""
    entry = done.entry
    if entry.error is not None:
        return [entry.error]
    notes = () if done.kept else entry.notes
    return [f"{entry.source}: {text}" for text in (*notes, *(error for _, error in entry.failed))]


class _Counts:
    """What has come of all inputs."""

    def __init__(self) -> None:
        self.code = 0
        self._made = self._kept = self._failed = self._images = self._bytes = self._read = 0

    def add(self, done: "Done") -> None:
        entry = done.entry
        self.code = max(self.code, entry.code)
        if entry.error is not None:
            self._failed += 1
        elif done.kept:
            self._kept += 1
        else:
            self._made += 1
            self._images += entry.images
            self._read += entry.source_bytes
            self._bytes += entry.bytes

    def line(self, seconds: float) -> str:
        images = f", {self._images} images" if self._images != self._made else ""
        return (
            f"{self._made} made ({self._read} -> {self._bytes} bytes{images}), {self._kept} kept, {self._failed} "
            f"failed; {seconds:.1f} s, {self._images / seconds:.2f} images/s"
        )
