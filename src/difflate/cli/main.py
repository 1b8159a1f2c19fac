"""The command line: parses, calls one command, turns exceptions into one line and an exit code."""

import argparse
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

from difflate import __version__
from difflate.cli import (
    codecs,
    compress,
    decompress,
    distance,
    eval,
    info,
    latents,
    remake,
    reproduce,
    restore,
    sample,
    studio,
    study,
    train,
    verify,
)
from difflate.cli.report import log_to_stderr, report, write_output

INTERRUPTED = 130
_EPILOG = """examples:
  difflate compress photo.png                   photo.dfl, beside it
  difflate decompress photo.dfl -o restored.png
  difflate COMMAND --help                       options and examples of a command

exit codes:
  0 ok, 1 unexpected, 2 usage, 3 corrupt or truncated input, 4 model missing or mismatched,
  5 limit exceeded, 6 output exists, 7 verification failed, 130 interrupted"""


class _Parser(argparse.ArgumentParser):
    """Tells a wrong command line in one line, as every other error is told; takes inputs behind options too."""

    _intermixed = False

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def, override]
        """As argparse's, but that it takes ``compress a.png -f b.png`` and ``train CONFIG --dry-run key=value``."""
        known, rest = super().parse_known_args(args, namespace)
        inputs = [word for word in rest if not word.startswith("-")]
        if self._subparsers is not None or self._intermixed or not inputs or "--" in (args or ()):
            return known, rest
        self._intermixed = True  # argparse's own method for this calls the one that it stands in for
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixed = False

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"difflate: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="difflate",
        description="Compress images with learned codecs, restore them, and compare codecs honestly.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"difflate {__version__}")
    parser.add_argument("--verbose", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands = (
        *(compress, decompress, restore, info, verify, codecs, eval, remake, study),
        *(latents, train, sample, distance, reproduce, studio),
    )
    for command in commands:
        command.add_parser(subparsers)
    for sub in subparsers.choices.values():
        sub.formatter_class = argparse.RawDescriptionHelpFormatter
        # also accepted behind the command, where people write it
        sub.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    if argv is None:  # the process is this command's own
        # read when torch is imported: threads that wait in loops for each other take all cores, and where other
        # programs take some of them, several times as long (docs/benchmarks.md)
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    _prepare_streams()
    args = argparse.Namespace(verbose=False)
    try:
        with _interrupt_on_terminate():
            args = build_parser().parse_args(argv)
            log_to_stderr()
            code = args.run(args)
            write_output(b"")  # flushes what was printed, while its errors can still be told
            return code
    except KeyboardInterrupt:
        print("difflate: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return 1
    except Exception as error:
        code = report(error, args.verbose)
        if sys.stdout is not None:
            try:
                sys.stdout.flush()
            except OSError:
                _drop_output()
        return code


def _prepare_streams() -> None:
    """Any file name can be printed, whatever bytes it has; and a stream that was closed swallows what it is given."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
        elif name != "stdin" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Standard output is of no more use; what Python flushes at its end must not complain again."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _interrupt_on_terminate() -> Iterator[None]:
    """SIGTERM cleans up as Ctrl-C does; its default action would leave temporary files."""

    def stop(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
