"""Pictures in and out: PIL, numpy and torch (docs/images.md says what becomes of what)."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from difflate.errors import ConfigError, ImageError
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.files import ImageSource, load, open_with_notes
from difflate.media.metadata import EXIF_PREFIX, orientation, read_exif, read_xmp, turn_upright
from difflate.media.modes import colour_key, depth_to_8_bits, split_alpha, unit_to_8_bits
from difflate.media.notes import depth_notes, frame_notes
from difflate.media.profiles import apply_profile

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Picture:
    """An image as every codec takes it: 8 bits, upright, grey or RGB."""

    pixels: np.ndarray
    """(C, H, W) uint8, C = 1 (grey) or 3 (sRGB), H and W >= 1."""
    alpha: np.ndarray | None = None
    """(H, W) uint8, 255 opaque; None: fully opaque."""
    exif: bytes | None = None
    """EXIF data from the byte order mark on, without JPEG's ``Exif\\0\\0``."""
    icc: bytes | None = None
    """Profile that the pixels are to be read with; None: sRGB."""
    xmp: bytes | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What is lost of the file or image that it was read from, one short clause each; not saved."""

    @property
    def width(self) -> int:
        return self.pixels.shape[2]

    @property
    def height(self) -> int:
        return self.pixels.shape[1]


def open_image(source: ImageSource, metadata: bool = False, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """The picture in an image file: a path, the file's bytes, or a binary file object.

    With ``metadata`` EXIF, ICC and XMP are kept and the pixels stay in the profile's colours, otherwise they are sRGB.
    Raises ConfigError for a path that cannot be opened, ImageError for a file that is no image or is damaged,
    LimitExceeded (before decoding) for one that is too large.
    """
    image, notes = open_with_notes(source)
    return _decode(image, notes, metadata, limits)


def as_picture(image: Any, *, metadata: bool = False, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """The Picture of a Picture (as it is), PIL image, numpy array, torch tensor, path or bytes of an image file.

    Raises ConfigError for another type, and what `open_image`, `from_pil`, `from_array` and `from_tensor` raise.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, Image.Image):
        return from_pil(image, metadata, limits)
    if isinstance(image, np.ndarray):
        return from_array(image)
    if isinstance(image, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(image, "read"):
        return open_image(image, metadata, limits)
    # without an import: if torch was never imported, this is no tensor
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(image, torch.Tensor):
        return from_tensor(image)
    raise ConfigError(f"image is a {type(image).__name__}; give a Picture, PIL image, array, tensor, path or bytes")


def from_pil(image: Image.Image, metadata: bool = False, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """The picture in ``image``, any mode of docs/images.md, turned upright; an image not decoded yet is decoded.

    ``metadata`` as in `open_image`. Raises ImageError for other modes and damaged files, LimitExceeded.
    """
    return _decode(image, frame_notes(image) + depth_notes(image), metadata, limits)


def to_pil(picture: Picture) -> Image.Image:
    """A PIL image in mode L, RGB, LA or RGBA; its ``info`` has ``exif``, ``icc_profile`` and ``xmp`` where known."""
    image = Image.fromarray(to_array(picture))
    if picture.exif is not None:
        image.info["exif"] = EXIF_PREFIX + picture.exif
    if picture.icc is not None:
        image.info["icc_profile"] = picture.icc
    if picture.xmp is not None:
        image.info["xmp"] = picture.xmp
    return image


def from_array(array: np.ndarray) -> Picture:
    """The picture of ``array: (H, W)`` or ``(H, W, C)``, C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.

    uint8, uint16 (65535 is white) or float in [0, 1], taken as sRGB; copied. Raises ImageError for anything else.
    """
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or not 1 <= channels <= 4:
        raise ImageError(f"array shape (={array.shape}) must be (H, W) or (H, W, C) with C from 1 to 4")
    planes = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return _from_planes(planes, "array")


def to_array(picture: Picture) -> np.ndarray:
    """(H, W) uint8 for grey, (H, W, 2) with alpha, (H, W, 3) for RGB, (H, W, 4) with alpha; a copy."""
    planes = _to_planes(picture)
    if len(planes) == 1:
        return planes[0].copy()
    return np.ascontiguousarray(planes.transpose(1, 2, 0))


def from_tensor(tensor: Tensor) -> Picture:
    """The picture of ``tensor: (C, H, W)`` uint8 or float in [0, 1] on any device; C as in `from_array`.

    Raises ImageError for another shape, dtype or range.
    """
    if tensor.ndim != 3 or not 1 <= tensor.shape[0] <= 4:
        raise ImageError(f"tensor shape (={tuple(tensor.shape)}) must be (C, H, W) with C from 1 to 4")
    tensor = tensor.detach().cpu()
    # numpy has no bfloat16
    return _from_planes((tensor.float() if tensor.is_floating_point() else tensor).numpy(), "tensor")


def to_tensor(picture: Picture) -> Tensor:
    """(C, H, W) uint8 on the CPU, C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; a copy."""
    import torch

    return torch.from_numpy(_to_planes(picture).copy())


def to_srgb(picture: Picture) -> Picture:
    """``picture`` with its pixels converted from its ICC profile to sRGB and the profile dropped."""
    if picture.icc is None:
        return picture
    colour, _, notes = apply_profile(to_pil(Picture(picture.pixels)), picture.icc, keep=False)
    return replace(picture, pixels=from_array(np.asarray(colour)).pixels, icc=None, notes=picture.notes + notes)


def _decode(image: Image.Image, notes: list[str], metadata: bool, limits: Limits) -> Picture:
    """The picture that `from_pil` gives, with the ``notes`` of opening."""
    name = str(getattr(image, "filename", "") or "image")
    if 0 in image.size:
        raise ImageError(f"{name} of {image.width}x{image.height} px has no pixel; give at least 1x1")
    limits.check_size(*image.size, what=name)
    key = colour_key(image)
    load(image, name)
    colour, alpha = split_alpha(image, key)
    colour, icc, profile_notes = apply_profile(colour, image.info.get("icc_profile"), keep=metadata)
    planes = np.asarray(colour)
    planes = planes[None] if planes.ndim == 2 else planes.transpose(2, 0, 1)
    turn = orientation(image)
    exif = read_exif(image, turned=turn != 1) if metadata else None
    xmp = read_xmp(image) if metadata else None
    limits.check_metadata(sum(len(block) for block in (exif, icc, xmp) if block))
    return Picture(
        turn_upright(planes, turn).copy(),
        None if alpha is None else turn_upright(alpha, turn).copy(),
        exif,
        icc,
        xmp,
        (*notes, *profile_notes),
    )


def _from_planes(planes: np.ndarray, what: str) -> Picture:
    """The picture of ``planes: (C, H, W)``, C from 1 to 4."""
    if 0 in planes.shape:
        raise ImageError(f"{what} of {planes.shape[2]}x{planes.shape[1]} px has no pixel; give at least 1x1")
    if planes.dtype == np.uint16:
        planes = depth_to_8_bits(planes)
    elif np.issubdtype(planes.dtype, np.floating):
        planes = unit_to_8_bits(planes, what)
    elif planes.dtype != np.uint8:
        raise ImageError(f"{what} dtype (={planes.dtype}) must be uint8, uint16 or float in [0, 1]")
    colours = 1 if len(planes) < 3 else 3
    alpha = planes[colours].copy() if len(planes) > colours else None
    if alpha is not None and alpha.min() == 255:
        alpha = None
    return Picture(planes[:colours].copy(), alpha)


def _to_planes(picture: Picture) -> np.ndarray:
    """(C, H, W) uint8, alpha as the last channel if there is one; may share memory with the picture."""
    return picture.pixels if picture.alpha is None else np.concatenate([picture.pixels, picture.alpha[None]])
