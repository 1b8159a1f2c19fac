"""How the commands end: errors as one line and an exit code, results on standard output."""

import errno
import logging
import sys
import traceback

from difflate.errors import DifflateError, exit_code_of, told


def report(error: Exception, verbose: bool) -> int:
    """Prints ``error`` as one line on stderr (with its traceback if ``verbose``); returns its exit code."""
    if verbose:
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        error = output_error(error)  # of a print; those of files are told where they are written
    hint = "" if isinstance(error, DifflateError) else "; run again with --verbose for details"
    print(f"difflate: {told(error)}{hint}", file=sys.stderr)
    return exit_code_of(error)


class LineFormatter(logging.Formatter):
    """Warnings as errors are told, ``difflate: …``; what a training says of itself as it is."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"difflate: {text}" if record.levelno >= logging.WARNING else text


def log_to_stderr() -> None:
    """Lets the package's warnings be seen, unless the program around has its own way of it."""
    if not logging.root.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(LineFormatter())
        logging.root.addHandler(handler)


def write_output(data: bytes) -> None:
    """Writes to standard output. Raises DifflateError, and BrokenPipeError where nobody reads it any more."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise output_error(error) from error


def output_error(error: OSError) -> DifflateError:
    """What is said of standard output that cannot be written."""
    return DifflateError(f"standard output: cannot be written ({error.strerror}); choose another output")
