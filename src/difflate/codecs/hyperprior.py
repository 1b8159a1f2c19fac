"""Transform coding with a scale hyperprior (Ballé, Minnen, Singh, Hwang, Johnston 2018), in one model for all rates.

Read `HyperpriorCodec.encode` and `decode` side by side. What a file's bits mean is decided in integers
(`difflate.entropy.hyperprior`); the networks before and behind may differ by rounding from machine to machine.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from difflate.codecs.base import check_quality
from difflate.codecs.beside import picture_of, sections_beside
from difflate.entropy import SymbolReader, SymbolWriter
from difflate.entropy.hyperprior import QUALITY_MAX, Z_STRIDE, FactorizedCoder, HyperpriorCoder, Latent
from difflate.errors import DesyncError, FormatError, ModelError, VerificationFailed
from difflate.format import container
from difflate.format.container import DflFile, read_dfl, symbols_crc, write_dfl
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture
from difflate.models.transform_coder import TransformModel
from difflate.nn.tiles import TILE_PX, blend, restore_in_tiles, sites_of, windows
from difflate.store.fingerprint import fingerprint

_MARGIN, _RAMP = 8, 4
"""In sites: the margin is more than the transforms see to either side."""
_BAND_ROWS, _SEEN_ROWS = 64, 8
"""Rows of the latent that side information is computed of at a time, and more than it sees to either side."""
_QUALITY = (0.0, 100.0, 50.0)


class HyperpriorCodec:
    """Pictures to .dfl files and back, with a `TransformModel` and its entropy model in integers."""

    suffix = ".dfl"

    def __init__(
        self,
        name: str,
        model: TransformModel,
        coder: HyperpriorCoder | FactorizedCoder,
        number: int = container.CODEC_HYPERPRIOR,
    ):
        """``coder``: what was stored with the model, never what `TransformModel.exact_coder` would make anew.

        ``number``: of the codec in files.
        """
        self.name, self.model, self.coder, self.number = name, model.eval(), coder, number
        one_rate = model.lmbda_min == model.lmbda_max
        self.quality_range: tuple[float, float, float] | None = None if one_rate else _QUALITY
        if coder.latent_channels != model.transform.latent_channels:
            raise ModelError(
                f"{name}: the entropy model has {coder.latent_channels} channels, the transforms "
                f"{model.transform.latent_channels}; get the model folder again"
            )

    @functools.cached_property
    def fingerprint(self) -> bytes:
        """(32 bytes) of what files depend on; other transforms with the same entropy model read the same files."""
        return fingerprint("hyperprior", self.coder.exact_tensors())

    @property
    def model_id(self) -> bytes:
        """(4 bytes) the first of the fingerprint; stands in each file."""
        return self.fingerprint[:4]

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    # -- pictures and files ------------------------------------------------------------------------------------------

    def encode(
        self,
        picture: Picture,
        *,
        quality: float | None = None,
        limits: Limits = DEFAULT_LIMITS,
        tile_px: int = TILE_PX,
        sections: Sequence[tuple[int, bytes]] = (),
    ) -> bytes:
        """The bytes of a .dfl file.

        ``quality``: 0 to 100, continuous. ``tile_px``: side of the tiles, which bounds the memory. ``sections``: more
        of them. Raises ConfigError, LimitExceeded, VerificationFailed (the encoder reads its own symbols back).
        """
        quality = check_quality(self, quality)
        limits.check_size(picture.width, picture.height)
        level = round((0.0 if quality is None else quality / 100) * QUALITY_MAX)
        y = self.analyse(torch.from_numpy(np.require(picture.pixels, requirements="W")), level, tile_px)
        z = self._side_information(y)
        writer = SymbolWriter()
        height, width = y.shape[1:]
        wanted = self.coder.encode(y.numpy(), z.numpy(), level, writer).symbols()
        del y  # of large images hundreds of megabytes
        symbols = writer.finish()
        if self.coder.decode(height, width, level, SymbolReader(symbols)).symbols() != wanted:
            raise VerificationFailed("the coded latent does not read back, a defect in difflate; please report it")
        file = DflFile(
            codec=self.number,
            model_id=self.model_id,
            width=picture.width,
            height=picture.height,
            grey=picture.pixels.shape[0] == 1,
            symbols_crc=symbols_crc(wanted),
            sections=(
                (container.SECTION_LATENT, level.to_bytes(2, "little") + symbols),
                *sections_beside(picture),
                *sections,
            ),
        )
        return write_dfl(file, limits)

    def decode(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, tile_px: int = TILE_PX) -> Picture:
        """The picture in a .dfl file. Raises FormatError, ModelError (another model wrote it), LimitExceeded."""
        file = read_dfl(data, limits)
        rgb = self.synthesise(self.read_latent(file).y_hat, self.level_of(file), file.height, file.width, tile_px)
        return picture_of(file, rgb)

    def read_latent(self, file: DflFile) -> Latent:
        """The latent of a file: the exact stage of decoding, checked by the symbols' checksum."""
        if file.model_id != self.model_id:
            raise ModelError(
                f"written with model {file.model_id.hex()}, not with {self.name} ({self.model_id.hex()}); "
                "name the folder of the right model"
            )
        if file.codec != self.number:  # cdc and its hyperprior have the same model's number
            raise ModelError(f"written with another kind of codec than {self.name}; leave --codec out, or name its own")
        height, width = (-(-side // self.model.stride_px) for side in (file.height, file.width))
        level = self.level_of(file)
        data = file.section(container.SECTION_LATENT)
        assert data is not None  # level_of has looked
        latent = self.coder.decode(height, width, level, SymbolReader(data[2:]))
        if symbols_crc(latent.symbols()) != file.symbols_crc:
            raise DesyncError("the latent decodes to another than was written; report this with the file")
        return latent

    def level_of(self, file: DflFile) -> int:
        """The quality level in a file, 0 to 65535. Raises FormatError if the file has no latent."""
        data = file.section(container.SECTION_LATENT)
        if data is None or len(data) < 2:
            raise FormatError("the file has no section with the image's latent; get an intact copy of it")
        return int.from_bytes(data[:2], "little")

    # -- pixels and latents ------------------------------------------------------------------------------------------

    @torch.no_grad()
    def analyse(self, pixels: Tensor, level: int, tile_px: int = TILE_PX) -> Tensor:
        """(M, ⌈H/16⌉, ⌈W/16⌉) float32 y on the CPU, of ``pixels: (1 or 3, H, W)`` uint8, in tiles."""
        stride = self.model.stride_px
        height, width = (-(-side // stride) for side in pixels.shape[1:])
        y = torch.zeros(self.coder.latent_channels, height, width, dtype=torch.float32)
        for rows, columns in windows(height, width, sites_of(tile_px, stride), _MARGIN, _RAMP, 1):
            part = pixels[
                :, rows.start * stride : rows.stop * stride, columns.start * stride : columns.stop * stride
            ].expand(3, -1, -1)
            found = self.model.analyse(part[None].to(self.device).float() / 127.5 - 1, self.level_tensor(level))
            blend(y, found[0].float().cpu(), rows, columns, 1)
        return y

    @torch.no_grad()
    def synthesise(self, y_hat: np.ndarray, level: int, height: int, width: int, tile_px: int = TILE_PX) -> Tensor:
        """(3, ``height``, ``width``) uint8 on the CPU, of ``y_hat: (M, h, w)`` float32, in tiles."""

        def restore(part: Tensor, rows: int, columns: int) -> Tensor:
            return self.model.synthesise(part, self.level_tensor(level))

        return restore_in_tiles(
            restore, y_hat, height, width, tile_px, _MARGIN, _RAMP, self.model.stride_px, self.device
        )

    @torch.no_grad()
    def _side_information(self, y: Tensor) -> Tensor:
        """(Z, ⌈h/4⌉, ⌈w/4⌉) of ``y: (M, h, w)``, in bands of rows: what is inside of the network is larger than y."""
        found = []
        for top in range(0, y.shape[1], _BAND_ROWS):
            above = min(top, _SEEN_ROWS)
            band = y[None, :, top - above : top + _BAND_ROWS + _SEEN_ROWS].to(self.device)
            z = self.model.side_information(band)[0, :, above // Z_STRIDE :][:, : _BAND_ROWS // Z_STRIDE]
            found.append(z.float().cpu())
        return torch.cat(found, dim=1)

    def level_tensor(self, level: int) -> Tensor:
        """(1,) float32 in [0, 1], as the networks take it, of a file's level."""
        return torch.tensor([level / QUALITY_MAX], dtype=torch.float32, device=self.device)
