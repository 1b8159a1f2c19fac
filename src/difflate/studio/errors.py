"""What the page says of errors: never a folder of this machine, nor what only its owner can do."""

import re

from difflate.errors import DifflateError, LimitExceeded

_FOLDERS = re.compile(r"(?<![^\s'\"(`=])(?:/[^/\s]+)*/(?=[^/\s])")


def told(error: BaseException) -> str:
    """The sentence that ``error`` is to people who look at the page."""
    if not isinstance(error, DifflateError):
        return "something went wrong that difflate did not expect; the terminal that the studio runs in has it"
    message = _FOLDERS.sub("", " ".join(str(error).split()))
    message = message.removeprefix("image data: ").removeprefix("video data: ")
    if isinstance(error, LimitExceeded):
        return message.split(";")[0] + "; the studio's limits are its owner's"
    return message
