"""Conditional diffusion compression (Yang & Mandt 2023): files of a transform coder, restored by a diffusion model.

The exact stage is that of `HyperpriorCodec`: bits to a latent, the same on every machine. Then the synthesis of the
transform coder gives an image, and a few steps of diffusion refine it, tile by tile. The noise that they start from
follows from the seed and the place in the image, so it does not depend on the tiles.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from difflate.codecs.beside import picture_of
from difflate.codecs.hyperprior import HyperpriorCodec
from difflate.entropy.hyperprior import Latent
from difflate.errors import ConfigError, FormatError
from difflate.format import container
from difflate.format.container import DflFile, read_dfl
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture
from difflate.models.diffusion_decoder import DiffusionCoder
from difflate.nn.tiles import TILE_PX, restored_in_tiles
from difflate.nn.transforms import STRIDE
from difflate.seeds import Stream, torch_generator

_MARGIN, _RAMP = 6, 4
"""In sites. The U-Net sees further than the margin, faintly: what is left of it fades over the ramp."""
_NOISE_PX = 128
"""Side of the squares of pixels that have a generator each."""
_LAYOUT = struct.Struct("<HBI")
_GAMMA_UNIT = 1 / 100
_MAX_STEPS, _MAX_GAMMA, _MAX_SEED = 1000, 2.55, 2**32 - 1


@dataclass(frozen=True)
class DecodeHints:
    """How a file is to be decoded unless its reader is told otherwise."""

    steps: int
    """Of diffusion; 0: none, the transform coder's own image."""
    gamma: float
    """Standard deviation of the noise that diffusion starts from; 0: none, the same for every seed."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.steps <= _MAX_STEPS:
            raise ConfigError(f"steps (={self.steps}) must be from 0 to {_MAX_STEPS}")
        if not 0 <= self.gamma <= _MAX_GAMMA:
            raise ConfigError(f"gamma (={self.gamma:g}) must be from 0 to {_MAX_GAMMA:g}")
        if not 0 <= self.seed <= _MAX_SEED:
            raise ConfigError(f"seed (={self.seed}) must be from 0 to {_MAX_SEED}")

    def to_bytes(self) -> bytes:
        """The contents of the section; gamma in hundredths."""
        return _LAYOUT.pack(self.steps, round(self.gamma / _GAMMA_UNIT), self.seed)

    @classmethod
    def from_bytes(cls, data: bytes) -> DecodeHints:
        """Raises FormatError."""
        if len(data) != _LAYOUT.size:
            raise FormatError(f"the section on diffusion has {len(data)} bytes, not {_LAYOUT.size}; get an intact copy")
        steps, gamma, seed = _LAYOUT.unpack(data)
        try:
            return cls(steps, gamma * _GAMMA_UNIT, seed)
        except ConfigError as error:
            raise FormatError(f"the section on diffusion cannot be: {error}") from error


class CdcCodec:
    """Pictures to .dfl files and back, with a `DiffusionCoder`."""

    suffix = ".dfl"

    def __init__(self, name: str, model: DiffusionCoder):
        self.name, self.model = name, model.eval()
        self.base = HyperpriorCodec(name, model.coder, model.coder.exact_coder, container.CODEC_CDC)
        self.quality_range = self.base.quality_range

    @property
    def fingerprint(self) -> bytes:
        """(32 bytes) of what files depend on: that of the transform coder's entropy model."""
        return self.base.fingerprint

    @property
    def model_id(self) -> bytes:
        """(4 bytes) the first of the fingerprint; stands in each file."""
        return self.base.model_id

    def encode(
        self,
        picture: Picture,
        *,
        quality: float | None = None,
        limits: Limits = DEFAULT_LIMITS,
        tile_px: int = TILE_PX,
        steps: int | None = None,
        gamma: float | None = None,
        seed: int = 0,
    ) -> bytes:
        """The bytes of a .dfl file, which `decode` restores as ``steps``, ``gamma`` and ``seed`` say.

        ``quality``: 0 to 100, continuous. Raises ConfigError, LimitExceeded, VerificationFailed.
        """
        hints = self._hints(None, steps, gamma, seed)
        limits.check_steps(picture.width, picture.height, hints.steps)
        sections = [(container.SECTION_DIFFUSION, hints.to_bytes())]
        return self.base.encode(picture, quality=quality, limits=limits, tile_px=tile_px, sections=sections)

    def decode(
        self,
        data: bytes,
        *,
        limits: Limits = DEFAULT_LIMITS,
        tile_px: int = TILE_PX,
        steps: int | None = None,
        gamma: float | None = None,
        seed: int | None = None,
    ) -> Picture:
        """The picture in a .dfl file; what is None is as the file says.

        ``steps``: 1 to 65 are sensible, 0 is the preview without diffusion. ``tile_px``: side of the tiles, which
        bounds the memory. Raises FormatError, ModelError (another model wrote it), LimitExceeded, ConfigError.
        """
        file = read_dfl(data, limits)
        hints = self._hints(file, steps, gamma, seed)
        limits.check_steps(file.width, file.height, hints.steps)
        return picture_of(file, self._restored(file, self.read_latent(file).y_hat, hints, tile_px))

    def read_latent(self, file: DflFile) -> Latent:
        """The latent of a file: the exact stage of decoding, checked by the symbols' checksum."""
        return self.base.read_latent(file)

    def _hints(self, file: DflFile | None, steps: int | None, gamma: float | None, seed: int | None) -> DecodeHints:
        found = DecodeHints(self.model.decoder.steps, self.model.decoder.gamma)
        section = None if file is None else file.section(container.SECTION_DIFFUSION)
        if section is not None:
            found = DecodeHints.from_bytes(section)
        return DecodeHints(
            found.steps if steps is None else steps,
            found.gamma if gamma is None else gamma,
            found.seed if seed is None else seed,
        )

    @torch.no_grad()
    def _restored(self, file: DflFile, y_hat: np.ndarray, hints: DecodeHints, tile_px: int) -> Tensor:
        """(3, H, W) uint8."""
        device = self.base.device
        level = self.base.level_tensor(self.base.level_of(file))

        def restore(part: Tensor, top: int, left: int) -> Tensor:
            conditions = self.model.conditions(part, level)
            size = tuple(conditions.synthesis.shape[2:])
            if hints.gamma and hints.steps:
                noise = hints.gamma * place_noise(hints.seed, top * STRIDE, left * STRIDE, *size).to(device)
            else:
                noise = torch.zeros(1, 3, *size, device=device)
            return self.model.refine(conditions, hints.steps, noise)

        return restored_in_tiles(restore, y_hat, file.height, file.width, tile_px, _MARGIN, _RAMP, device)


def place_noise(seed: int, top: int, left: int, height: int, width: int) -> Tensor:
    """(1, 3, ``height``, ``width``) float32 of N(0, 1) on the CPU: the part from ``top``, ``left`` of a field of noise.

    Each square of 128 px of the field has a generator of its own, so any part of it can be made alone.
    """
    out = torch.empty(1, 3, height, width)
    for row in range(top // _NOISE_PX, -(-(top + height) // _NOISE_PX)):
        for column in range(left // _NOISE_PX, -(-(left + width) // _NOISE_PX)):
            generator = torch_generator(seed, Stream.DECODER_NOISE, row << 16 | column)
            square = torch.randn(3, _NOISE_PX, _NOISE_PX, generator=generator)
            y, x = row * _NOISE_PX - top, column * _NOISE_PX - left
            inside = out[0, :, max(y, 0) : y + _NOISE_PX, max(x, 0) : x + _NOISE_PX]
            square = square[:, max(-y, 0) :, max(-x, 0) :]
            inside.copy_(square[:, : inside.shape[1], : inside.shape[2]])
    return out
