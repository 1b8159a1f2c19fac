"""Many inputs with one output each, as the commands take them: an error does not stop the others."""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from difflate.bulk.work import Result
from difflate.cli.report import report, write_output
from difflate.data.images import files_in, log_hidden
from difflate.errors import ConfigError, DifflateError, LimitExceeded, naming
from difflate.files import atomic_write, check_output
from difflate.limits import INPUT_BYTES

STANDARD = Path("-")
MAX_INPUT_BYTES = INPUT_BYTES
_CHUNK_BYTES = 2**20


Suffix = str | Callable[[Path], str]
"""Of outputs: one for all, or that of an input's."""


@dataclass(frozen=True)
class Job:
    """One file to make from another; `STANDARD` is stdin or stdout."""

    source: Path
    target: Path
    problem: DifflateError | None = None
    """What stands against doing it."""
    folder: bool = False
    """The target is a folder, which who writes it checks."""


def plan(
    inputs: list[Path],
    output: str | None,
    suffix: Suffix,
    find: Callable[[Path], Iterable[Path]],
    whole_folders: bool = False,
) -> list[Job]:
    """The jobs for ``inputs`` (files, folders, ``-``); with ``whole_folders`` a folder is one input as a file is.

    Without ``output`` each result stands beside its input. ``output`` is a file for one input file, unless it is a
    folder or ends in /; for more it is a folder, below which the folders of an input folder are kept.
    Raises ConfigError.
    """
    if STANDARD in inputs and len(inputs) > 1:
        raise ConfigError("- (standard input) must be the only input")
    single = len(inputs) == 1 and (whole_folders or not inputs[0].is_dir())
    if output == str(STANDARD) and not single:
        raise ConfigError("-o - (standard output) takes one input file")
    if single and output is not None and not output.endswith("/") and not Path(output).is_dir():
        return [Job(inputs[0], Path(output))]
    if inputs == [STANDARD]:
        return [Job(STANDARD, STANDARD if output is None else Path(output, f"stdin{_suffix(suffix, STANDARD)}"))]
    return [job for source in inputs for job in _jobs_of(source, output, suffix, find, whole_folders)]


def _suffix(suffix: Suffix, source: Path) -> str:
    return suffix if isinstance(suffix, str) else suffix(source)


def _jobs_of(
    source: Path, output: str | None, suffix: Suffix, find: Callable[[Path], Iterable[Path]], whole_folders: bool
) -> Iterator[Job]:
    if whole_folders or not source.is_dir():
        yield Job(source, output_for(source, source.parent, output, suffix))
        return
    try:
        paths = list(find(source))
    except DifflateError as error:
        yield Job(source, source, error)
        return
    for path in paths:
        yield Job(path, output_for(path, source, output, suffix))


def output_for(path: Path, root: Path, output: str | None, suffix: Suffix) -> Path:
    """Where the result of ``path``, below ``root``, goes: beside it, or below ``output``."""
    ending = _suffix(suffix, path)
    if path.is_dir():
        path = Path(os.path.abspath(path)) if path.name in ("", "..") else path
        target, root = path.with_name(path.name + ending), path.parent
    else:
        target = path.with_suffix(ending) if path.name.strip(".") else path  # with_suffix refuses ".."
    return target if output is None else Path(output, target.relative_to(root))


def run_jobs(jobs: list[Job], args: argparse.Namespace, work: Callable[[Job], Result]) -> int:
    """Runs ``work(job)`` on each job and writes what it gives; returns the worst exit code."""
    from tqdm import tqdm

    worst = 0
    made: dict[Path, Path] = {}
    bar = tqdm(jobs, disable=len(jobs) < 2 or not sys.stderr.isatty(), unit="file", file=sys.stderr)
    for job in bar:
        try:
            _check(job, args.force, made)
            with naming_source(job.source):
                result = work(job)
                notes = [*result.notes]
                if callable(result.data):
                    notes += result.data(job.target)
            source = "stdin" if job.source == STANDARD else job.source
            with bar.external_write_mode(file=sys.stderr):
                for note in notes:
                    print(f"difflate: {source}: {note}", file=sys.stderr)
            if not callable(result.data):
                if job.target == STANDARD:
                    write_output(result.data)
                else:
                    atomic_write(job.target, result.data, args.force)
            if job.target == STANDARD:
                continue
            made[real(job.target)] = job.source
            with bar.external_write_mode(file=sys.stdout):
                print(f"{source} -> {job.target}: {result.line() if callable(result.line) else result.line}")
        except BrokenPipeError:
            raise
        except Exception as error:
            with bar.external_write_mode(file=sys.stderr):
                worst = max(worst, report(error, args.verbose))
    return worst


def _check(job: Job, force: bool, made: dict[Path, Path]) -> None:
    """Raises what stands against a job before its input is read."""
    if job.problem is not None:
        raise job.problem
    if job.target == STANDARD:
        if sys.stdout.isatty():
            raise ConfigError("standard output is a terminal, which cannot show files; name a file with -o")
        return
    check_name(job, made)
    if not job.folder:
        check_output(job.target, force)


def check_name(job: Job, made: Mapping[Path, Path]) -> None:
    """Raises ConfigError for an output that is the input, or in ``made`` already: outputs, `real`, and their inputs."""
    target = real(job.target)
    if target in made:
        raise ConfigError(f"{job.source}: {job.target} is already made from {made[target]}; name another with -o")
    if job.source != STANDARD and target == real(job.source):
        raise ConfigError(f"{job.source}: the output would be the input itself; name another with -o")


def real(path: Path) -> Path:
    """``path`` with its symbolic links followed, to compare it with others."""
    return Path(os.path.realpath(path))


def naming_source(source: Path) -> contextlib.AbstractContextManager[None]:
    """Puts the name of ``source`` in front of the errors raised inside."""
    return naming("standard input" if source == STANDARD else str(source))


def read_input(source: Path) -> bytes:
    """The bytes of a file or of standard input. Raises ConfigError if there is none, LimitExceeded."""
    if source == STANDARD:
        return _read(sys.stdin.buffer, "standard input")
    try:
        with source.open("rb") as file:
            return _read(file, str(source))
    except FileNotFoundError as error:
        raise ConfigError(f"{source}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{source}: is a folder, not a file") from error
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read ({error.strerror}); check the path and its permissions") from error


def _read(file: BinaryIO, name: str) -> bytes:
    """All of ``file``, in parts: a device or a pipe may never end."""
    data = io.BytesIO()
    while part := file.read(_CHUNK_BYTES):
        data.write(part)
        if data.tell() > MAX_INPUT_BYTES:
            raise LimitExceeded(f"{name}: more than {MAX_INPUT_BYTES} bytes, which no input may have")
    return data.getvalue()


def expand(inputs: Iterable[Path], find: Callable[[Path], Iterable[Path]]) -> Iterator[Path]:
    """Files and `STANDARD` as they are named, folders as what ``find`` finds in them. Raises what ``find`` raises."""
    for source in inputs:
        if source.is_dir():
            yield from find(source)
        else:
            yield source


def find_dfl(folder: Path) -> list[Path]:
    """The .dfl files below ``folder``; hidden ones are left out. Raises ConfigError if there are none."""
    return find_compressed(folder, (".dfl",))


def find_compressed(folder: Path, *suffixes: Sequence[str]) -> list[Path]:
    """The files below ``folder`` of the first group of ``suffixes`` that has any; hidden ones are left out.

    Raises ConfigError if none has.
    """
    hidden: list[str] = []
    groups = (files_in(folder, group, hidden) for group in suffixes)
    paths = next((paths for paths in groups if paths), [])
    log_hidden(hidden)
    if not paths:
        raise ConfigError(f"{folder}: no {suffixes[0][0]} files in this folder; name other files one by one")
    return paths
