"""What Pillow's image modes become: grey or RGB with 8 bits, and alpha (docs/images.md has the table)."""

from __future__ import annotations

import numpy as np
from PIL import Image

from difflate.errors import ImageError

_THROUGH_RGBA = ("PA", "RGBa", "RGBA")
_THROUGH_RGB = ("RGB", "RGBX", "YCbCr", "HSV", "LAB")
FLOAT_SLACK = 1e-3
"""How far a float may lie outside of [0, 1], a quarter of a step of 8 bits: rounding errors pass, 255 does not."""


def split_alpha(image: Image.Image, key: int | tuple[int, ...] | None) -> tuple[Image.Image, np.ndarray | None]:
    """The colour of a decoded ``image`` in mode L, RGB or CMYK, and its alpha (H, W) uint8 (None: opaque).

    ``key`` is the one transparent colour as `colour_key` gives it. Raises ImageError for an unknown mode, and for
    values of mode I or F that have no place in an image.
    """
    mode = image.mode
    if mode == "La":
        image, mode = image.convert("LA"), "LA"
    if mode == "LA":
        return image.getchannel("L"), _unless_opaque(image.getchannel("A"))
    if mode in _THROUGH_RGBA or (mode == "P" and image.has_transparency_data):
        rgba = image.convert("RGBA")
        # not convert("RGB"): that goes through the same table but copies twice
        return Image.merge("RGB", rgba.split()[:3]), _unless_opaque(rgba.getchannel("A"))
    if mode == "P":
        return image.convert("RGB"), None
    if mode == "CMYK":
        return image, None
    if mode in _THROUGH_RGB:
        return image.convert("RGB"), _alpha_of_key(image, key)
    if mode in ("1", "L"):
        return image.convert("L"), _alpha_of_key(image, key)
    if mode.startswith("I;16") or mode in ("I", "F"):
        return Image.fromarray(_to_8_bits(image)), _alpha_of_key(image, key)
    raise ImageError(f"image mode (='{mode}') is not one that is read here; convert the image to RGB first")


def colour_key(image: Image.Image) -> int | tuple[int, ...] | None:
    """The one transparent colour of ``image`` (PNG's tRNS) in the scale of its decoded pixels; call before decoding."""
    key = image.info.get("transparency")
    if isinstance(key, bytes) or key is None or image.mode in ("P", "PA"):
        return None
    # Pillow scales 2-bit and 4-bit samples to 8 bits and cuts 16-bit RGB down to 8, but leaves the key as it is
    # stored. Only how the data is packed, known until it is decoded, tells the depth.
    tiles = getattr(image, "tile", None)
    packing = str(tiles[0][3]) if tiles else ""
    if isinstance(key, int):
        return key * {"L;2": 85, "L;4": 17}.get(packing, 1)
    return tuple(value >> 8 for value in key) if packing.startswith("RGB;16") else tuple(key)


def depth_to_8_bits(samples: np.ndarray) -> np.ndarray:
    """uint8 of ``samples`` uint16, any shape: divided by 257 and rounded, so that 65535 is 255."""
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def unit_to_8_bits(samples: np.ndarray, what: str) -> np.ndarray:
    """uint8 of ``samples`` float in [0, 1], any shape: times 255 and rounded. Raises ImageError outside that range."""
    low, high = float(samples.min()), float(samples.max())
    # written so that NaN fails too
    if not (low >= -FLOAT_SLACK and high <= 1 + FLOAT_SLACK):
        raise ImageError(f"{what} has values from {low:g} to {high:g}; scale them to [0, 1] or give uint8")
    return np.rint(np.clip(samples.astype(np.float64), 0, 1) * 255).astype(np.uint8)


def _to_8_bits(image: Image.Image) -> np.ndarray:
    """(H, W) uint8 of an ``image`` in mode I;16, I or F. Pillow's own conversion clips at 255 instead of scaling."""
    samples = np.asarray(image)
    if image.mode == "F":
        return unit_to_8_bits(samples, "float image")
    low, high = int(samples.min()), int(samples.max())
    if low < 0 or high > 65535:
        raise ImageError(f"integer image has values from {low} to {high}; scale them to 16 bits, 0 to 65535")
    return depth_to_8_bits(samples)


def _alpha_of_key(image: Image.Image, key: int | tuple[int, ...] | None) -> np.ndarray | None:
    """(H, W) uint8: 0 where ``image`` has the colour ``key``, else 255; None if nowhere."""
    samples = np.asarray(image.convert("L") if image.mode == "1" else image)
    if key is None or np.shape(key) != samples.shape[2:]:
        return None
    hit = samples == np.asarray(key)
    if hit.ndim == 3:
        hit = hit.all(axis=2)
    return np.where(hit, 0, 255).astype(np.uint8) if hit.any() else None


def _unless_opaque(alpha: Image.Image) -> np.ndarray | None:
    return None if alpha.getextrema()[0] == 255 else np.array(alpha)
