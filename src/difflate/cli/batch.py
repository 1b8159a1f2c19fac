"""What the commands share: inputs as bytes, many inputs with one output each, errors that do not stop the others."""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from difflate.errors import ConfigError, DifflateError, LimitExceeded
from difflate.files import atomic_write, check_output

STANDARD = Path("-")
MAX_INPUT_BYTES = 2**30
"""What is read into memory at most: twice the largest image that is within the limits, not compressed at all."""
_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Job:
    """One file to make from another; `STANDARD` is stdin or stdout."""

    source: Path
    target: Path
    problem: DifflateError | None = None
    """What stands against doing it."""


def input_path(text: str) -> Path:
    """A path of the command line. Raises ArgumentTypeError if it is empty, as an unset variable of a script is."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a file, a folder or -")
    return Path(text)


def name_of(text: str) -> str:
    """The name or folder of a model. Raises ArgumentTypeError if it is empty."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a model or its folder")
    return text


def add_download_option(parser: argparse.ArgumentParser) -> None:
    """Adds --allow-download, which alone lets a command use the network."""
    parser.add_argument(
        "--allow-download", action="store_true", help="fetch the model of a Hugging Face repository if it is not here"
    )


def add_diffusion_options(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds what the codec `cdc` is decoded with, and --tile; ``default`` says what holds without them."""
    steps = f"cdc: steps of diffusion, 1 to 65; 0: none, the preview (default: {default})"
    parser.add_argument("--steps", type=int, metavar="N", help=steps)
    gamma = f"cdc: size of the noise that diffusion starts from, 0: none (default: {default})"
    parser.add_argument("--gamma", type=float, metavar="G", help=gamma)
    parser.add_argument("--seed", type=int, metavar="S", help=f"cdc: of that noise (default: {default})")
    parser.add_argument("--tile", type=int, metavar="PX", help=_TILE_HELP)


_TILE_HELP = (
    "side of the tiles of large images: half of it takes about a quarter of the memory; 656 at least (default: 896); "
    "with --refine any side, and too small ones are enlarged"
)


def output_path(text: str) -> str:
    """An output of the command line: text, because a Path loses the / at the end of a folder's name."""
    return str(input_path(text)) + ("/" if text.endswith(("/", os.sep)) else "")


def plan(inputs: list[Path], output: str | None, suffix: str, find: Callable[[Path], Iterable[Path]]) -> list[Job]:
    """The jobs for ``inputs`` (files, folders, ``-``).

    Without ``output`` each result stands beside its input. ``output`` is a file for one input file, unless it is a
    folder or ends in /; for more it is a folder, below which the folders of an input folder are kept.
    Raises ConfigError.
    """
    if STANDARD in inputs and len(inputs) > 1:
        raise ConfigError("- (standard input) must be the only input")
    single = len(inputs) == 1 and not inputs[0].is_dir()
    if output == str(STANDARD) and not single:
        raise ConfigError("-o - (standard output) takes one input file")
    if single and output is not None and not output.endswith("/") and not Path(output).is_dir():
        return [Job(inputs[0], Path(output))]
    if inputs == [STANDARD]:
        return [Job(STANDARD, STANDARD if output is None else Path(output, f"stdin{suffix}"))]
    return [job for source in inputs for job in _jobs_of(source, output, suffix, find)]


def _jobs_of(source: Path, output: str | None, suffix: str, find: Callable[[Path], Iterable[Path]]) -> Iterator[Job]:
    if not source.is_dir():
        yield Job(source, _placed(source, source.parent, output, suffix))
        return
    try:
        found = list(find(source))
    except DifflateError as error:
        yield Job(source, source, error)
        return
    for path in found:
        yield Job(path, _placed(path, source, output, suffix))


def _placed(path: Path, root: Path, output: str | None, suffix: str) -> Path:
    target = path.with_suffix(suffix) if path.name.strip(".") else path  # with_suffix refuses ".."
    return target if output is None else Path(output, target.relative_to(root))


def run_jobs(jobs: list[Job], args: argparse.Namespace, work: Callable[[Job, bytes], tuple[bytes, str]]) -> int:
    """Runs ``work(job, input bytes) -> (output bytes, what to say of it)`` on each job; returns the worst exit code."""
    from tqdm import tqdm

    from difflate.cli.main import report

    worst = 0
    made: dict[Path, Path] = {}
    bar = tqdm(jobs, disable=len(jobs) < 2 or not sys.stderr.isatty(), unit="file", file=sys.stderr)
    for job in bar:
        try:
            _check(job, args.force, made)
            with named(job.source):
                result, line = work(job, read_input(job.source))
            if job.target == STANDARD:
                write_output(result)
                continue
            atomic_write(job.target, result, args.force)
            made[real(job.target)] = job.source
            source = "stdin" if job.source == STANDARD else job.source
            with bar.external_write_mode(file=sys.stdout):
                print(f"{source} -> {job.target}: {line}")
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
    target = real(job.target)
    if target in made:
        raise ConfigError(f"{job.source}: {job.target} is already made from {made[target]}; name another with -o")
    if job.source != STANDARD and target == real(job.source):
        raise ConfigError(f"{job.source}: the output would be the input itself; name another with -o")
    check_output(job.target, force)


def real(path: Path) -> Path:
    """``path`` with its symbolic links followed, to compare it with others."""
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def named(source: Path) -> Iterator[None]:
    """Puts the name of ``source`` in front of the errors raised inside, unless it stands there."""
    try:
        yield
    except DifflateError as error:
        name, message = "standard input" if source == STANDARD else str(source), str(error)
        if message.startswith((f"{name}:", f"{name} ")):
            raise
        # what the library calls bytes without a name
        rest = message.removeprefix("image data")
        joined = name + rest if rest != message and rest[:1] in (":", " ") else f"{name}: {message}"
        raise type(error)(joined) from error


def write_output(data: bytes) -> None:
    """Writes to standard output. Raises DifflateError, and BrokenPipeError where nobody reads it any more."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_failed(error) from error


def output_failed(error: OSError) -> DifflateError:
    """What is said of standard output that cannot be written."""
    return DifflateError(f"standard output: cannot be written ({error.strerror}); choose another output")


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
            raise LimitExceeded(f"{name}: more than {MAX_INPUT_BYTES} bytes, which no image within the limits has")
    return data.getvalue()
