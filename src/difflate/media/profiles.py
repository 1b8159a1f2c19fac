"""Colours of other spaces brought to sRGB through the ICC profile that an image carries."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

SRGB_TOLERANCE = 2
"""A profile that moves no colour by more steps (of 255) is sRGB: converting would only add rounding noise."""
_SPACE_OF_MODE = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


def apply_profile(
    colour: Image.Image, icc: bytes | None, keep: bool
) -> tuple[Image.Image, bytes | None, tuple[str, ...]]:
    """``colour`` (mode L, RGB or CMYK) as L or RGB, the profile that its values are now to be read with, and notes.

    With ``keep`` grey and RGB stay as they are beside their profile. Otherwise, and for CMYK always, the values are
    converted to sRGB and the profile returned is None. A profile that is broken, or made for another kind of image
    than this one, is ignored, with a note. CMYK without a profile goes by Pillow's formula.
    """
    transform, notes = None, ()
    if icc:
        try:
            transform = _to_srgb(icc, colour.mode)
        except Exception as error:
            # what a profile of a stranger can raise is not listed anywhere, and no image is worth refusing for it
            notes = (f"the ICC profile is ignored ({error})",)
    if transform is None:
        return (colour.convert("RGB") if colour.mode == "CMYK" else colour), None, notes
    if keep and colour.mode != "CMYK":
        return colour, icc, ()
    if colour.mode != "CMYK" and _is_identity(transform, colour.mode):
        return colour, None, ()
    return _convert(transform, colour), None, ()


def _to_srgb(icc: bytes, mode: str) -> Any:
    """The transform from ``mode`` with the profile ``icc`` to RGB in sRGB. Raises if the profile is of no use."""
    from PIL import ImageCms

    profile: Any = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    space = profile.profile.xcolor_space.strip()
    if space != _SPACE_OF_MODE[mode]:
        raise ValueError(f"it describes {space} where the image is {_SPACE_OF_MODE[mode]}")
    # Perceptual is what printing profiles are made for; the others hold no table for it and give relative
    # colorimetric. Black point compensation keeps black black.
    return ImageCms.buildTransform(
        profile,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.PERCEPTUAL,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _convert(transform: Any, colour: Image.Image) -> Image.Image:
    """``colour`` through ``transform``; grey stays grey."""
    rgb = transform.apply(colour)
    return rgb.getchannel("G") if colour.mode == "L" else rgb


def _is_identity(transform: Any, mode: str) -> bool:
    """Whether ``transform`` leaves a grid over all colours as it is, within `SRGB_TOLERANCE`."""
    if mode == "L":
        probe = np.arange(256, dtype=np.uint8)[None]
    else:
        levels = np.linspace(0, 255, 16).astype(np.uint8)
        probe = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(16, -1, 3)
    moved = np.asarray(_convert(transform, Image.fromarray(probe)))
    return int(np.abs(moved.astype(int) - probe).max()) <= SRGB_TOLERANCE
