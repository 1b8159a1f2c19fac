"""The one protocol of every codec, JPEG included."""

from typing import Protocol, runtime_checkable

from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.pixels import Picture


@runtime_checkable
class Codec(Protocol):
    """Turns pictures into the bytes of a complete file, and back.

    Learned codecs write ``.dfl`` files (docs/format.md); classical ones write their own (``.jpg``, ``.avif`` …), so
    that the rates compared are those of real files without a wrapper.
    """

    name: str
    """The name under which `difflate.load` finds it, e.g. ``opq-32-8-8`` or ``jpeg``."""
    suffix: str
    """File name suffix with the dot, e.g. ``.dfl``."""
    quality_range: tuple[float, float, float] | None
    """(lowest, highest, default) of ``quality``, higher is better; None: the codec has one quality only."""

    def encode(self, picture: Picture, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS) -> bytes:
        """The bytes of a complete file. Raises ConfigError (quality), LimitExceeded (size)."""
        ...

    def decode(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> Picture:
        """The picture in ``data``, same H and W as encoded. Raises FormatError, ModelError, LimitExceeded."""
        ...
