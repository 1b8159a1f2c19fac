"""The skeleton of every learned codec: pictures and clips to .dfl files and back, through three parts.

    picture ─ analyse ─▶ latent ─ coder.write ─▶ section ─ container ─▶ file
    picture ◀─ restorer.restore ─ latent ◀─ coder.read ─ section ◀─ container ─ file

What all codecs share is here and nowhere else: options, limits, checks of size and model, the symbols' checksum,
reading back what was written, alpha and metadata. A codec names its parts (`difflate.codecs.vq`, `hyperprior`, `cdc`).
Clips are coded in groups of frames (`difflate.codecs.clips`), by default of one frame each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from difflate.codecs import clips
from difflate.codecs.base import Latent, quality_for
from difflate.codecs.batches import as_images, most_at_once
from difflate.codecs.frames import FrameByFrame
from difflate.codecs.groups import in_groups, result_of
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

_BAND_ROWS = 256
"""Of an image, that are made grey at a time."""


class Space(Protocol):
    """Pixels to what a coder writes; knows nothing of files."""

    stride_px: int
    """Pixels between two sites of a latent."""

    def analyse(self, pixels: Tensor, quality: float | None, options: Options) -> Tensor:
        """(B, C, h, w) on the CPU, of ``pixels: (B, 3, H, W)`` uint8."""
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

    def restore(
        self, latents: Sequence[Any], files: Sequence[DflFile], options: Any, watch: Watch | None = None
    ) -> Tensor:
        """(B, 1 or 3, H, W) uint8 on the CPU, H and W those of the largest, of B ``latents`` of one shape; ``watch`` is
        told of steps, where there are any, if there is one image. An image depends on no other, except by rounding.
        Raises ConfigError, ModelError."""
        ...


class Fallback(Protocol):
    """What the encoder does with a picture that its own parts fail at."""

    def sample(self, latent: Any, pixels: np.ndarray, quality: float | None) -> Any:
        """What `instead_of` has to see of ``latent``, a small part."""
        ...

    def instead_of(self, sample: Any, size_bytes: int, pixels: np.ndarray, quality: float | None) -> bytes | None:
        """A WebP file of ``pixels: (1 or 3, H, W)`` uint8 to keep in the place of a latent, whose section has
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
        return result_of(self.encode_many([picture], quality=quality, limits=limits, **options))

    def encode_many(
        self, pictures: Sequence[Picture], *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS,
        **options: Any,
    ) -> list[bytes | Exception]:  # fmt: skip
        """What `encode` gives, or raises, of each of ``pictures``, in their order.

        Pictures of about one size go through the networks together, which is what a GPU needs to be busy. Each file
        decodes to its own picture; its bytes are those of `encode`, unless a number of the latent lies so near to the
        middle between two integers that rounding in another order decides. Raises ConfigError for what is wrong with
        all of them (quality, options).
        """
        chosen = self.encoding.of(options, self.name).over(self.defaults)
        quality = quality_for(self, quality)

        def begin(picture: Picture) -> tuple[tuple[int, int], int, Picture]:
            limits.check_size(picture.width, picture.height)
            limits.check_steps(picture.width, picture.height, chosen.evaluations)
            if not chosen.exact_alpha:
                picture = fill_hidden(picture)
            size = self._sites(picture.height, picture.width)
            return size, self._most(size, chosen), without_colour(picture)

        def finish(alike: Sequence[Picture]) -> list[bytes]:
            written = self.write_pixels([picture.pixels for picture in alike], quality, chosen)
            return [self._file(*each, chosen, limits) for each in zip(alike, written, strict=True)]

        return in_groups(pictures, begin, finish)

    def _file(self, picture: Picture, written: tuple[int, bytes, bytes], options: Any, limits: Limits) -> bytes:
        """The file of what `write_pixels` gave of a picture. Raises VerificationFailed."""
        number, data, symbols = written
        grey = picture.pixels.shape[0] == 1
        if self.read_pixels({number: data}, picture.height, picture.width, grey).symbols() != symbols:
            raise VerificationFailed("what was coded does not read back, a defect in difflate; please report it")
        hints = () if number == sections.WEBP else options.to_sections()
        kept = ((number, data), *_sections_of(picture), *hints)
        return write_dfl(self._header(picture.width, picture.height, grey, symbols_crc(symbols), kept), limits)

    def decode(
        self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, watch: Watch | None = None, **options: Any
    ) -> Picture:
        """The picture in a .dfl file.

        ``watch``: is told of each step of diffusion, as it is made. ``options``: those of `decoding`; what is not given
        is as the file says. Raises FormatError, ModelError (another model wrote the file), LimitExceeded, ConfigError.
        """
        return result_of(self._decode([data], limits, watch, options))

    def decode_many(
        self, files: Sequence[bytes], *, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> list[Picture | Exception]:
        """What `decode` gives, or raises, of each of ``files``, in their order.

        Files of pictures of about one size that are restored in the same way go through the networks together. What
        is exact does not depend on it, nor does the noise; pixels do by rounding.
        """
        return self._decode(files, limits, None, options)

    def _decode(
        self, files: Sequence[bytes], limits: Limits, watch: Watch | None, options: Mapping[str, Any]
    ) -> list[Picture | Exception]:
        def begin(data: bytes) -> tuple[tuple, int, tuple[Any, DflFile, Any]]:
            file = read_dfl(data, limits)
            check_picture_file(file)
            chosen = self._decoding_of(file, limits, options)
            latent, size = self.read_latent(file), self._sites(file.height, file.width)
            return (isinstance(latent, WebpPicture), size, chosen), self._most(size, chosen), (latent, file, chosen)

        def finish(alike: Sequence[tuple[Any, DflFile, Any]]) -> list[Picture]:
            latents, headers, (chosen, *_) = zip(*alike, strict=True)
            pixels = self.restore_pixels(latents, headers, chosen, watch)
            return [_picture(*each) for each in zip(pixels, headers, strict=True)]

        return in_groups(files, begin, finish)

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

    def write_pixels(
        self, pixels: Sequence[np.ndarray], quality: float | None, options: Any
    ) -> list[tuple[int, bytes, bytes]]:
        """(type, data) of a section, and its symbols, of each of ``pixels``: (1 or 3, H, W) uint8, as many sites."""
        given = [torch.from_numpy(np.require(each, requirements="W")) for each in pixels]
        found, written = self.analyse(given, quality, options), []
        for each in pixels:
            # in one expression: what the space gives is let go of
            number, data, latent = self.coder.write(found.pop(0), len(each) == 1, quality, options)
            written.append((number, data, latent.symbols()))
            if self.fallback is None or getattr(options, "learned_only", None):
                continue
            sample = self.fallback.sample(latent, each, quality)
            del latent  # of a large image a quarter of a gigabyte; WebP takes one
            webp = self.fallback.instead_of(sample, len(data), each, quality)
            if webp is not None:
                written[-1] = sections.WEBP, webp, webp
        return written

    def read_pixels(self, kept: Mapping[int, bytes], height: int, width: int, grey: bool) -> Latent:
        """The latent in the sections of a picture. Raises FormatError."""
        if (webp := kept.get(sections.WEBP)) is None:
            return self.coder.read(kept, *self._sites(height, width), grey)
        if sum(number in sections.PIXELS for number in kept) > 1:
            raise FormatError("the file has its image twice; get an intact copy of it")
        return WebpPicture(webp, decode_webp(webp, height, width))

    def restore_pixels(
        self, latents: Sequence[Any], files: Sequence[DflFile], options: Any, watch: Watch | None = None
    ) -> list[Tensor]:
        """(1 or 3, H, W) uint8 on the CPU, of each of what `read_pixels` gave, all `WebpPicture` or none, with as many
        sites. Raises ConfigError, ModelError."""
        if isinstance(latents[0], WebpPicture):
            images = [torch.from_numpy(latent.pixels) for latent in latents]
        else:
            images = list(self.restorer.restore(latents, files, options, watch))
        images = [image[:, : file.height, : file.width] for image, file in zip(images, files, strict=True)]
        return [as_grey(image) if file.grey else image for image, file in zip(images, files, strict=True)]

    def analyse(self, pixels: Sequence[Tensor], quality: float | None, options: Options) -> list[Tensor]:
        """(C, h, w), what the coder writes, of each of ``pixels``: (1 or 3, H, W) uint8, as many sites."""
        return list(self.space.analyse(as_images(pixels, self.space.stride_px), quality, options))

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

    def _most(self, size: tuple[int, int], options: Any) -> int:
        """Pictures of ``size`` in sites that go through a network together."""
        return most_at_once(*size, self.space.stride_px, getattr(options, "tile_px", None))


def as_grey(pixels: Tensor) -> Tensor:
    """(1, H, W) uint8 of ``pixels: (1 or 3, H, W)`` uint8: the mean over the channels."""
    if len(pixels) == 1:
        return pixels
    # in bands: the floats of a whole image are four times its bytes
    bands = (to_uint8(band.float().mean(dim=0, keepdim=True)) for band in pixels.split(_BAND_ROWS, dim=1))
    return torch.cat(list(bands), dim=1)


def largest(files: Sequence[DflFile]) -> tuple[int, int]:
    """(height, width) in px that hold each of the pictures."""
    return max(file.height for file in files), max(file.width for file in files)


def _picture(pixels: Tensor, file: DflFile) -> Picture:
    """The picture of ``pixels: (1 or 3, H, W)`` and what else is in its file. Raises FormatError."""
    alpha = file.section(sections.ALPHA)
    return Picture(
        pixels=pixels.contiguous().numpy(),
        alpha=None if alpha is None else decode_alpha(alpha, file.height, file.width),
        exif=file.section(sections.EXIF),
        icc=file.section(sections.ICC),
        xmp=file.section(sections.XMP),
    )


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
