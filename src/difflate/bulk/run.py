"""Many inputs to one folder: what is there already is checked, the rest is made, and a manifest says what was."""

import contextlib
import filecmp
import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difflate.bulk.manifest import Entry, Manifest
from difflate.bulk.outputs import OutputTask, Wanted, failed, sha256
from difflate.bulk.tasks import Load
from difflate.bulk.workers import Workers
from difflate.errors import DifflateError
from difflate.files import check_output, place

_OF_INPUTS = ("source_bytes", "source_mtime_ns", "source_sha256")
_SCRATCH = ".difflate-bulk-"


@dataclass(frozen=True)
class Done:
    """What is known of an output now."""

    entry: Entry
    kept: bool = False
    """It was made before, and is as it was."""


def run_bulk(
    wanted: Sequence[Wanted],
    out: Path,
    load: Load,
    settings: Mapping[str, Any],
    workers: Workers,
    *,
    force: bool = False,
    replaced: Iterable[Path] = (),
) -> Generator[Done, None, None]:
    """What comes of each of ``wanted``, as it comes; outputs in the folder ``out``, or below it.

    ``settings``: (JSON) what outputs depend on; a manifest in ``out`` that was made with others is refused. ``load``:
    what a worker calls once. An output is not made again if the manifest has it, its inputs have not changed since, and
    it is as it was. What is there and not in the manifest is only replaced with ``force``, which also makes all anew,
    after the files ``replaced`` are gone.

    An output is complete or not there, whenever this process or a worker ends. Raises ConfigError, FormatError and
    OutputExists for the manifest, DifflateError, and what ``load`` raises; an error of one input is in its entry.
    """
    manifest = Manifest(out, settings, anew=force)
    try:
        with scratch_folder(out) as scratch:
            for path in replaced if force else ():
                path.unlink(missing_ok=True)
            tasks: list[OutputTask] = []
            for number, each in enumerate(wanted):
                output = each.target.relative_to(out).as_posix()
                known = manifest.entries.get(output)
                if each.problem is not None:
                    # another input's output may have this name: its entry stays
                    yield Done(failed(Entry(str(each.source), output), each.problem))
                elif known is not None and known.error is None and _stands(known, each):
                    yield Done(known, kept=True)
                elif known is None and not manifest.resumed and (problem := _in_the_way(each.target, force)):
                    manifest.add(entry := failed(Entry(str(each.source), output), problem))
                    yield Done(entry)
                else:
                    tasks.append(each.task(number, output, scratch / f"{number}{each.target.suffix}"))
            with contextlib.closing(workers.perform(tasks, load, scratch)) as made:
                for task, entry in made:
                    known = manifest.entries.get(task.output)
                    entry = _placed(task, entry, force or (known is not None and known.error is None))
                    manifest.add(entry)
                    yield Done(entry)
    finally:
        manifest.close()


def _stands(entry: Entry, wanted: Wanted) -> bool:
    """Whether the inputs are those of the entry, and the output too."""
    try:
        now = wanted.entry(entry.output)
        if any(getattr(now, key) != getattr(entry, key) for key in _OF_INPUTS):
            return False
        if wanted.target.stat().st_size != entry.bytes:
            return False
        return sha256(wanted.target) == entry.sha256
    except OSError:
        return False


def _in_the_way(target: Path, force: bool) -> DifflateError | None:
    """What stands against writing ``target``, told before any work is done for it."""
    try:
        check_output(target, force)
    except DifflateError as error:
        return error
    return None


def _placed(task: OutputTask, entry: Entry, force: bool) -> Entry:
    """Gives what a worker has written its name; the entry then, with the error if that cannot be done."""
    if entry.error is not None:
        return entry
    scratch, target = Path(task.scratch), Path(task.target)
    try:
        # an earlier run may have been killed between this and its entry; then the same is there
        if force or not (target.is_file() and filecmp.cmp(scratch, target, shallow=False)):
            place(scratch, target, force)
    except (DifflateError, OSError) as error:
        return failed(entry, error)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
    return entry


@contextlib.contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """A folder in ``out`` for what is being written; those of runs that were killed are removed."""
    for old in out.glob(f"{_SCRATCH}*"):
        shutil.rmtree(old, ignore_errors=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=out, prefix=_SCRATCH, ignore_cleanup_errors=True)
    except OSError as error:
        raise DifflateError(f"{out}: cannot be written ({error.strerror or error}); choose another output") from error
    with folder as name:
        yield Path(name)
