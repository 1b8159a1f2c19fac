"""The diffusion autoencoder (Rampas 2024, 3): an encoder to a coarse latent, and a diffusion model that decodes it.

    images ─ encoder ─ bottleneck ─▶ z ─┬─ head ─▶ images, in one pass
                                        └─ resized ─ U-Net: noise ─ steps ─▶ images

z is resized to the U-Net's highest level and concatenated there once. The head is a plain decoder that is trained
beside it: what is decoded without steps, and what keeps z close to the image. A text may tell the U-Net more, as a
vector that is added to its noise embedding (the thesis' larger models).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from difflate.diffusion import ProcessConfig, ddim, denoise, guided
from difflate.diffusion.process import expand
from difflate.errors import ConfigError, ModelError
from difflate.models.autoencoder import CONTEXT, Autoencoder
from difflate.models.bottlenecks import BottleneckConfig
from difflate.models.first_stage import FirstStage, check_same, first_stage
from difflate.models.text import TextEncoder, text_encoder
from difflate.nn.encoder_kinds import EncoderConfig
from difflate.nn.encoders import ConvConfig, resize_to
from difflate.nn.folding import fold
from difflate.nn.layers import by_frame
from difflate.nn.temporal import Past
from difflate.nn.unet import UNet, UNetConfig, with_following
from difflate.store.config import read_config
from difflate.store.folders import FolderModel

_MAX_STEPS, MAX_GUIDANCE = 1000, 20.0
_FIRST_STAGE = "first_stage_sha256"
"""Entry of config.json: the digest of the first stage that the diffusion was trained in."""
_TEXT = "text_sha256"
"""Entry of config.json: the digest of the text model that the U-Net was trained with."""
_DROPPED, _DROPPED_WITH_TEXT = 0.05, 0.7
"""Rampas 2024: a model that is told a text keeps the latent of 30 % of the images."""


@dataclass(frozen=True)
class LatentDecoderConfig:
    """How a `DiffusionAutoencoder` decodes."""

    steps: int = 4
    """Steps of decoding, unless asked for others; 0: the head alone."""
    guidance: float = 1.0
    """w of classifier-free guidance (Ho & Salimans 2022), unless asked for another; 1: none, and half of the work."""
    dropped: float | None = None
    """Share of the images of a training whose latent is hidden from the U-Net; without it there is no guidance. null:
    0.05, with a text model 0.7."""
    first_stage: str | None = None
    """Folder of the model whose latent the diffusion runs in, of the recipe autoencoder or of diffusers (AutoencoderKL,
    VQModel), of clips also of the recipe video-autoencoder, or a repository in the cache; null: in the pixels."""
    text: str | None = None
    """Folder of the CLIP text model (transformers) that tells the U-Net the text of an image, or a repository in the
    cache; null: texts mean nothing. It is named, not saved, and not trained."""
    text_dropped: float = 0.1
    """With a text model: share of the images of a training whose text is hidden from the U-Net."""

    def __post_init__(self) -> None:
        if not 0 <= self.steps <= _MAX_STEPS:
            raise ConfigError(f"`steps` (={self.steps}) must be from 0 to {_MAX_STEPS}")
        for key in ("dropped", "text_dropped"):
            value = getattr(self, key)
            if value is not None and not 0 <= value < 1:
                raise ConfigError(f"`{key}` (={value}) must be from 0 to below 1")
        if not 0 <= self.guidance <= MAX_GUIDANCE:
            raise ConfigError(f"`guidance` (={self.guidance}) must be from 0 to {MAX_GUIDANCE:g}")
        self.check_guidance(self.guidance)

    @property
    def hidden_share(self) -> float:
        """`dropped`, or what it is by default."""
        return self.dropped if self.dropped is not None else _DROPPED_WITH_TEXT if self.text else _DROPPED

    def check_guidance(self, guidance: float) -> None:
        """Raises ConfigError for guidance of a model that was never trained without its condition."""
        never = None
        if not self.hidden_share:
            never = "latent (decoder.dropped=0)"
        elif self.text and not self.text_dropped:
            never = "text (decoder.text_dropped=0)"
        if guidance != 1 and never:
            raise ConfigError(
                f"`guidance` (={guidance:g}) must be 1: the model was trained without ever hiding its {never}"
            )


class DiffusionAutoencoder(FolderModel):
    """An `Autoencoder` and the diffusion model that decodes its latent."""

    kind = "diffae"

    def __init__(
        self,
        encoder: EncoderConfig | ConvConfig,
        bottleneck: BottleneckConfig,
        head: ConvConfig,
        decoder: LatentDecoderConfig,
        network: UNetConfig,
        process: ProcessConfig,
    ):
        """The first three are those of `Autoencoder`, the head its decoder. `cond_channels`, `vector_channels` and
        `noise_scale` of ``network`` follow from the others. Raises ConfigError."""
        super().__init__()
        self.encoder, self.bottleneck, self.head = EncoderConfig.of(encoder), bottleneck, head
        self.decoder, self.process = decoder, process
        # the name stands in the keys of saved weights
        self.autoencoder = self._autoencoder()
        clips = self.autoencoder.looks_back
        self._stage = (first_stage(decoder.first_stage, clips),)  # no submodule: it is not saved with the model
        self._text = (text_encoder(decoder.text) if decoder.text else None,)
        self.network = self._fit(network)
        self.unet = UNet(self.network)
        self.diffusion = process.build()
        self.hidden = nn.Parameter(torch.zeros(self.autoencoder.told_channels, dtype=torch.float32))
        """(told_channels,) what stands for a latent that is hidden."""

    def _autoencoder(self) -> Autoencoder:
        return Autoencoder(self.encoder, self.bottleneck, self.head)

    def _fit(self, network: UNetConfig) -> UNetConfig:
        """``network`` with the settings that follow from the others. Raises ConfigError."""
        stage, stride_px = self.stage, self.stride_px
        if (network.in_channels, network.out_channels) != (stage.channels, stage.channels):
            raise ConfigError(
                f"`in_channels` and `out_channels` (={network.in_channels}, {network.out_channels}) must be "
                f"{stage.channels}, those of what the diffusion runs on"
            )
        if network.self_condition:
            raise ConfigError("`self_condition` (=True) must be false: the latent is all that the network is told")
        if stride_px % (network.patch * stage.stride_px):
            raise ConfigError(
                f"`patch` (={network.patch}) times the first stage's stride (={stage.stride_px}) must divide the "
                f"latent's stride (={stride_px} px)"
            )
        follows = {
            "cond_channels": [stage.frames * self.autoencoder.told_channels, *[0] * (len(network.widths) - 1)],
            "vector_channels": self.text.channels if self.text else 0,
            "noise_scale": self.process.noise_scale,
        }
        return with_following(network, follows, "bottleneck, text model and process")

    @property
    def stage(self) -> FirstStage:
        """What the diffusion runs on."""
        return self._stage[0]

    @property
    def text(self) -> TextEncoder | None:
        """What tells the U-Net texts."""
        return self._text[0]

    @property
    def stride_px(self) -> int:
        """Pixels between two sites of the latent, down and sideways."""
        return self.autoencoder.stride_px

    def _save_beside(self, folder: Path, referred: Sequence[str]) -> dict[str, Any]:
        entries: dict[str, Any] = {_FIRST_STAGE: self.stage.digest} if self.decoder.first_stage else {}
        if self.text is not None:
            entries[_TEXT] = self.text.digest
            if Path(str(self.decoder.text)).is_dir():  # it is found from this folder, wherever both are moved to
                there = Path(os.path.relpath(self.text.folder, folder)).as_posix()
                entries["decoder"] = asdict(replace(self.decoder, text=there))
        if "autoencoder" not in referred:
            return entries | self.autoencoder.save_exact(folder)
        (folder / CONTEXT).unlink(missing_ok=True)  # of a save of the whole
        return entries | self.autoencoder.exact_entries()

    @classmethod
    def _arguments_in(cls, folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
        arguments = super()._arguments_in(folder, config)
        decoder = arguments.get("decoder")
        if isinstance(decoder, LatentDecoderConfig) and decoder.text and (folder / decoder.text).is_dir():
            arguments["decoder"] = replace(decoder, text=str(folder / decoder.text))
        return arguments

    def _load_beside(self, folder: Path, referred: Sequence[str]) -> None:
        if self.text is not None:
            self.text.check_same(read_config(folder).get(_TEXT, ""), folder)
        if self.decoder.first_stage:
            check_same(self.stage, read_config(folder).get(_FIRST_STAGE, ""), folder)
        if "autoencoder" not in referred:
            self.autoencoder.load_exact(folder)
        elif self.autoencoder.fingerprint.hex() != read_config(folder).get("fingerprint"):
            raise ModelError(f"{folder}: fingerprint is not that of its autoencoder; get the folder again")

    def forward(
        self, x: Tensor, condition: Tensor, x0_prev: Tensor | None = None, *, z: Tensor, vector: Tensor | None = None,
        past: Past | None = None,
    ) -> Tensor:  # fmt: skip
        """The network as `difflate.diffusion.Model`: the target for ``x: (B, c, h, w)``, same shape, and the noise
        ``condition: (B,)``; ``z: (B, channels, h', w')`` is resized to the highest level, ``vector`` of `told`."""
        return self.unet(x, condition, x0_prev, spatial=self.spatial(z, *x.shape[-2:]), vector=vector, past=past)

    def told(self, texts: Sequence[str], device: torch.device) -> Tensor | None:
        """(B, vector_channels) what the U-Net is told of ``texts``, empty ones where there are none; None: without a
        text model. Raises ConfigError for texts that mean nothing to this model."""
        if self.text is not None:
            return self.text.embed(texts, device)
        self.check_text(next(filter(None, texts), ""))
        return None

    def check_text(self, text: str) -> None:
        """Raises ConfigError for a text, unless it is empty, if this model has no text model."""
        if text and self.text is None:
            short = text if len(text) <= 40 else f"{text[:40]}…"
            raise ConfigError(
                f"`text` (={short!r}) has no meaning for a model that was trained without; give none, or ''"
            )

    def spatial(self, z: Tensor, height: int, width: int) -> list[Tensor]:
        """What the U-Net is told of ``z: (B, channels, h', w')`` for x of ``height`` x ``width``; of a clip for each
        frame of x what it is told of all frames that this one is of."""
        patch = self.network.patch
        z = z if z.ndim == 4 else fold(z, self.stage.frames)
        return [by_frame(lambda frame: resize_to(frame, -(-height // patch), -(-width // patch)), z)]

    def hide(self, z: Tensor, where: Tensor) -> Tensor:
        """``z: (B, channels, …)``, hidden ``where: (B,)`` bool says so."""
        hidden = expand(self.hidden[None], z)
        return torch.where(expand(where, z), hidden.to(z.dtype), z)

    def noise_shape(self, z: Tensor) -> tuple[int, ...]:
        """(B, c, h, w) of what decoding ``z: (B, channels, h', w')`` starts from; of clips with T/frames before h,
        those of the first stage."""
        stage, (rows, columns) = self.stage, z.shape[-2:]
        sites, frames = self.stride_px // stage.stride_px, [count // stage.frames for count in z.shape[2:-2]]
        return len(z), stage.channels, *frames, rows * sites, columns * sites

    @torch.no_grad()
    def restore(
        self,
        z: Tensor,
        steps: int,
        noise: Tensor | None = None,
        guidance: float = 1.0,
        vector: Tensor | None = None,
        past: Past | None = None,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """(B, 3, s·h, s·w) in about [-1, 1], not clamped, of ``z: (B, channels, h, w)`` by ``steps`` steps of DDIM.

        No steps: the head. ``noise``: what the first step starts from, N(0, 1) of `noise_shape`. ``vector``: (B,
        vector_channels) of `told`; None: no text. ``guidance`` leads away from what is told neither the latent nor a
        text. Clips have T before h everywhere; ``past``: of one that comes in chunks. ``watch`` is told each step's
        number, from 0, and the images, of the result's shape, that the network expects at it. Raises ConfigError, also
        for guidance that the model was not trained for.
        """
        if steps < 0:
            raise ConfigError(f"`steps` (={steps}) must be at least 0")
        if not steps:
            return self.autoencoder.restore(z)
        self.decoder.check_guidance(guidance)
        if noise is None or tuple(noise.shape) != self.noise_shape(z):
            given = None if noise is None else tuple(noise.shape)
            raise ConfigError(f"`noise` (={given}) must have the shape {self.noise_shape(z)}")
        hidden = self.hide(z, torch.ones(len(z), dtype=torch.bool, device=z.device))
        silent = None
        if vector is None or guidance != 1:
            silent = self.told([""] * len(z), z.device)
        vector = silent if vector is None else vector

        def conditional(x: Tensor, condition: Tensor) -> Tensor:
            return self(x, condition, z=z, vector=vector, past=past)

        def unconditional(x: Tensor, condition: Tensor) -> Tensor:
            return self(x, condition, z=hidden, vector=silent, past=past)

        model = guided(conditional, unconditional, guidance)
        x = self.diffusion.start_std() * noise
        for step in ddim(self.diffusion, model, x, steps, clip=self.stage.bound):
            x = step.x
            if watch is not None:
                watch(step.index, self.stage.decode(step.x0))
        return self.stage.decode(x, past)

    def answer(self, noise: Tensor, z: Tensor, vector: Tensor | None = None) -> Tensor:
        """x0, same shape as ``noise: (B, c, h, w)``, that one step from there gives; with gradients, not clipped."""

        def model(x: Tensor, condition: Tensor) -> Tensor:
            return self(x, condition, z=z, vector=vector)

        x = self.diffusion.start_std() * noise
        return denoise(self.diffusion, model, x, x.new_ones(len(x)))[0]
