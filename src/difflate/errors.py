"""The exceptions that users see. Each carries the exit code that the command line ends with (docs/cli.md)."""

import contextlib
from collections.abc import Iterator


class DifflateError(Exception):
    """Base of every error that difflate raises on purpose. The message is one sentence: what, why, what to do."""

    exit_code = 1


class ConfigError(DifflateError):
    """A wrong option, key or combination of them, or an optional package that is not installed."""

    exit_code = 2


class FormatError(DifflateError):
    """A file that is not what it should be: damaged, truncated, or of another kind or version."""

    exit_code = 3


class NotDflError(FormatError):
    """The bytes do not begin as a .dfl file does."""


class TruncatedError(FormatError):
    """The file ends before its contents do."""


class ChecksumError(FormatError):
    """The bytes were altered: a checksum of the file does not match."""


class VersionError(FormatError):
    """Written by a newer version of the format, or with features that this version does not know."""


class DesyncError(FormatError):
    """The bytes are intact but decode to other symbols than were written (another model or a defect)."""


class ImageError(FormatError):
    """An input that cannot be read as an image."""


class ModelError(DifflateError):
    """A model that is missing, damaged, or another than the file was written with."""

    exit_code = 4


class LimitExceeded(DifflateError):
    """The file asks for more pixels, memory or work than the limits allow; raised before anything is allocated."""

    exit_code = 5


class OutputExists(DifflateError):
    """The output is there already and overwriting was not asked for."""

    exit_code = 6


class VerificationFailed(DifflateError):
    """What was written does not decode to what was encoded."""

    exit_code = 7


def told(error: BaseException) -> str:
    """``error`` in one line."""
    message = " ".join(str(error).split()) or type(error).__name__
    return message if isinstance(error, DifflateError) else f"unexpected {type(error).__name__}: {message}"


def exit_code_of(error: BaseException) -> int:
    """What a command ends with because of ``error``."""
    return error.exit_code if isinstance(error, DifflateError) else 1


UNNAMED = "image data"
"""What the library calls bytes without a name."""


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Puts ``name``, of a file, in front of the errors raised inside, unless it stands there."""
    try:
        yield
    except DifflateError as error:
        message = str(error)
        if name == UNNAMED or message.startswith((f"{name}:", f"{name} ")):
            raise
        rest = message.removeprefix(UNNAMED)
        joined = name + rest if rest != message and rest[:1] in (":", " ") else f"{name}: {message}"
        raise type(error)(joined) from error
