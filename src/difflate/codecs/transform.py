"""The parts that codecs with a transform and a hyperprior share, and what their latents are in Python.

What a file's bits mean is decided in integers (`difflate.entropy.hyperprior`); the networks before and behind may
differ by rounding from machine to machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from difflate.codecs.base import quality_for
from difflate.codecs.effort import Progress, error_bits, fit_latent, steps_of
from difflate.codecs.fallback import Fallback
from difflate.codecs.learned import LearnedCodec, Restorer, as_grey
from difflate.entropy import SymbolReader, SymbolWriter
from difflate.entropy.hyperprior import QUALITY_MAX, Z_STRIDE, FactorizedCoder, HyperpriorCoder
from difflate.entropy.latent import Latent, Latents
from difflate.errors import ConfigError, FormatError, ModelError
from difflate.format import sections
from difflate.models.bottlenecks.rounded import CodedInSteps
from difflate.models.transform_coder import TransformModel
from difflate.nn.tiles import TILE_PX, Numbers, blend, restore_in_tiles, sites_of, windows
from difflate.options import Options
from difflate.registry import Kind

_MARGIN, _RAMP = 8, 4
"""Widths in sites: the margin is more than the transforms see to either side."""
_PRICED_ROWS = 256
"""Of pixels, that errors are summed of at a time."""
_BAND_ROWS, _SEEN_ROWS = 64, 8
"""Rows of the latent that side information is computed of at a time, and more than it sees to either side."""


class TransformCodec(LearnedCodec):
    """A codec of a `TransformModel` and its entropy model in integers; how it restores is the child's."""

    space: TransformSpace
    coder: HyperpriorLatents
    quality_range: tuple[float, float, float] | None
    progress: Progress | None = None
    """Told how far the encoding of an image with an effort above 1 is; may raise to give it up."""

    def __init__(
        self, name: str, kind: Kind, model: nn.Module, space: TransformSpace, restorer: Restorer, defaults: Options,
        exact: HyperpriorCoder | FactorizedCoder | None = None,
    ):  # fmt: skip
        """``model``: all networks, those of ``space`` among them. ``exact``: the entropy model, by default the one that
        was stored with the networks. Raises ModelError if it does not fit them."""
        transform = space.model
        exact = exact or transform.exact_coder
        if exact.latent_channels != transform.transform.latent_channels:
            raise ModelError(
                f"{name}: the entropy model has {exact.latent_channels} channels, the transforms "
                f"{transform.transform.latent_channels}; get the model folder again"
            )
        coder = HyperpriorLatents(transform, exact)
        # other transforms with the same entropy model read the same files
        own = transform.exact.fingerprint_of(exact.exact_tensors())
        super().__init__(name, kind, own, space, coder, restorer, defaults, Fallback(space))
        self.model = model.eval()
        if transform.lmbda_min == transform.lmbda_max:
            self.quality_range = None

    def analyse(self, pixels: Sequence[Tensor], quality: float | None, options: Any) -> list[Tensor]:
        """(M, ⌈H/16⌉, ⌈W/16⌉) y of each of ``pixels``: (1 or 3, H, W) uint8, as many sites; with an effort the better
        one of it and a fitted one, which it is never dearer than."""
        found = super().analyse(pixels, quality, options)
        steps = steps_of(options.effort)
        if not steps:
            return found
        return [self._fitted(*each, quality, options, steps) for each in zip(found, pixels, strict=True)]

    def _fitted(self, y: Tensor, pixels: Tensor, quality: float | None, options: Any, steps: int) -> Tensor:
        space = self.space
        tile, told = sites_of(options.tile_px, space.stride_px), space.as_network_input(quality_step(quality))
        fitted = fit_latent(space.model, y, pixels, told, tile, steps, self.progress)
        return min(y, fitted, key=lambda latent: self.price(latent, pixels, quality, options))

    def price(self, y: Tensor, pixels: Tensor, quality: float | None, options: Any) -> float:
        """What ``y`` costs: the bits of its symbols in a file, and those that the squared errors of the transform's
        image to ``pixels`` are worth (`error_bits`)."""
        _, data, latent = self.coder.write(y, len(pixels) == 1, quality, options)
        step = quality_step(quality)
        _, height, width = pixels.shape
        (restored,) = self.space.restore(Latents([latent]), height, width, [step], options.tile_px)
        restored = restored if len(pixels) == 3 else as_grey(restored)
        bands = zip(restored.split(_PRICED_ROWS, dim=1), pixels.split(_PRICED_ROWS, dim=1), strict=True)
        errors = sum(float((first.float() - second.float()).square().sum()) for first, second in bands)
        worth = float(error_bits(self.space.model, self.space.as_network_input(step)))
        return 8 * len(data) + worth * errors / len(pixels)

    def to_latent(self, images: Tensor, quality: float | None = None) -> Tensor:
        """(B, M, ⌈H/16⌉, ⌈W/16⌉) float32 in quantizer steps: what files of ``images: (B, 3, H, W)`` uint8 RGB hold.

        Raises ConfigError.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.uint8:
            raise ConfigError(f"images ({tuple(images.shape)}, {images.dtype}) must be (B, 3, H, W) uint8")
        quality, options = quality_for(self, quality), self.encoding().over(self.defaults)
        parts = images.cpu().split(self._most(self._sites(*images.shape[2:]), options))
        analysed = (y for part in parts for y in self.analyse(list(part), quality, options))
        latents = [self.coder.write(y, False, quality, options)[2].y_hat for y in analysed]
        return torch.from_numpy(np.stack(latents))

    def from_latent(
        self, latent: Tensor, height: int | None = None, width: int | None = None, quality: float | None = None
    ) -> Tensor:
        """(B, 3, H, W) uint8 of ``latent: (B, M, h, w)`` as `to_latent` gives it for that quality: the synthesis alone.

        Cropped if a size is given. Raises ConfigError.
        """
        step, channels = quality_step(quality_for(self, quality)), self.space.model.transform.latent_channels
        if latent.ndim != 4 or latent.shape[1] != channels:
            raise ConfigError(f"latent ({tuple(latent.shape)}) must be (B, {channels}, h, w)")
        rows, columns = (side * self.space.stride_px for side in latent.shape[2:])
        if (height or rows) > rows or (width or columns) > columns:
            raise ConfigError(f"size (={width}x{height} px) must be within the latent's, {columns}x{rows} px")
        images = [
            self.space.restore(y[None].float().numpy(), height or rows, width or columns, [step], TILE_PX)
            for y in latent.cpu()
        ]
        return torch.cat(images)

    def to(self, device: torch.device | str) -> Self:
        """Moves the networks. What is exact stays where it is."""
        self.model.to(device)
        return self


class TransformSpace:
    """Numbers in quantizer steps, M channels at 1/`stride_px` of the size, by analysis and synthesis in tiles."""

    def __init__(self, model: TransformModel):
        self.model, self.stride_px = model, model.stride_px

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def to(self, device: torch.device) -> Self:
        """Moves the networks."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def analyse(self, pixels: Tensor, quality: float | None, options: Any) -> Tensor:
        """(B, M, ⌈H/16⌉, ⌈W/16⌉) float32 y on the CPU, of ``pixels: (B, 3, H, W)`` uint8."""
        stride, count = self.stride_px, len(pixels)
        height, width = (-(-side // stride) for side in pixels.shape[2:])
        y = torch.zeros(count * self.model.transform.latent_channels, height, width, dtype=torch.float32)
        told = self.as_network_input(*[quality_step(quality)] * count)
        for rows, columns in windows(height, width, sites_of(options.tile_px, stride), _MARGIN, _RAMP, 1):
            part = pixels[
                :, :, rows.start * stride : rows.stop * stride, columns.start * stride : columns.stop * stride
            ]
            analysed = self.model.analyse(part.to(self.device).float() / 127.5 - 1, told)
            blend(y, analysed.float().cpu().flatten(0, 1), rows, columns, 1)
        return y.unflatten(0, (count, -1))

    @torch.no_grad()
    def restore(self, y_hat: Numbers, height: int, width: int, steps: Sequence[int], tile_px: int) -> Tensor:
        """(B, 3, ``height``, ``width``) uint8 on the CPU, of ``y_hat: (B, M, h, w)`` float32 at the qualities of B
        files."""
        told = self.as_network_input(*steps)

        def tile(part: Tensor, rows: int, columns: int) -> Tensor:
            return self.model.synthesise(part, told)

        return restore_in_tiles(tile, y_hat, height, width, tile_px, _MARGIN, _RAMP, self.stride_px, self.device)

    def preview(self, y_hat: np.ndarray, quality: float | None) -> Tensor:
        """(3, s·h, s·w) uint8 on the CPU, of ``y_hat: (M, h, w)`` float32; s is `stride_px`."""
        height, width = (side * self.stride_px for side in y_hat.shape[1:])
        return self.restore(y_hat[None], height, width, [quality_step(quality)], TILE_PX)[0]

    def trade_off(self, quality: float | None) -> tuple[float, float]:
        """λ, and the squared error that is usual in photographs, in 8-bit levels."""
        told = self.as_network_input(quality_step(quality))
        return float(self.model.lmbda(told)), float(self.model.residual_std(told) * 127.5) ** 2

    def as_network_input(self, *steps: int) -> Tensor:
        """(B,) float32 in [0, 1] of the qualities of B files, 0 to 65535."""
        return torch.tensor([step / QUALITY_MAX for step in steps], dtype=torch.float32, device=self.device)


def quality_step(quality: float | None) -> int:
    """0 to 65535, as files have it, of a ``quality`` from 0 to 100; None, of a model with one rate, is 0."""
    return round((0.0 if quality is None else quality / 100) * QUALITY_MAX)


def quality_of(kept: Mapping[int, bytes]) -> int:
    """The quality in a file, 0 to 65535. Raises FormatError if the file has no latent."""
    data = kept.get(sections.LATENT)
    if data is None or len(data) < 2:
        raise FormatError("the file has no section with the image's latent; get an intact copy of it")
    return int.from_bytes(data[:2], "little")


class HyperpriorLatents:
    """y to bytes and back: side information by a network, all that bits depend on in integers."""

    def __init__(self, model: TransformModel | CodedInSteps, exact: HyperpriorCoder | FactorizedCoder):
        """``model``: whose y it is, and which makes the side information of it."""
        self.model, self.exact = model, exact

    def write(self, analysed: Tensor, grey: bool, quality: float | None, options: Any) -> tuple[int, bytes, Latent]:
        """``analysed``: (M, h, w) float32; see `difflate.codecs.learned.LatentCoder`."""
        step = quality_step(quality)
        z = self._side_information(analysed)
        writer = SymbolWriter()
        latent = self.exact.encode(analysed.numpy(), z.numpy(), step, writer)
        return sections.LATENT, step.to_bytes(2, "little") + writer.finish(), latent

    def read(self, kept: Mapping[int, bytes], rows: int, columns: int, grey: bool) -> Latent:
        """See `difflate.codecs.learned.LatentCoder`. Raises FormatError, DesyncError."""
        step = quality_of(kept)
        return self.exact.decode(rows, columns, step, SymbolReader(kept[sections.LATENT][2:]))

    @torch.no_grad()
    def _side_information(self, y: Tensor) -> Tensor:
        """(Z, ⌈h/4⌉, ⌈w/4⌉) of ``y: (M, h, w)``, in bands of rows: what is inside of the network is larger than y."""
        device = next(self.model.parameters()).device
        parts = []
        for top in range(0, y.shape[1], _BAND_ROWS):
            above = min(top, _SEEN_ROWS)
            band = y[None, :, top - above : top + _BAND_ROWS + _SEEN_ROWS].to(device)
            z = self.model.side_information(band)[0, :, above // Z_STRIDE :][:, : _BAND_ROWS // Z_STRIDE]
            parts.append(z.float().cpu())
        return torch.cat(parts, dim=1)
