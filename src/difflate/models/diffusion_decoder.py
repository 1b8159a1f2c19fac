"""Conditional diffusion compression (Yang & Mandt 2023): a diffusion model restores what a transform coder has lost.

    y_hat ── synthesis ────────────────┬─────────────────────────────────────────┐
      └───── context decoder ──┐   condition                                    + ── image
                               └─ U-Net: noise ─ steps ─ refinement ─ bound ─────┘

The paper's decoder makes the image itself, from noise and from what a context decoder makes of the latent. Here it may
also run on what the synthesis leaves, in units of its typical size: then no step is the transform coder, every step
adds to it, and a bound says by how much at most.
"""

import dataclasses
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.diffusion import ProcessConfig, ddim, expand
from difflate.errors import ConfigError
from difflate.models.transform_coder import MIDDLE_LMBDA, TransformCoder
from difflate.nn.colour import RGB_TO_YCRCB, YCRCB_TO_RGB, mix
from difflate.nn.entropy_network import HyperpriorConfig
from difflate.nn.layers import conv
from difflate.nn.transforms import STRIDE, Block, TransformConfig
from difflate.nn.unet import UNet, UNetConfig
from difflate.store.folders import FolderModel

BLOCK_PX = 16
"""Side of the blocks in which a refinement is bounded."""
_LEVEL_FEATURES = 4
_MAX_STEPS, _MAX_GAMMA = 1000, 2.0
_STD, _STD_POWER = 0.066, -0.24


@dataclass(frozen=True)
class DecoderConfig:
    """What the diffusion of a `DiffusionCoder` makes, and what of the decoded latent it is told."""

    residual: bool = True
    """The diffusion runs on what the synthesis leaves, in units of `DiffusionCoder.residual_std`; false: on the image,
    as in the paper."""
    residual_chroma: float | None = None
    """What the synthesis leaves is taken in Y, Cr and Cb, the last two divided by this, their typical size in units of
    Y's: noise of one size for R, G and B is too much for their differences, and stays as specks of colour. null: in
    RGB."""
    see_synthesis: bool = True
    """The synthesis is a condition of the network's highest level."""
    context_widths: list[int] | tuple[int, ...] = (0, 0, 96)
    """Channels made of the decoded latent for each level of the network; 0: none. The context decoder starts from the
    latent at 1/16 of the size and doubles it, so levels between its first and 1/16 cannot be left out."""
    max_refinement: float = 1.0
    """Largest rms of what is added to the synthesis in a block of 16x16 px, in units of `DiffusionCoder.residual_std`;
    0: any, as in the paper."""
    steps: int = 4
    """Of decoding, unless asked for others."""
    gamma: float = 0.8
    """γ: standard deviation of the noise that decoding starts from, unless asked for another."""

    def __post_init__(self) -> None:
        if not all(0 <= width <= 1 << 14 for width in self.context_widths):
            raise ConfigError(f"`context_widths` (={list(self.context_widths)}) must be from 0 to {1 << 14}")
        if self.residual_chroma is not None and not (self.residual and 0.01 <= self.residual_chroma <= 100):
            raise ConfigError(f"`residual_chroma` (={self.residual_chroma}) must be from 0.01 to 100, with `residual`")
        if not 0 <= self.max_refinement < math.inf:
            raise ConfigError(f"`max_refinement` (={self.max_refinement}) must be a number from 0 on")
        if not 0 <= self.steps <= _MAX_STEPS:
            raise ConfigError(f"`steps` (={self.steps}) must be from 0 to {_MAX_STEPS}")
        if not 0 <= self.gamma <= _MAX_GAMMA:
            raise ConfigError(f"`gamma` (={self.gamma}) must be from 0 to {_MAX_GAMMA}")

    @property
    def needs_synthesis(self) -> bool:
        """Whether an image depends on the synthesis of the transform coder."""
        return self.residual or self.see_synthesis or self.max_refinement > 0


@dataclass(frozen=True)
class Conditions:
    """What all steps of a decoding share, computed once for each image."""

    synthesis: Tensor
    """(B, 3, H, W) in about [-1, 1]: the image of the transform coder, H and W multiples of 16."""
    spatial: list[Tensor | None]
    """For each level of the network (B, C, its height, its width)."""
    vector: Tensor | None
    """(B, 4) the quality level, as the network is told; None where there is one rate."""
    std: Tensor
    """(B,) of what the synthesis leaves, typically, in units of the pixels."""


def fitted(network: UNetConfig, decoder: DecoderConfig, process: ProcessConfig, levels: bool = True) -> UNetConfig:
    """``network`` with the settings that follow from the others; ``levels``: it is for more than one quality.

    Raises ConfigError if they were set to something else, or if levels and ``context_widths`` do not fit.
    """
    if (network.in_channels, network.out_channels) != (3, 3):
        raise ConfigError("`in_channels` and `out_channels` must be 3; pixels are RGB")
    widths, patch = list(decoder.context_widths), network.patch
    if patch not in (1, 2, 4, 8, 16):
        raise ConfigError(f"`patch` (={patch}) must be 1, 2, 4, 8 or 16, which divide the latent's stride of {STRIDE}")
    if len(widths) != len(network.widths):
        raise ConfigError(
            f"`context_widths` (={widths}) must have an entry for each of `widths` (={len(network.widths)})"
        )
    at = {patch << level: width for level, width in enumerate(widths) if width}
    if any(stride > STRIDE for stride in at):
        raise ConfigError(f"`context_widths` (={widths}) must be 0 for levels below 1/{STRIDE} of the size")
    if any(stride not in at for stride in _strides(at)):
        raise ConfigError(f"`context_widths` (={widths}) must have no 0 between its first and 1/{STRIDE} of the size")
    conds = [widths[0] + (3 * patch**2 if decoder.see_synthesis else 0), *widths[1:]]
    follows = {"cond_channels": conds, "vector_channels": _LEVEL_FEATURES * levels, "noise_scale": process.noise_scale}
    for key, value in follows.items():
        given = getattr(network, key)
        given = list(given) if isinstance(given, tuple) else given
        if given not in (getattr(UNetConfig, key), value):
            raise ConfigError(f"`{key}` (={given}) follows from decoder and process (={value}); leave it out")
    return dataclasses.replace(network, **follows)


def _strides(at: dict[int, int]) -> list[int]:
    """Of the levels that the context decoder passes, from 8 to the first."""
    first = min(at, default=STRIDE)
    return [STRIDE >> n for n in range(1, 5) if STRIDE >> n >= first]


class ContextDecoder(nn.Module):
    """Features of a latent at the sizes of the U-Net's levels.

    From 8 to 1 px a site each level is a block and an upsampling of the one before, as in the paper, where they mirror
    the analysis; at 16 px a site it is the latent through a matrix.
    """

    def __init__(self, channels: int, widths: list[int], patch: int):
        """``channels``: of the latent; ``widths``: for each level, the first at 1/``patch`` of the size."""
        super().__init__()
        self.levels = {patch << level: level for level, width in enumerate(widths) if width}
        strides = _strides({stride: widths[level] for stride, level in self.levels.items()})
        sizes = [channels, *(widths[self.levels[stride]] for stride in strides)]
        self.strides = strides
        self.same = conv(channels, widths[self.levels[STRIDE]], 1) if STRIDE in self.levels else None
        self.up = nn.ModuleList(
            nn.Sequential(Block(before, after), nn.ConvTranspose2d(after, after, 4, 2, 1))
            for before, after in itertools.pairwise(sizes)
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, y: Tensor) -> dict[int, Tensor]:
        """Level of the U-Net to features (B, width, its height, its width), of ``y: (B, M, h, w)``."""
        y = y.contiguous(memory_format=torch.channels_last)
        found = {} if self.same is None else {self.levels[STRIDE]: self.same(y)}
        for stride, layer in zip(self.strides, self.up, strict=True):
            y = layer(y)
            found[self.levels[stride]] = y
        return found


class DiffusionCoder(FolderModel):
    """A `TransformCoder` and the diffusion model that decodes for it."""

    kind = "cdc"
    usage = "difflate compress photo.png --codec FOLDER --bpp 0.4"

    def __init__(
        self,
        coder_transform: TransformConfig,
        coder_hyperprior: HyperpriorConfig | None,
        lmbda_min: float,
        lmbda_max: float,
        decoder: DecoderConfig,
        network: UNetConfig,
        process: ProcessConfig,
    ):
        """The first four are those of `TransformCoder`. Of ``network``, `cond_channels`, `vector_channels` and
        `noise_scale` follow from the others (`fitted`). Raises ConfigError."""
        super().__init__()
        self.coder_transform, self.coder_hyperprior = coder_transform, coder_hyperprior
        self.lmbda_min, self.lmbda_max = lmbda_min, lmbda_max
        self.decoder, self.process = decoder, process
        self.network = fitted(network, decoder, process, lmbda_min < lmbda_max)
        self.coder = TransformCoder(coder_transform, coder_hyperprior, lmbda_min, lmbda_max)
        self.context = ContextDecoder(coder_transform.latent_channels, list(decoder.context_widths), network.patch)
        self.unet = UNet(self.network)
        self.diffusion = process.build()

    def _save_beside(self, folder: Path) -> dict[str, Any]:
        return self.coder.save_exact(folder)

    def _load_beside(self, folder: Path) -> None:
        self.coder.load_exact(folder)

    def residual_std(self, level: Tensor) -> Tensor:
        """Typical rms of image minus synthesis at ``level``, same shape, in pixels of [-1, 1].

        A power of λ, fitted to what a trained `dct` coder left of photographs, from .12 at λ = .0006 to .04 at .08.
        BITSTREAM: no, but part of every trained decoder, which is scaled by it.
        """
        return _STD * (self.coder.lmbda(level) / MIDDLE_LMBDA) ** _STD_POWER

    def conditions(self, y_hat: Tensor, level: Tensor) -> Conditions:
        """Of ``y_hat: (B, M, h, w)``, the decoded latent in quantizer steps, and ``level: (B,)`` in [0, 1]."""
        with torch.autocast(y_hat.device.type, enabled=False):  # residuals are measured from it: as a codec has it
            y = self.coder.dequantised(y_hat.float(), level)
            synthesis = self.coder.synthesis(y, level)
        if self.coder_transform.kind == "dct":
            y = y.sign() * y.abs().log1p()  # coefficients of a block transform span decades
        features = self.context(y)
        spatial: list[Tensor | None] = [features.get(i) for i in range(len(self.network.widths))]
        if self.decoder.see_synthesis:
            seen = F.pixel_unshuffle(synthesis, self.network.patch)
            spatial[0] = seen if spatial[0] is None else torch.cat([spatial[0], seen], dim=1)
        return Conditions(synthesis, spatial, self._vector(level), self.residual_std(level))

    def _vector(self, level: Tensor) -> Tensor | None:
        if not self.network.vector_channels:
            return None
        waves = torch.arange(1, _LEVEL_FEATURES + 1, device=level.device) * math.pi
        return (level[:, None] * waves).cos()

    def forward(self, x: Tensor, condition: Tensor, x0_prev: Tensor | None = None, *, conditions: Conditions) -> Tensor:
        """The network as `difflate.diffusion.Model`: the target (B, 3, H, W) for ``x: (B, 3, H, W)`` and the noise
        ``condition: (B,)``."""
        return self.unet(x, condition, x0_prev, spatial=conditions.spatial, vector=conditions.vector)

    def to_x0(self, images: Tensor, conditions: Conditions) -> Tensor:
        """What the diffusion runs on, same shape, of ``images: (B, 3, H, W)`` in [-1, 1]; inverse of `to_images`."""
        if not self.decoder.residual:
            return images
        residual = (images - conditions.synthesis) / expand(conditions.std, images)
        chroma = self.decoder.residual_chroma
        return residual if chroma is None else mix(RGB_TO_YCRCB / _chroma_scales(chroma)[:, None], residual)

    def to_images(self, x0: Tensor, conditions: Conditions) -> Tensor:
        """The images, same shape, not clamped, that ``x0: (B, 3, H, W)`` stands for."""
        if not self.decoder.residual:
            return x0
        chroma = self.decoder.residual_chroma
        residual = x0 if chroma is None else mix(YCRCB_TO_RGB * _chroma_scales(chroma), x0)
        return conditions.synthesis + residual * expand(conditions.std, x0)

    @torch.no_grad()
    def refine(self, conditions: Conditions, steps: int, noise: Tensor) -> Tensor:
        """(B, 3, H, W) in about [-1, 1], not clamped: the decoded images, by ``steps`` steps of DDIM.

        No steps: the synthesis. ``noise``: (B, 3, H, W), what the first step starts from, γ·N(0, 1) or zeros (γ = 0).
        An image depends on its own noise and conditions alone. Unless `max_refinement` is 0, in each block of 16x16 px
        it is at most `max_refinement`·std away from the synthesis in rms; so is then, at most, its rms error above
        that of the synthesis, whatever the network does.
        """
        if steps < 0:
            raise ConfigError(f"`steps` (={steps}) must be at least 0")
        if noise.shape != conditions.synthesis.shape:
            raise ConfigError(
                f"`noise` (={tuple(noise.shape)}) must have the shape of the images (={conditions.synthesis.shape})"
            )
        if not steps:
            return conditions.synthesis
        x0 = noise

        def model(x: Tensor, condition: Tensor, *extra: Tensor) -> Tensor:
            return self(x, condition, *extra, conditions=conditions)

        clip = None if self.decoder.residual else 1.0
        for step in ddim(self.diffusion, model, noise, steps, clip=clip, self_condition=self.network.self_condition):
            x0 = step.x
        return self._bounded(self.to_images(x0, conditions), conditions)

    def _bounded(self, images: Tensor, conditions: Conditions) -> Tensor:
        if not self.decoder.max_refinement:
            return images
        # what is no number is no refinement
        refinement = (images - conditions.synthesis).nan_to_num(0.0, 0.0, 0.0)
        blocks = F.avg_pool2d(refinement.square().mean(1, keepdim=True), BLOCK_PX)
        limit = expand(self.decoder.max_refinement * conditions.std, blocks)
        scale = (limit / blocks.sqrt().clamp_min(1e-12)).clamp(max=1.0)
        return conditions.synthesis + refinement * scale.repeat_interleave(BLOCK_PX, 2).repeat_interleave(BLOCK_PX, 3)


def _chroma_scales(chroma: float) -> Tensor:
    """(3,) of Y, Cr and Cb."""
    return torch.tensor([1.0, chroma, chroma])
