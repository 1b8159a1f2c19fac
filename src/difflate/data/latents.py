"""Latents for training: shards of the codec indices of images, which `difflate.data.latent_writer` has written.

A folder has latents-00000.safetensors and so on, with the tensors

    latents   (N, C, h, h) uint8, or uint16 if a plane has more than 256 indices
    mirrored  the same of the mirrored images; not in all
    numbers   (N,) int64, the images' numbers in the list of all, rising; one that could not be read is left out

and, as metadata, what `LatentHeader` holds. Rows are read when they are asked for: data sets may be larger than memory.
"""

import bisect
import copy
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from difflate.data.crops import Sample, Samples, order_of
from difflate.data.items import held_back_numbers
from difflate.errors import ConfigError, FormatError, VersionError
from difflate.seeds import Stream, numpy_generator

FORMAT, VERSION = "difflate-latents", 1
LATENTS, MIRRORED, NUMBERS = "latents", "mirrored", "numbers"
_NAME = re.compile(r"latents-(\d{5,})\.safetensors")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_MAX_PLANES, _MAX_CODEBOOK, _MAX_NUMBER = 64, 1 << 16, 1 << 32
_DTYPES = {np.uint8: "U8", np.uint16: "U16"}


@dataclass(frozen=True)
class LatentHeader:
    """What all shards of a folder have in common."""

    codec: str
    """Name of the codec whose indices they hold."""
    fingerprint: str
    """The fingerprint of its weights, 64 hexadecimal digits."""
    codebook_sizes: tuple[int, ...]
    """K_c, the indices of each of the C planes."""
    image_px: int
    """Side of the images, which are squares."""
    images: int
    """How many images were listed, those that could not be read among them."""

    def __post_init__(self) -> None:
        if not _FINGERPRINT.fullmatch(self.fingerprint):
            raise ConfigError(f"fingerprint (={self.fingerprint[:80]}) must be 64 hexadecimal digits")
        if not 1 <= len(self.codebook_sizes) <= _MAX_PLANES or not all(
            isinstance(size, int) and 2 <= size <= _MAX_CODEBOOK for size in self.codebook_sizes
        ):
            raise ConfigError(f"codebook_sizes must be up to {_MAX_PLANES} numbers from 2 to {_MAX_CODEBOOK}")
        for key in ("image_px", "images"):
            if not 1 <= getattr(self, key) <= _MAX_NUMBER:
                raise ConfigError(f"{key} (={getattr(self, key)}) must be from 1 to {_MAX_NUMBER}")

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """The type of the indices in a file."""
        return np.uint8 if max(self.codebook_sizes) <= 256 else np.uint16

    def metadata(self, shards: int, sources: Sequence[str]) -> dict[str, str]:
        """What each of so many ``shards`` says; ``sources``: names of the folders that the images are from."""
        return {
            "format": FORMAT,
            "version": str(VERSION),
            "codec": self.codec,
            "fingerprint": self.fingerprint,
            "codebook_sizes": json.dumps(self.codebook_sizes),
            "image_px": str(self.image_px),
            "images": str(self.images),
            "shards": str(shards),
            "sources": json.dumps(list(sources)),
        }

    @property
    def kind(self) -> str:
        """What the indices are of, for messages."""
        return f"{self.codec} ({self.fingerprint[:8]}), {self.image_px} px"


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"latents-{number:05d}.safetensors"


def shard_files(folder: Path) -> list[Path]:
    """The shards in ``folder``, in the order of their numbers."""
    matches = {path: match for path in folder.glob("latents-*") if (match := _NAME.fullmatch(path.name))}
    return sorted(matches, key=lambda path: int(matches[path][1]))


def read_header(path: str | Path) -> LatentHeader:
    """The header of a shard, or of all shards of a folder.

    Raises ConfigError if there is none, or there are several kinds, FormatError for a file that is damaged or no shard.
    """
    return next(_shards_by_folder([path]))[0].header


class _Shard:
    """A shard file: its header is checked, and its rows are read when they are asked for."""

    def __init__(self, path: Path):
        self.path = path
        self._slices: dict[str, Any] | None = None
        try:
            with safe_open(str(path), "np") as file:
                self.header, self.count = _read_metadata(path, file.metadata() or {})
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                self.shape = self._latent_shape({name: (s.get_dtype(), s.get_shape()) for name, s in slices.items()})
                self.mirrored = MIRRORED in slices
                self.numbers: np.ndarray = file.get_tensor(NUMBERS)
        except FileNotFoundError as error:
            raise ConfigError(f"{path}: no such file or folder") from error
        except (SafetensorError, OSError) as error:
            raise _damage_error(path, error) from error
        inside = len(self.numbers) == 0 or (self.numbers[0] >= 0 and self.numbers[-1] < self.header.images)
        if not inside or (np.diff(self.numbers) <= 0).any():
            raise _damage_error(path, f"{NUMBERS} must rise from 0 to below {self.header.images}")

    def _latent_shape(self, tensors: dict[str, tuple[str, list[int]]]) -> tuple[int, int, int]:
        """(C, h, h), after (dtype, shape) of all ``tensors`` have been checked. Raises FormatError."""
        dtype = _DTYPES[self.header.dtype]
        kind, shape = tensors.get(LATENTS, ("", []))
        planes = len(self.header.codebook_sizes)
        if kind != dtype or len(shape) != 4 or shape[1] != planes or shape[2] != shape[3] or not shape[2]:
            raise _damage_error(self.path, f"{LATENTS} must be {dtype} of (N, {planes}, h, h), not {kind} of {shape}")
        if self.header.image_px % shape[2]:
            raise _damage_error(self.path, f"{shape[2]} sites are no side of {self.header.image_px} px")
        for name, expected in ((MIRRORED, (kind, shape)), (NUMBERS, ("I64", shape[:1]))):
            if tensors.get(name, expected if name == MIRRORED else None) != expected:
                raise _damage_error(self.path, f"{name} must be {expected[0]} of {expected[1]}")
        return shape[1], shape[2], shape[3]

    def row(self, index: int, mirrored: bool) -> np.ndarray:
        """(C, h, w) indices. Raises FormatError if one is outside of its codebook."""
        if self._slices is None:
            try:
                file = safe_open(str(self.path), "np")
                self._slices = {name: file.get_slice(name) for name in (LATENTS, MIRRORED)[: 1 + self.mirrored]}
            except (SafetensorError, OSError) as error:
                raise _damage_error(self.path, error) from error
        row = self._slices[MIRRORED if mirrored else LATENTS][index]
        sizes = self.header.codebook_sizes
        if (row.reshape(len(sizes), -1).max(axis=1) >= sizes).any():
            raise _damage_error(self.path, f"an index of row {index} is outside of its codebook")
        return row

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_slices": None}  # each process opens the file itself


class Latents(Samples):
    """The indices of images: item n.

    Without ``augment`` latent n is that of image n; with it they are shuffled anew each time round and, with ``flips``,
    those of the mirrored image half of the time, if the shards have them.
    """

    def __init__(self, shards: Sequence[_Shard], numbers: np.ndarray, header: LatentHeader):
        """``shards`` of one kind, the ``numbers: (N,)`` int64 of their rows in the list of all images. See `open`."""
        self.header = header
        self.shape = shards[0].shape
        """(C, h, w)."""
        self.mirrored = all(shard.mirrored for shard in shards)
        """Whether there are those of the mirrored images."""
        self.numbers = numbers
        """(N,) int64, of each latent's image in the list of all."""
        self.flips, self.augment, self.seed = False, False, 0
        self._shards = list(shards)
        self._starts = np.cumsum([0, *(len(shard.numbers) for shard in shards)]).tolist()
        self._rows = np.arange(len(numbers))

    @classmethod
    def open(cls, sources: Sequence[str | Path], *, flips: bool = True, augment: bool = True, seed: int = 0) -> Self:
        """The latents in ``sources``: folders of shards, or shards of them.

        Raises ConfigError for one that has none and for different kinds of latents, FormatError for a file that is
        damaged or no shard.
        """
        sets = list(_shards_by_folder(sources))
        if not sets:
            raise ConfigError("there are no latents to train on; name folders that difflate latents has written")
        header, first, numbers = sets[0][0].header, 0, []
        for shards in sets:
            _check_same(sets[0][0], shards[0])
            # the images of several folders are numbered as if they had been listed together
            numbers += [shard.numbers + first for shard in shards]
            first += shards[0].header.images
        joined = np.concatenate(numbers)
        if not len(joined):
            raise ConfigError(f"{sets[0][0].path}: has no latents, none of its images could be read; name others")
        latents = cls([shard for shards in sets for shard in shards], joined, replace(header, images=first))
        latents.flips, latents.augment, latents.seed = flips, augment, seed
        return latents

    def hold_back(self, count: int) -> tuple[Self, Self | None]:
        """(for training, held back): the images that `difflate.data.items.hold_back` holds back of the list of all.

        None for a ``count`` of 0. What is held back is neither shuffled nor mirrored. Raises ConfigError if one of the
        two would be empty.
        """
        chosen = np.isin(self.numbers, list(held_back_numbers(self.header.images, count)))
        if chosen.all():
            raise ConfigError(f"holdback (={count}) leaves none of the {len(self)} latents for training; lower it")
        if not count:
            return self._part(~chosen), None
        if not chosen.any():
            raise ConfigError(f"none of the holdback (={count}) images is among the {len(self)} latents; change it")
        held_back = self._part(chosen)
        held_back.flips = held_back.augment = False
        return self._part(~chosen), held_back

    def _part(self, chosen: np.ndarray) -> Self:
        part = copy.copy(self)
        part.numbers, part._rows = self.numbers[chosen], self._rows[chosen]
        return part

    def __len__(self) -> int:
        return len(self._rows)

    def identity(self) -> str:
        """Their order follows from their number, and what they are from codec and numbers of the images."""
        crc = zlib.crc32(self.numbers.astype("<i8").tobytes())
        return f"{len(self)} latents of {self.header.fingerprint[:8]}, numbers {crc:08x}"

    def read(self, number: int) -> Sample:
        """Sample ``number``: (C, h, w) uint8, or int32 for codebooks of more than 256 entries. Raises FormatError."""
        turn, index = divmod(number, len(self))
        mirrored = False
        if self.augment:
            index = order_of(self.seed, turn, len(self))[index]
            rng = numpy_generator(self.seed, Stream.MIRRORED_LATENT, number)
            mirrored = self.flips and self.mirrored and bool(rng.integers(2))
        row = int(self._rows[index])
        place = bisect.bisect_right(self._starts, row) - 1
        indices = self._shards[place].row(row - self._starts[place], mirrored)
        # torch computes little with uint16
        return Sample(torch.from_numpy(indices if indices.dtype == np.uint8 else indices.astype(np.int32)), number)


def _shards_by_folder(sources: Sequence[str | Path]) -> Iterator[list[_Shard]]:
    """The shards of each folder that ``sources`` names, or names shards of. Raises ConfigError, FormatError."""
    named: dict[Path, list[Path]] = {}
    whole = set()
    for source in sources:
        path = Path(source)
        folder = path if path.is_dir() else path.parent
        files = shard_files(path) if path.is_dir() else [path]
        if not files:
            raise ConfigError(f"{path}: no latents in this folder; write them with difflate latents IMAGES -o {path}")
        before = named.setdefault(folder, [])
        if {*before} & {*files}:
            raise ConfigError(f"{path}: is named twice; name it once")
        before += files
        if path.is_dir():
            whole.add(folder)
    for folder, paths in named.items():
        shards = [_Shard(path) for path in paths]
        for shard in shards[1:]:
            _check_same(shards[0], shard, in_folder=True)
        numbers = np.concatenate([shard.numbers for shard in shards])
        if len(np.unique(numbers)) < len(numbers):
            raise ConfigError(f"{folder}: two shards have the same image; they are not of one run, write them again")
        if folder in whole and len(shards) != shards[0].count:
            raise ConfigError(
                f"{folder}: has {len(shards)} of {shards[0].count} shards; copy the others too, or name those to take"
            )
        yield shards


def _check_same(first: _Shard, other: _Shard, in_folder: bool = False) -> None:
    """Raises ConfigError if two shards are not of the same codec and size and, ``in_folder``, of the same run."""
    if (replace(other.header, images=first.header.images), other.shape) != (first.header, first.shape):
        raise ConfigError(
            f"{other.path}: is of {other.header.kind}, but {first.path} of {first.header.kind}; "
            "name latents of one codec and size"
        )
    ours, theirs = ((shard.header, shard.mirrored, shard.count) for shard in (first, other))
    if in_folder and ours != theirs:
        raise ConfigError(f"{other.path}: is of another run than {first.path}; keep one in a folder")


def _read_metadata(path: Path, metadata: dict[str, str]) -> tuple[LatentHeader, int]:
    """(header, number of shards). Raises FormatError."""
    if metadata.get("format") != FORMAT:
        raise FormatError(f"{path}: is no shard of latents; name a folder that difflate latents has written")
    if metadata.get("version") != str(VERSION):
        raise VersionError(f"{path}: version (={metadata.get('version')}) is unknown; update difflate")
    try:
        sizes = tuple(json.loads(metadata["codebook_sizes"]))
        numbers = (int(metadata[key]) for key in ("image_px", "images"))
        return LatentHeader(metadata["codec"], metadata["fingerprint"], sizes, *numbers), int(metadata["shards"])
    except (KeyError, TypeError, ValueError, RecursionError, ConfigError) as error:
        raise _damage_error(path, error) from error


def _damage_error(path: Path, reason: Exception | str) -> FormatError:
    text = " ".join(str(reason).split())[:200]
    return FormatError(f"{path}: is damaged, or no shard of latents ({text}); write it again with difflate latents")
