"""Conditional diffusion compression (Yang & Mandt 2023): a diffusion model restores what a transform coder has lost.

    y_hat ── synthesis ────────────────┬─────────────────────────────────────────┐
      └───── context decoder ──┐   condition                                    + ── image
                               └─ U-Net: noise ─ steps ─ refinement ─ bound ─────┘

The paper's decoder makes the image itself, from noise and from what a context decoder makes of the latent. Here it may
also run on what the synthesis leaves, in units of its typical size: then no step is the transform coder, every step
adds to it, and a bound says by how much at most.
"""

import itertools
import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.diffusion import ProcessConfig, ddim, denoise, expand
from difflate.errors import ConfigError, ModelError
from difflate.models.exact import EXACT
from difflate.models.transform_coder import TransformModel
from difflate.nn.colour import RGB_TO_YCRCB, YCRCB_TO_RGB, mix
from difflate.nn.entropy_network import HyperpriorConfig
from difflate.nn.layers import channels_last, conv, settle
from difflate.nn.transforms import Block, TransformConfig
from difflate.nn.unet import UNet, UNetConfig, with_following
from difflate.store.config import read_config
from difflate.store.folders import FolderModel

BLOCK_PX = 16
"""Side of the blocks in which a refinement is bounded."""
_QUALITY_FEATURES = 4
_MAX_STEPS, _MAX_GAMMA = 1000, 2.0


@dataclass(frozen=True)
class DecoderConfig:
    """What the diffusion of a `DiffusionDecoder` makes, and what of the decoded latent it is told."""

    residual: bool = True
    """The diffusion runs on what the synthesis leaves, in units of `DiffusionDecoder.residual_std`; false: on the
    image, as in the paper."""
    residual_chroma: float | None = None
    """What the synthesis leaves is taken in Y, Cr and Cb, the last two divided by this, their typical size in units of
    Y's: noise of one size for R, G and B is too much for their differences, and stays as specks of colour. null: in
    RGB."""
    see_synthesis: bool = True
    """The synthesis is a condition of the network's highest level."""
    context_widths: list[int] | tuple[int, ...] = (0, 0, 96)
    """Channels made of the decoded latent for each level of the network; 0: none. The context decoder starts from the
    latent's size and doubles it, so levels between its first and the latent's cannot be left out."""
    max_refinement: float = 1.0
    """Largest rms of what is added to the synthesis in a block of 16x16 px, in units of
    `DiffusionDecoder.residual_std`; 0: any, as in the paper."""
    steps: int = 4
    """Steps of decoding, unless asked for others."""
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
    """(B, 3, H, W) in about [-1, 1]: the image of the transform coder, H and W multiples of the latent's stride."""
    spatial: list[Tensor | None]
    """The condition of each level of the network, (B, C, its height, its width)."""
    vector: Tensor | None
    """(B, 4) the quality, as the network is told; None where there is one rate."""
    std: Tensor
    """(B,) the typical rms of what the synthesis leaves, in units of the pixels."""


def fit_network(
    network: UNetConfig, decoder: DecoderConfig, process: ProcessConfig, stride_px: int, one_rate: bool = False
) -> UNetConfig:
    """``network`` with the settings that follow from the others.

    ``stride_px``: of the latent; ``one_rate``: the network is not told a quality. Raises ConfigError if the settings
    were given other values, or if levels and ``context_widths`` do not fit.
    """
    if (network.in_channels, network.out_channels) != (3, 3):
        raise ConfigError("`in_channels` and `out_channels` must be 3; pixels are RGB")
    widths, patch = list(decoder.context_widths), network.patch
    if stride_px % patch:
        divisors = ", ".join(str(n) for n in range(1, stride_px + 1) if not stride_px % n)
        raise ConfigError(f"`patch` (={patch}) must be one of {divisors}, divisors of the latent's stride in pixels")
    if len(widths) != len(network.widths):
        raise ConfigError(
            f"`context_widths` (={widths}) must have an entry for each of `widths` (={len(network.widths)})"
        )
    at = {patch << level: width for level, width in enumerate(widths) if width}
    if any(stride > stride_px for stride in at):
        raise ConfigError(f"`context_widths` (={widths}) must be 0 for levels below 1/{stride_px} of the size")
    if any(stride not in at for stride in _strides(at, stride_px)):
        raise ConfigError(
            f"`context_widths` (={widths}) must have no 0 between its first and 1/{stride_px} of the size"
        )
    conds = [widths[0] + (3 * patch**2 if decoder.see_synthesis else 0), *widths[1:]]
    follows = {
        "cond_channels": conds,
        "vector_channels": 0 if one_rate else _QUALITY_FEATURES,
        "noise_scale": process.noise_scale,
    }
    return with_following(network, follows, "decoder and process")


def _strides(at: dict[int, int], stride_px: int) -> list[int]:
    """Strides of the levels that the context decoder passes, from half of the latent's ``stride_px`` to the first."""
    first = min(at, default=stride_px)
    return [stride_px >> n for n in range(1, stride_px.bit_length()) if stride_px >> n >= first]


class ContextDecoder(nn.Module):
    """Features of a latent at the sizes of the U-Net's levels.

    From half of the latent's stride to 1 px a site each level is a block and an upsampling of the one before, as in the
    paper, where they mirror the analysis; at the latent's own stride it is the latent through a matrix.
    """

    def __init__(self, channels: int, widths: list[int], patch: int, stride_px: int):
        """``channels``, ``stride_px``: of the latent. ``widths``: of each level, the first ``patch`` px a site."""
        super().__init__()
        self.levels = {patch << level: level for level, width in enumerate(widths) if width}
        strides = _strides(self.levels, stride_px)
        sizes = [channels, *(widths[self.levels[stride]] for stride in strides)]
        self.stride_px, self.strides = stride_px, strides
        self.same = conv(channels, widths[self.levels[stride_px]], 1) if stride_px in self.levels else None
        self.up = nn.ModuleList(
            nn.Sequential(Block(before, after), nn.ConvTranspose2d(after, after, 4, 2, 1))
            for before, after in itertools.pairwise(sizes)
        )
        settle(self)

    def forward(self, y: Tensor) -> dict[int, Tensor]:
        """Level of the U-Net to features (B, width, its height, its width), of ``y: (B, M, h, w)``."""
        y = channels_last(y)
        features = {} if self.same is None else {self.levels[self.stride_px]: self.same(y)}
        for stride, layer in zip(self.strides, self.up, strict=True):
            y = layer(y)
            features[self.levels[stride]] = y
        return features


class DiffusionDecoder(FolderModel):
    """A `TransformModel` and the diffusion model that decodes for it."""

    kind = "cdc"
    files_beside = (EXACT,)

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
        """The first four are those of `TransformModel`. `cond_channels`, `vector_channels` and `noise_scale` of
        ``network`` follow from the others (`fit_network`). Raises ConfigError."""
        super().__init__()
        self.coder_transform, self.coder_hyperprior = coder_transform, coder_hyperprior
        self.lmbda_min, self.lmbda_max = lmbda_min, lmbda_max
        self.decoder, self.process = decoder, process
        self.network = fit_network(network, decoder, process, coder_transform.stride_px, lmbda_min == lmbda_max)
        # the name stands in the keys of saved weights
        self.coder = TransformModel(coder_transform, coder_hyperprior, lmbda_min, lmbda_max)
        self.context = ContextDecoder(
            coder_transform.latent_channels, list(decoder.context_widths), network.patch, self.stride_px
        )
        self.unet = UNet(self.network)
        self.diffusion = process.build()
        device = self.unet.entrance.weight.device
        scales = _chroma_scales(decoder.residual_chroma or 1.0)
        self.to_residual: Tensor
        self.from_residual: Tensor
        self.register_buffer("to_residual", (RGB_TO_YCRCB / scales[:, None]).to(device), persistent=False)
        self.register_buffer("from_residual", (YCRCB_TO_RGB * scales).to(device), persistent=False)

    def names_beside(self, referred: Sequence[str] = ()) -> Set[str]:
        """Those of the coder, if the folder holds it."""
        return frozenset() if "coder" in referred else frozenset(f"coder.{n}" for n in self.coder.names_beside())

    def same_beside(self, other: "DiffusionDecoder") -> bool:
        """Whether the coder of ``other`` has the same entropy model in integers."""
        return self.coder.same_beside(other.coder)

    def _save_beside(self, folder: Path, referred: Sequence[str]) -> dict[str, Any]:
        if "coder" not in referred:
            return self.coder.save_exact(folder)
        (folder / EXACT).unlink(missing_ok=True)  # of a save of the whole
        return {"fingerprint": self.coder.fingerprint.hex()}

    def _load_beside(self, folder: Path, referred: Sequence[str]) -> None:
        if "coder" not in referred:
            self.coder.load_exact(folder)
        elif self.coder.fingerprint.hex() != read_config(folder).get("fingerprint"):
            raise ModelError(f"{folder}: fingerprint is not that of its coder; get the folder again")

    @property
    def stride_px(self) -> int:
        """Pixels between two sites of the latent, down and sideways."""
        return self.coder_transform.stride_px

    def residual_std(self, quality: Tensor) -> Tensor:
        """`TransformModel.residual_std` of the coder: the unit that the decoder was trained in."""
        return self.coder.residual_std(quality)

    def conditions(self, y_hat: Tensor, quality: Tensor) -> Conditions:
        """What all steps share, for ``y_hat: (B, M, h, w)``, the decoded latent in quantizer steps, and
        ``quality: (B,)`` in [0, 1]."""
        with torch.autocast(y_hat.device.type, enabled=False):  # residuals are measured from it: as a codec has it
            y = self.coder.dequantise(y_hat.float(), quality)
            synthesis = self.coder.synthesis(y, quality)
        if self.coder_transform.kind == "dct":
            y = y.sign() * y.abs().log1p()  # coefficients of a block transform span decades
        features = self.context(y)
        spatial: list[Tensor | None] = [features.get(i) for i in range(len(self.network.widths))]
        if self.decoder.see_synthesis:
            seen = F.pixel_unshuffle(synthesis, self.network.patch)
            spatial[0] = seen if spatial[0] is None else torch.cat([spatial[0], seen], dim=1)
        return Conditions(synthesis, spatial, self._vector(quality), self.residual_std(quality))

    def _vector(self, quality: Tensor) -> Tensor | None:
        if not self.network.vector_channels:
            return None
        waves = torch.arange(1, _QUALITY_FEATURES + 1, dtype=torch.float32, device=quality.device) * math.pi
        return (quality[:, None] * waves).cos()

    def forward(self, x: Tensor, condition: Tensor, x0_prev: Tensor | None = None, *, conditions: Conditions) -> Tensor:
        """The network as `difflate.diffusion.Model`: the target (B, 3, H, W) for ``x: (B, 3, H, W)`` and the noise
        ``condition: (B,)``."""
        return self.unet(x, condition, x0_prev, spatial=conditions.spatial, vector=conditions.vector)

    def to_x0(self, images: Tensor, conditions: Conditions) -> Tensor:
        """What the diffusion runs on, same shape, of ``images: (B, 3, H, W)`` in [-1, 1]; inverse of `to_images`."""
        if not self.decoder.residual:
            return images
        residual = (images - conditions.synthesis) / expand(conditions.std, images)
        return residual if self.decoder.residual_chroma is None else mix(self.to_residual, residual)

    def to_images(self, x0: Tensor, conditions: Conditions) -> Tensor:
        """The images, same shape, not clamped, that ``x0: (B, 3, H, W)`` stands for."""
        if not self.decoder.residual:
            return x0
        residual = x0 if self.decoder.residual_chroma is None else mix(self.from_residual, x0)
        return conditions.synthesis + residual * expand(conditions.std, x0)

    @torch.no_grad()
    def refine(
        self, conditions: Conditions, steps: int, noise: Tensor, watch: Callable[[int, Tensor], None] | None = None
    ) -> Tensor:
        """(B, 3, H, W) in about [-1, 1], not clamped: the decoded images, by ``steps`` steps of DDIM.

        No steps: the synthesis. ``noise``: (B, 3, H, W), what the first step starts from, γ·N(0, 1) or zeros (γ = 0).
        An image depends on its own noise and conditions alone. Unless `max_refinement` is 0, in each block of 16x16 px
        it is at most `max_refinement`·std away from the synthesis in rms; so is then, at most, its rms error above
        that of the synthesis, whatever the network does. ``watch`` is told each step's number, from 0, and the images
        (B, 3, H, W) that the network expects at it.
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
            if watch is not None:
                watch(step.index, self._bound(self.to_images(step.x0, conditions), conditions))
        return self._bound(self.to_images(x0, conditions), conditions)

    def answer(self, noise: Tensor, conditions: Conditions) -> Tensor:
        """x0, same shape as ``noise: (B, 3, H, W)``, that one step from there gives, as `refine` with one step bounds
        it; with gradients."""
        extra = (torch.zeros_like(noise),) if self.network.self_condition else ()

        def model(x: Tensor, condition: Tensor, *extra: Tensor) -> Tensor:
            return self(x, condition, *extra, conditions=conditions)

        x0 = denoise(self.diffusion, model, noise, noise.new_ones(len(noise)), *extra)[0]
        if not self.decoder.max_refinement:
            return x0
        return self.to_x0(self._bound(self.to_images(x0, conditions), conditions), conditions)

    def _bound(self, images: Tensor, conditions: Conditions) -> Tensor:
        if not self.decoder.max_refinement:
            return images
        # what is no number is no refinement
        refinement = (images - conditions.synthesis).nan_to_num(0.0, 0.0, 0.0)
        blocks = F.avg_pool2d(refinement.square().mean(1, keepdim=True), BLOCK_PX)
        limit = expand(self.decoder.max_refinement * conditions.std, blocks)
        scale = (limit / blocks.sqrt().clamp_min(1e-12)).clamp(max=1.0)
        return conditions.synthesis + refinement * scale.repeat_interleave(BLOCK_PX, 2).repeat_interleave(BLOCK_PX, 3)


def _chroma_scales(chroma: float) -> Tensor:
    """(3,) what Y, Cr and Cb are divided by."""
    return torch.tensor([1.0, chroma, chroma], dtype=torch.float32, device="cpu")
