"""The losses of an autoencoder: AE, VAE, VQ-VAE, and with LPIPS and an adversary VQGAN (Esser et al. 2021)."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from difflate.data.crops import Batch
from difflate.errors import ConfigError
from difflate.models.autoencoder import Autoencoder
from difflate.nn.colour import signed_to_uint8
from difflate.nn.layers import frames_of
from difflate.train import perceptual_loss
from difflate.train.adversary import AdversarialTask, AdversarySettings
from difflate.train.draws import Draws
from difflate.train.perceptual_loss import Nets, check_nets, distances
from difflate.train.settings import LoopSettings, check_crop
from difflate.train.structure import psnr_db


@dataclass(frozen=True)
class ReconstructionStage:
    """A stage that trains encoder, bottleneck and decoder together."""

    name: str
    """What its folder and its lines in the log are called."""
    kind: Literal["reconstruction"] = "reconstruction"
    crop_px: int = 128
    """Side of the crops, a multiple of the latent's stride."""
    absolute: float = 1.0
    """What the mean absolute error of pixels in [-1, 1] counts."""
    squared: float = 0.0
    """What their mean squared error counts."""
    perceptual: float = 0.0
    """What LPIPS counts."""
    lpips: Nets = "vgg"
    """Network that LPIPS looks with; alex takes a tenth of the time, but is what evaluations report. [alex, vgg]: the
    mean of both, which lets through what both do not mind."""
    adversary: AdversarySettings | None = None
    """A discriminator that restored images learn to mislead; null: none."""
    training: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        check_crop(self.crop_px, 1)
        check_nets(self.lpips)
        weights = {key: getattr(self, key) for key in ("absolute", "squared", "perceptual")}
        for key, value in weights.items():
            if not value >= 0:
                raise ConfigError(f"{key} (={value}) must be at least 0")
        if not any(weights.values()):
            raise ConfigError("absolute, squared and perceptual are all 0; there is nothing to learn from")


@dataclass(frozen=True)
class ClipReconstructionStage(ReconstructionStage):
    """The same of clips; the adversary judges frames."""

    frames: int = 8
    """Of a clip, a multiple of folding.ratio."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames < 1:
            raise ConfigError(f"frames (={self.frames}) must be at least 1")


class AutoencoderTask(AdversarialTask):
    """Errors of pixels + LPIPS + what the bottleneck asks for [+ an adversary] of an `Autoencoder`, of images or clips.

    Clips have T before H everywhere; LPIPS and the adversary look at their frames.
    """

    model: Autoencoder

    def __init__(self, model: Autoencoder, stage: ReconstructionStage, shown: Tensor | None = None):
        """``shown``: (B, 3, H, W) uint8, what `pictures` are of. Raises ConfigError: no LPIPS weights."""
        super().__init__(model, stage.training, stage.adversary)
        self.stage, self.shown = stage, shown
        if stage.perceptual:
            self.freeze(lpips=perceptual_loss.load_lpips(stage.lpips))

    def loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """{"loss": (), "psnr_db": ()} and what the bottleneck shows; on held-back images, whose latents are those of
        files, also the adversary's own loss."""
        stage, model = self.stage, self.model
        images = batch.images(self.device)
        passed = model(images, draws.generators())
        restored = model.restore(passed.z)[..., : images.shape[-2], : images.shape[-1]].float()
        judged = None
        if self.adversary is not None and self.training:
            restored, judged = self.adversary.split(restored, draws)
        errors = (restored - images).flatten(1)
        losses = passed.loss.float()
        if stage.absolute:
            losses = losses + stage.absolute * errors.abs().mean(1)
        if stage.squared:
            losses = losses + stage.squared * errors.square().mean(1)
        values = {"psnr_db": psnr_db(restored, images), **passed.scalars}
        if stage.perceptual:
            shift = draws.shift() if self.training else None
            perceptual = distances(self.lpips, restored.clamp(-1, 1), images, shift)
            losses = losses + stage.perceptual * perceptual
            values["lpips"] = perceptual.mean()
        loss = losses.mean()
        if self.adversary is not None:
            made, originals = frames_of((restored if judged is None else judged).clamp(-1, 1)), frames_of(images)
            if judged is not None:
                loss = loss + self.adversary.deceive(made, originals)
            else:
                values["critic_loss"] = self.adversary.told(made, originals)
        return {"loss": loss, **values}

    @torch.no_grad()
    def pictures(self) -> Tensor | None:
        """(2·B, 3, H, W) uint8: what is shown, and the same restored; of clips all frames."""
        if self.shown is None:
            return None
        images = self.shown.to(self.device).float() / 127.5 - 1
        restored = self.model.restore(self.model(images).z)[..., : images.shape[-2], : images.shape[-1]]
        return frames_of(torch.cat([self.shown, signed_to_uint8(restored).cpu()]))
