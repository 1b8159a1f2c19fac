"""Many inputs to one folder: what is there already is checked, the rest is made, and a manifest says what was."""

import contextlib
import filecmp
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from difflate.bulk.manifest import Entry, Manifest
from difflate.bulk.processes import in_processes
from difflate.bulk.tasks import Load, Task, sha256
from difflate.errors import ConfigError, DifflateError, exit_code_of, told
from difflate.files import check_output, place

Engine = Literal["processes", "ray"]
_SCRATCH = ".difflate-bulk-"


@dataclass(frozen=True)
class Input:
    """An input and its output, in the folder of outputs."""

    source: Path
    target: Path
    problem: DifflateError | None = None
    """What stands against it."""


@dataclass(frozen=True)
class Done:
    """What is known of an input now."""

    entry: Entry
    kept: bool = False
    """It was made before, and is as it was."""


def run_bulk(
    inputs: Sequence[Input],
    out: Path,
    load: Load,
    settings: Mapping[str, Any],
    *,
    jobs: int = 1,
    engine: Engine = "processes",
    shards: bool = False,
    gpu: bool = False,
    force: bool = False,
) -> Generator[Done, None, None]:
    """What comes of each of ``inputs``, as it comes; outputs in the folder ``out``, or below it.

    ``settings``: (JSON) what outputs depend on; a manifest in ``out`` that was made with others is refused. ``load``:
    what a worker calls once. ``shards``: inputs are tar archives. ``gpu``: the workers of Ray share the GPUs. An input
    is not made again if the manifest has it, it has not changed since, and its output is as it was. What is there and
    not in the manifest is only replaced with ``force``, which also makes all anew.

    An output is complete or not there, whenever this process or a worker ends. Raises ConfigError, FormatError and
    OutputExists for the manifest, DifflateError, and what ``load`` raises; an error of one input is in its entry.
    """
    if jobs < 1:
        raise ConfigError(f"jobs (={jobs}) must be at least 1")
    manifest = Manifest(out, settings, anew=force)
    try:
        with _scratch(out) as scratch:
            tasks: list[Task] = []
            for number, each in enumerate(inputs):
                output = each.target.relative_to(out).as_posix()
                entry = manifest.entries.get(output)
                if each.problem is not None:
                    # another input's output may have this name: its entry stays
                    yield Done(_failed(Entry(str(each.source), output), each.problem))
                elif entry is not None and entry.error is None and _stands(entry, each):
                    yield Done(entry, kept=True)
                elif entry is None and not manifest.resumed and (problem := _in_the_way(each.target, force)):
                    manifest.add(entry := _failed(Entry(str(each.source), output), problem))
                    yield Done(entry)
                else:
                    path = scratch / f"{number}{each.target.suffix}"
                    tasks.append(Task(number, str(each.source), output, str(each.target), str(path), shards))
            if engine == "ray":
                from difflate.bulk.cluster import on_ray

                made = on_ray(tasks, load, jobs, gpu)
            else:
                made = in_processes(tasks, load, jobs)
            with contextlib.closing(made):
                for task, entry in made:
                    known = manifest.entries.get(task.output)
                    entry = _placed(task, entry, force or (known is not None and known.error is None))
                    manifest.add(entry)
                    yield Done(entry)
    finally:
        manifest.close()


def _stands(entry: Entry, given: Input) -> bool:
    """Whether the input is that of the entry, and the output too."""
    try:
        status = given.source.stat()
        if (status.st_size, status.st_mtime_ns) != (entry.source_bytes, entry.source_mtime_ns):
            return False
        if given.target.stat().st_size != entry.bytes:
            return False
        return sha256(given.target) == entry.sha256
    except OSError:
        return False


def _in_the_way(target: Path, force: bool) -> DifflateError | None:
    """What stands against writing ``target``, told before any work is done for it."""
    try:
        check_output(target, force)
    except DifflateError as error:
        return error
    return None


def _placed(task: Task, entry: Entry, force: bool) -> Entry:
    """Gives what a worker has written its name; the entry then, with the error if that cannot be done."""
    if entry.error is not None:
        return entry
    scratch, target = Path(task.scratch), Path(task.target)
    try:
        # an earlier run may have been killed between this and its entry; then the same is there
        if force or not (target.is_file() and filecmp.cmp(scratch, target, shallow=False)):
            place(scratch, target, force)
    except (DifflateError, OSError) as error:
        return _failed(replace(entry, bytes=0, sha256=""), error)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
    return entry


def _failed(entry: Entry, error: Exception) -> Entry:
    return replace(entry, error=told(error), code=exit_code_of(error))


@contextlib.contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A folder in ``out`` for what is being written; those of runs that were killed are removed."""
    for old in out.glob(f"{_SCRATCH}*"):
        shutil.rmtree(old, ignore_errors=True)
    try:
        folder = tempfile.TemporaryDirectory(dir=out, prefix=_SCRATCH, ignore_cleanup_errors=True)
    except OSError as error:
        raise DifflateError(f"{out}: cannot be written ({error.strerror or error}); choose another output") from error
    with folder as name:
        yield Path(name)
