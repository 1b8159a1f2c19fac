"""What codecs can be told beside a quality: for each kind one frozen dataclass for encoding and one for decoding.

The command line's flags, the keywords of Python and of Pillow, ``cdc-small+steps=4`` in evaluations and the hints in
files all derive from these. Everywhere None means: as the file says, else as the model says. Imports no torch.
"""

import dataclasses
import numbers
import struct
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from difflate.errors import ConfigError, FormatError
from difflate.format import sections
from difflate.limits import TEXT_BYTES

MAX_EFFORT = 9
_MAX_SPEED = 10
_MAX_STEPS, _MAX_GUIDANCE, _MAX_SEED = 1000, 20, 2**32 - 1


def option(help: str, metavar: str | None = None, hint: bool = False, words: bool = False) -> Any:
    """A field that is None unless it is given; ``help`` and ``metavar`` are those of its flag.

    ``hint``: files keep it. ``words``: any text, an empty one too.
    """
    return dataclasses.field(default=None, metadata={"help": help, "metavar": metavar, "hint": hint, "words": words})


@dataclass(frozen=True)
class Options:
    """Nothing that can be told; the base of what can."""

    steps: ClassVar[int | None] = 0

    @property
    def evaluations(self) -> int:
        """Of a large network that decoding takes, for `difflate.limits.Limits.check_steps`."""
        return self.steps or 0

    @classmethod
    def of(cls, given: Mapping[str, Any], codec: str) -> Self:
        """The options in ``given`` that are not None. Raises ConfigError for those that ``codec`` does not take."""
        known = {field.name for field in dataclasses.fields(cls)}
        given = {name: value for name, value in given.items() if value is not None}
        for name in given:
            if name not in known:
                takes = f"it takes {', '.join(f'`{other}`' for other in sorted(known))}" if known else "it takes none"
                raise ConfigError(f"`{name}` has no meaning for {codec}, {takes}; leave it out")
        return cls(**{name: _value_of(type_of(cls, name), name, value) for name, value in given.items()})

    def over(self, other: "Options") -> Self:
        """These options, and where they are None those of ``other``."""
        names = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) is None and hasattr(other, f.name)]
        return dataclasses.replace(self, **{name: getattr(other, name) for name in names})

    def to_sections(self) -> tuple[tuple[int, bytes], ...]:
        """(type, data) of what a file keeps of the options."""
        return ()

    @classmethod
    def from_sections(cls, kept: Mapping[int, bytes]) -> Self:
        """What a file has kept. Raises FormatError."""
        return cls()


@dataclass(frozen=True)
class Encoding(Options):
    """Every lossy codec that keeps alpha."""

    exact_alpha: bool | None = option("keep the colours of invisible pixels instead of filling them in")


@dataclass(frozen=True)
class AvifEncoding(Encoding):
    """AVIF, as libavif has it."""

    speed: int | None = option("0, the slowest and smallest, to 10 (default: 6)", "N")

    def __post_init__(self) -> None:
        if self.speed is not None and not 0 <= self.speed <= _MAX_SPEED:
            raise ConfigError(f"`speed` (={self.speed}) must be from 0 to {_MAX_SPEED}")


@dataclass(frozen=True)
class VideoEncoding(Options):
    """AVC, HEVC and AV1, as FFmpeg's encoders have them."""

    preset: str | None = option(
        "time spent on smaller files: ultrafast … medium … placebo (avc, hevc), 13 … 8 … 0 (av1)", "NAME"
    )


@dataclass(frozen=True)
class IndexEncoding(Encoding):
    """Codecs of indices."""

    fixed_rate: bool | None = option("exactly the codec's bits a patch, no context coding")


_TILE = "side of the tiles of large images: half of it takes a quarter of the memory, below 656 is 656 (default: 896)"


@dataclass(frozen=True)
class IndexDecoding(Options):
    """Codecs of indices, whose images a refiner can improve."""

    refine: bool | None = option("improve the image by a small network, the one that is bundled for the codec")
    refiner: Any = option("the same by a network that is not bundled", "FOLDER")  # noqa: RUF009
    tile_px: int | None = option(f"{_TILE}; with --refine smaller ones too", "PX")

    def __post_init__(self) -> None:
        if self.tile_px is not None and not self.refines:
            raise ConfigError("`tile_px` has a meaning only with `refine` or `refiner` here; leave it out")

    @property
    def refines(self) -> bool:
        """Whether a refiner is asked for."""
        return bool(self.refine) or self.refiner is not None


@dataclass(frozen=True)
class RestoredDecoding(Options):
    """Codecs that others wrote, whose images a restorer can improve."""

    restore: bool | None = option("take back what the file has lost by a small network, the one that is bundled")
    restorer: Any = option("folder of another restorer than the bundled one", "FOLDER")  # noqa: RUF009
    steps: int | None = option(  # type: ignore[misc]
        f"steps of diffusion, up to {_MAX_STEPS}; 1, the default: the restored image at once", "N"
    )
    seed: int | None = option("seed of the noise that more steps than one start from (default: 0)", "S")
    tile_px: int | None = option("side of the tiles of large images (default: 896)", "PX")

    def __post_init__(self) -> None:
        for name, least, most in (("steps", 1, _MAX_STEPS), ("seed", 0, _MAX_SEED)):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise ConfigError(f"`{name}` (={value}) must be from {least} to {most}")
        for name in ("steps", "seed", "tile_px"):
            if getattr(self, name) is not None and not self.restores:
                raise ConfigError(
                    f"`{name}` has a meaning only where a file of this kind is restored; leave it out, or use difflate "
                    "restore, or restore=True in Python"
                )

    @property
    def restores(self) -> bool:
        """Whether a restorer is asked for."""
        return bool(self.restore) or self.restorer is not None


@dataclass(frozen=True)
class TransformEncoding(Encoding):
    """Codecs that see an image in tiles, and can look for better latents than those that they see at once."""

    learned_only: bool | None = option("keep to the transform, however badly it restores this picture: never WebP")
    tile_px: int | None = option(_TILE, "PX")
    effort: int | None = option(
        f"1 to {MAX_EFFORT}: time spent on fewer bits for the same image, each about twice the one before (default: 1)",
        "N",
    )

    def __post_init__(self) -> None:
        if self.effort is not None and not 1 <= self.effort <= MAX_EFFORT:
            raise ConfigError(f"`effort` (={self.effort}) must be from 1 to {MAX_EFFORT}")


@dataclass(frozen=True)
class TransformDecoding(Options):
    """Codecs that restore an image in tiles."""

    tile_px: int | None = option(_TILE, "PX")


@dataclass(frozen=True)
class AutoencoderEncoding(IndexEncoding):
    """Codecs of an encoder, whose latent is indices or numbers."""

    tile_px: int | None = option(_TILE, "PX")


@dataclass(frozen=True)
class AutoencoderDecoding(TransformDecoding):
    """Codecs of a decoder."""


@dataclass(frozen=True)
class _Hints(Options):
    """How diffusion decodes; a file keeps it in a section of its own."""

    kept: ClassVar[tuple[tuple[str, str, float, float], ...]]
    """(option, its code in `struct`, what 1 in the file is, the largest value) of each that is kept, in their order."""
    section: ClassVar[int]

    def __post_init__(self) -> None:
        for name, _, _, most in self.kept:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= most:
                raise ConfigError(f"`{name}` (={value}) must be from 0 to {most}")

    def to_sections(self) -> tuple[tuple[int, bytes], ...]:
        values = [(getattr(self, name), unit) for name, _, unit, _ in self.kept]
        if any(value is None for value, _ in values):
            raise ConfigError(f"{', '.join(name for name, *_ in self.kept)} must be known before a file can keep them")
        return ((self.section, self._struct().pack(*(round(value / unit) for value, unit in values))),)

    @classmethod
    def from_sections(cls, kept: Mapping[int, bytes]) -> Self:
        data, packed = kept.get(cls.section), cls._struct()
        if data is None:
            return cls()
        if len(data) != packed.size:
            raise FormatError(f"the section on diffusion has {len(data)} bytes, not {packed.size}; get an intact copy")
        values = zip(cls.kept, packed.unpack(data), strict=True)
        try:
            return cls(**{name: value if unit == 1 else value * unit for (name, _, unit, _), value in values})
        except ConfigError as error:
            raise FormatError(f"the section on diffusion cannot be: {error}") from error

    @classmethod
    def _struct(cls) -> struct.Struct:
        return struct.Struct("<" + "".join(code for _, code, _, _ in cls.kept))


@dataclass(frozen=True)
class _DiffusionHints(_Hints):
    """How `cdc` decodes."""

    kept = (("steps", "H", 1, _MAX_STEPS), ("gamma", "B", 1 / 100, 2.55), ("seed", "I", 1, _MAX_SEED))
    section = sections.DIFFUSION
    steps: int | None = option(  # type: ignore[misc]
        "steps of diffusion, up to 1000; 0: none, the preview", "N", hint=True
    )
    gamma: float | None = option("size of the noise that diffusion starts from, 0: none", "G", hint=True)
    seed: int | None = option("seed of that noise", "S", hint=True)


@dataclass(frozen=True)
class DiffusionEncoding(_DiffusionHints, TransformEncoding):
    """Codecs whose files are restored by diffusion: how, unless their reader says otherwise."""

    def __post_init__(self) -> None:
        _DiffusionHints.__post_init__(self)
        TransformEncoding.__post_init__(self)


@dataclass(frozen=True)
class DiffusionDecoding(_DiffusionHints, TransformDecoding):
    """Codecs whose files are restored by diffusion."""


@dataclass(frozen=True)
class _SamplingHints(_Hints):
    """How `diffae` decodes."""

    kept = (("steps", "H", 1, _MAX_STEPS), ("guidance", "H", 1 / 100, _MAX_GUIDANCE), ("seed", "I", 1, _MAX_SEED))
    section = sections.SAMPLING
    steps: int | None = option(  # type: ignore[misc]
        "steps of diffusion, up to 1000; 0: none, the plain decoder", "N", hint=True
    )
    guidance: float | None = option("of the latent, 1: none; others take twice the time", "W", hint=True)
    seed: int | None = option("seed of the noise that diffusion starts from", "S", hint=True)
    text: str | None = option(
        "what the image shows, for a model that was trained with texts; '': nothing is said", "TEXT", hint=True,
        words=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.text is None:
            return
        if not isinstance(self.text, str):
            raise ConfigError(f"`text` (={self.text!r}) must be a text")
        try:
            size = len(self.text.encode())
        except UnicodeEncodeError as error:
            raise ConfigError("`text` has halves of characters, which UTF-8 has not; write it anew") from error
        if size > TEXT_BYTES:
            raise ConfigError(f"`text` (of {size} bytes) must have at most {TEXT_BYTES} in UTF-8; shorten it")

    def to_sections(self) -> tuple[tuple[int, bytes], ...]:
        said = ((sections.TEXT, self.text.encode()),) if self.text else ()
        return (*super().to_sections(), *said)

    @classmethod
    def from_sections(cls, kept: Mapping[int, bytes]) -> Self:
        found, data = super().from_sections(kept), kept.get(sections.TEXT)
        if data is None:
            return found
        if not 0 < len(data) <= TEXT_BYTES:
            raise FormatError(f"the text has {len(data)} bytes, not from 1 to {TEXT_BYTES}; get an intact copy")
        try:
            return dataclasses.replace(found, text=data.decode())
        except UnicodeDecodeError as error:
            raise FormatError("the text is not in UTF-8; get an intact copy") from error

    @property
    def evaluations(self) -> int:
        return (self.steps or 0) * (1 if self.guidance in (None, 1) else 2)


@dataclass(frozen=True)
class SamplingEncoding(_SamplingHints, AutoencoderEncoding):
    """Codecs of an encoder whose latent diffusion decodes: how, unless their reader says otherwise."""


@dataclass(frozen=True)
class SamplingDecoding(_SamplingHints, AutoencoderDecoding):
    """Codecs of a latent that diffusion decodes."""


def type_of(cls: type[Options], name: str) -> type:
    """bool, int, float or str, what a flag or a text is read as."""
    hint = typing.get_type_hints(cls)[name]
    return next((part for part in typing.get_args(hint) if part in (bool, int, float)), str)


def _value_of(kind: type, name: str, value: Any) -> Any:
    """``value`` as what `type_of` says: numbers of numpy as those of Python. Raises ConfigError for another type."""
    if kind is bool and not isinstance(value, str) and str(value) in ("True", "False", "1", "0"):  # numpy's too
        return bool(value)
    if kind is int and isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    if kind is str:  # names, folders and loaded models: whoever opens them knows
        return value
    wanted = {bool: "True or False", int: "a whole number", float: "a number"}[kind]
    raise ConfigError(f"`{name}` (={value!r}) must be {wanted}")
