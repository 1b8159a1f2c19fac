"""The skeleton of every learned codec: pictures and clips to .dfl files and back, through three parts.

    picture ─ analyse ─▶ latent ─ coder.write ─▶ section ─ container ─▶ file
    picture ◀─ restorer.restore ─ latent ◀─ coder.read ─ section ◀─ container ─ file

What all codecs share is here and nowhere else: options, limits, checks of size and model, the symbols' checksum,
reading back what was written, alpha and metadata. A codec names its parts (`difflate.codecs.vq`, `hyperprior`, `cdc`).
Clips are coded in groups of frames (`difflate.codecs.clips`), by default of one frame each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from difflate.codecs import clips
from difflate.codecs.base import Latent, quality_for
from difflate.codecs.frames import FrameByFrame
from difflate.errors import DesyncError, FormatError, ModelError, VerificationFailed
from difflate.format import sections
from difflate.format.alpha import decode_alpha, encode_alpha
from difflate.format.container import DflFile, read_dfl, symbols_crc, write_dfl
from difflate.format.salvage import salvage_clip_file
from difflate.format.stream import ClipFile, check_picture_file, read_clip_file
from difflate.format.webp import decode_webp
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.alpha import fill_hidden
from difflate.media.clip import Clip
from difflate.media.grey import without_colour
from difflate.media.picture import Picture
from difflate.nn.colour import to_uint8
from difflate.nn.tiles import Watch
from difflate.options import Options
from difflate.registry import Kind
from difflate.store.former import former_model


class Space(Protocol):
    """Pixels to what a coder writes; knows nothing of files."""

    stride_px: int
    """Pixels between two sites of a latent."""

    def analyse(self, pixels: Tensor, quality: float | None, options: Options) -> Tensor:
        """(C, h, w) on the CPU, of ``pixels: (1 or 3, H, W)`` uint8."""
        ...

    def to(self, device: torch.device) -> Any: ...


class LatentCoder(Protocol):
    """Latents to bytes and back, in integers, on the one range coder."""

    def write(self, analysed: Tensor, grey: bool, quality: float | None, options: Options) -> tuple[int, bytes, Latent]:
        """(type, data) of a section, and the latent that `read` will find in it."""
        ...

    def read(self, kept: Mapping[int, bytes], rows: int, columns: int, grey: bool) -> Latent:
        """The latent in the sections of a file. Raises FormatError."""
        ...


class Restorer(Protocol):
    """Latents to pixels, perhaps by noise and steps; tolerances hold here, not bits."""

    def restore(self, latent: Any, file: DflFile, options: Any, watch: Watch | None = None) -> Tensor:
        """(1 or 3, H, W) uint8 on the CPU; ``watch`` is told of steps, where there are any. Raises ConfigError,
        ModelError."""
        ...


class Fallback(Protocol):
    """What the encoder does with a picture that its own parts fail at."""

    def instead_of(self, latent: Any, size_bytes: int, pixels: np.ndarray, quality: float | None) -> bytes | None:
        """A WebP file of ``pixels: (1 or 3, H, W)`` uint8 to keep in the place of ``latent``, whose section has
        ``size_bytes``; None: the latent is good."""
        ...


@dataclass(frozen=True)
class WebpPicture:
    """What a file holds of a picture that was coded as WebP: pixels, the same on every machine."""

    data: bytes
    pixels: np.ndarray
    """(3, H, W) uint8."""

    def symbols(self) -> bytes:
        """The WebP file: readers agree on it, whatever the last bit of their conversion to RGB."""
        return self.data


class LearnedCodec:
    """A `Codec` and `ClipCodec` of three parts, and perhaps a way out of pictures that they fail at."""

    suffix = ".dfl"

    def __init__(
        self, name: str, kind: Kind, fingerprint: bytes, space: Any, coder: LatentCoder, restorer: Restorer,
        defaults: Options | None = None, fallback: Fallback | None = None,
    ):  # fmt: skip
        """``fingerprint``: (32 bytes) of all that the meaning of a file's bits depends on. ``space``: a `Space`.

        ``defaults``: of the options that neither the caller nor the file sets.
        """
        self.name, self.kind, self.fingerprint = name, kind, fingerprint
        self.space, self.coder, self.restorer = space, coder, restorer
        self.encoding, self.decoding = kind.encoding, kind.decoding
        self.defaults, self.fallback = defaults or Options(), fallback
        self.quality_range: tuple[float, float, float] | None = kind.quality
        self.groups: clips.GroupCoder = FrameByFrame(self)

    @property
    def model_id(self) -> bytes:
        """(4 bytes) the first of the fingerprint; stands in each file."""
        return self.fingerprint[:4]

    def encode(
        self, picture: Picture, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> bytes:
        """The bytes of a .dfl file.

        ``options``: those of `encoding`. Raises ConfigError (quality, options), LimitExceeded, VerificationFailed (the
        encoder reads its own symbols back before it returns).
        """
        chosen = self.encoding.of(options, self.name).over(self.defaults)
        quality = quality_for(self, quality)
        limits.check_size(picture.width, picture.height)
        limits.check_steps(picture.width, picture.height, chosen.evaluations)
        if not chosen.exact_alpha:
            picture = fill_hidden(picture)
        picture = without_colour(picture)
        grey = picture.pixels.shape[0] == 1
        number, data, symbols = self.write_pixels(picture.pixels, quality, chosen)
        if self.read_pixels({number: data}, picture.height, picture.width, grey).symbols() != symbols:
            raise VerificationFailed("what was coded does not read back, a defect in difflate; please report it")
        hints = () if number == sections.WEBP else chosen.to_sections()
        kept = ((number, data), *_sections_of(picture), *hints)
        return write_dfl(self._header(picture.width, picture.height, grey, symbols_crc(symbols), kept), limits)

    def decode(
        self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, watch: Watch | None = None, **options: Any
    ) -> Picture:
        """The picture in a .dfl file.

        ``watch``: is told of each step of diffusion, as it is made. ``options``: those of `decoding`; what is not given
        is as the file says. Raises FormatError, ModelError (another model wrote the file), LimitExceeded, ConfigError.
        """
        file = read_dfl(data, limits)
        check_picture_file(file)
        chosen = self._decoding_of(file, limits, options)
        pixels = self.restore_pixels(self.read_latent(file), file, chosen, watch)
        alpha = file.section(sections.ALPHA)
        return Picture(
            pixels=pixels.numpy(),
            alpha=None if alpha is None else decode_alpha(alpha, file.height, file.width),
            exif=file.section(sections.EXIF),
            icc=file.section(sections.ICC),
            xmp=file.section(sections.XMP),
        )

    def encode_clip(
        self, clip: Clip, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> bytes:
        """The bytes of a .dfl file; of the frames, as many are in memory as a group has.

        ``options``: those of `encoding`. Raises as `encode`, and ImageError where a frame cannot be read.
        """
        chosen = self.encoding.of(options, self.name).over(self.defaults)
        quality = quality_for(self, quality)
        limits.check_size(clip.width, clip.height, what="frame")
        limits.check_steps(clip.width, clip.height, chosen.evaluations)
        header = self._header(clip.width, clip.height, clip.channels == 1, 0, chosen.to_sections())
        return clips.encode(self.groups, clip, header, quality, chosen, limits)

    def decode_clip(
        self, data: bytes, *, salvage: bool = False, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> Clip:
        """The clip in a .dfl file; its frames are decoded as they are asked for, again whenever they are gone through.

        ``salvage``: of a file that was cut or damaged the frames before the damage, see `Clip.notes`. ``options``:
        those of `decoding`; what is not given is as the file says. Raises as `decode`; going through the frames
        raises FormatError too.
        """
        file = salvage_clip_file(data, limits) if salvage else read_clip_file(data, limits)
        self._check_model(file.header)
        chosen = self._decoding_of(file.header, limits, options)
        return clips.decode(self.groups, file, chosen)

    def read_latent(self, file: DflFile) -> Any:
        """The latent of a picture's file: the exact stage of decoding, checked by the symbols' checksum.

        Raises ModelError (another model or codec wrote it), FormatError.
        """
        self._check_model(file)
        check_picture_file(file)
        latent = self.read_pixels(dict(file.sections), file.height, file.width, file.grey)
        if symbols_crc(latent.symbols()) != file.symbols_crc:
            raise DesyncError("the symbols decode to others than were written; report this with the file")
        return latent

    def read_latents(self, file: ClipFile) -> Iterator[tuple[Any, int]]:
        """What `read_latent` is of a picture: the latent of each group of a clip, and its frames. Raises the same."""
        self._check_model(file.header)
        return clips.latents(self.groups, file)

    def write_pixels(self, pixels: np.ndarray, quality: float | None, options: Any) -> tuple[int, bytes, bytes]:
        """(type, data) of a section with ``pixels: (1 or 3, H, W)`` uint8, and its symbols."""
        given = torch.from_numpy(np.require(pixels, requirements="W"))
        # in one expression: what the space gives is let go of
        number, data, latent = self.coder.write(
            self.analyse(given, quality, options), len(pixels) == 1, quality, options
        )
        if self.fallback is not None and not getattr(options, "learned_only", None):
            webp = self.fallback.instead_of(latent, len(data), pixels, quality)
            if webp is not None:
                return sections.WEBP, webp, webp
        return number, data, latent.symbols()

    def read_pixels(self, kept: Mapping[int, bytes], height: int, width: int, grey: bool) -> Latent:
        """The latent in the sections of a picture. Raises FormatError."""
        if (webp := kept.get(sections.WEBP)) is None:
            return self.coder.read(kept, *self._sites(height, width), grey)
        if sum(number in sections.PIXELS for number in kept) > 1:
            raise FormatError("the file has its image twice; get an intact copy of it")
        return WebpPicture(webp, decode_webp(webp, height, width))

    def restore_pixels(self, latent: Any, file: DflFile, options: Any, watch: Watch | None = None) -> Tensor:
        """(1 or 3, H, W) uint8 on the CPU, of what `read_pixels` gave. Raises ConfigError, ModelError."""
        if isinstance(latent, WebpPicture):
            pixels = torch.from_numpy(latent.pixels)
        else:
            pixels = self.restorer.restore(latent, file, options, watch)
        return as_grey(pixels) if file.grey else pixels

    def analyse(self, pixels: Tensor, quality: float | None, options: Options) -> Tensor:
        """(C, h, w), what the coder writes, of ``pixels: (1 or 3, H, W)`` uint8."""
        return self.space.analyse(pixels, quality, options)

    def to(self, device: torch.device | str) -> Self:
        """Moves the networks. What is exact stays where it is."""
        self.space.to(torch.device(device))
        return self

    def _header(self, width: int, height: int, grey: bool, crc: int, kept: tuple[tuple[int, bytes], ...]) -> DflFile:
        return DflFile(self.kind.number or 0, self.model_id, width, height, grey, crc, kept)

    def _decoding_of(self, file: DflFile, limits: Limits, options: Mapping[str, Any]) -> Any:
        """How ``file`` is to be decoded: as ``options``, else it, else the model say. Raises as `decode`."""
        chosen = self.decoding.of(options, self.name)
        chosen = chosen.over(self.decoding.from_sections(dict(file.sections))).over(self.defaults)
        limits.check_steps(file.width, file.height, chosen.evaluations)
        return chosen

    def _check_model(self, file: DflFile) -> None:
        """Raises ModelError if ``file`` was written with another model or codec."""
        if file.model_id != self.model_id:
            former = former_model(file.codec, file.model_id)
            if former is not None:
                raise ModelError(former.error)
            raise ModelError(
                f"written with model {file.model_id.hex()}, not with {self.name} ({self.model_id.hex()}); "
                "name the folder of the right model"
            )
        if file.codec != self.kind.number:  # a diffusion codec and its transform coder have the same entropy model
            raise ModelError(f"written with another kind of codec than {self.name}; leave --codec out, or name its own")

    def _sites(self, height: int, width: int) -> tuple[int, int]:
        return -(-height // self.space.stride_px), -(-width // self.space.stride_px)


def as_grey(pixels: Tensor) -> Tensor:
    """(1, H, W) uint8 of ``pixels: (1 or 3, H, W)`` uint8: the mean over the channels."""
    return pixels if len(pixels) == 1 else to_uint8(pixels.float().mean(dim=0, keepdim=True))


def _sections_of(picture: Picture) -> list[tuple[int, bytes]]:
    """(type, data) of what stands beside the pixels' symbols: alpha and metadata, as far as ``picture`` has them."""
    alpha = None if picture.alpha is None else encode_alpha(picture.alpha)
    kept = (
        (sections.ALPHA, alpha),
        (sections.EXIF, picture.exif),
        (sections.ICC, picture.icc),
        (sections.XMP, picture.xmp),
    )
    return [(number, data) for number, data in kept if data is not None]
