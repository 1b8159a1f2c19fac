"""The loss of a diffusion autoencoder (Rampas 2024, 3.1 and 3.2)."""

import math
from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from difflate.data.crops import Batch
from difflate.diffusion import normal
from difflate.errors import ConfigError
from difflate.models.bottlenecks import Passed
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder, LatentDecoderConfig
from difflate.nn.colour import signed_to_uint8
from difflate.nn.layers import by_frame, frames_of
from difflate.quantize.usage import code_usage
from difflate.seeds import Stream, torch_generator
from difflate.train import perceptual_loss
from difflate.train.adversary import AdversarialTask
from difflate.train.diffusion_loss import Denoised, denoise_once
from difflate.train.draws import Draws
from difflate.train.perceptual_loss import distances, visibility
from difflate.train.settings import LoopSettings
from difflate.train.stages import AutoencodingStage
from difflate.train.structure import psnr_db

_SHOWN_STEPS = 4


def captions_of(batch: Batch) -> tuple[str, ...]:
    """One for each image of ``batch``, empty where it has none."""
    return batch.captions or ("",) * len(batch.numbers)


def check_recordable(decoder: LatentDecoderConfig, loop: LoopSettings, key: str) -> None:
    """Raises ConfigError if steps are to be recorded in which texts are read; ``key``: of ``loop``."""
    if decoder.text and loop.cuda_graph:
        raise ConfigError(f"{key}.cuda_graph (=true) cannot record a text model, decoder.text; set it to false")


class DiffaeTask(AdversarialTask):
    """ρ·LPIPS + (1 - ρ)·diffusion loss of a `DiffusionAutoencoder`; joint: + what head and bottleneck ask for.

    LPIPS is of the image that the network takes for x0 in one step, from any time (in ε-VAE's ablation the largest
    single gain: Zhao et al. 2024). An adversary judges what one step makes beside the head's image: whether it is an
    original of this latent.
    """

    model: DiffusionAutoencoder

    def __init__(
        self,
        model: DiffusionAutoencoder,
        stage: AutoencodingStage,
        shown: Tensor | None = None,
        captions: Sequence[str] = (),
    ):
        """``shown``: (B, 3, H, W) uint8, what `pictures` are of, and their ``captions``. Raises ConfigError: no LPIPS
        weights."""
        super().__init__(model, stage.training, stage.adversary, cond_channels=3)
        self.stage, self.shown, self.captions = stage, shown, captions
        model.requires_grad_(True)  # a stage before may have held what it did not train
        model.autoencoder.requires_grad_(stage.joint)
        if not stage.head:
            model.autoencoder.decode.requires_grad_(False)
        self.dropped = 0.0 if stage.one_step else model.decoder.hidden_share
        self.text_dropped = 0.0 if stage.one_step else model.decoder.text_dropped
        model.hidden.requires_grad_(self.dropped > 0)
        if stage.looks:
            self.freeze(lpips=perceptual_loss.load_lpips(stage.lpips))

    def train(self, mode: bool = True) -> Self:
        """A frozen autoencoder stays in evaluation mode."""
        super().train(mode)
        if not self.stage.joint:
            self.model.autoencoder.eval()
        return self

    def loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """{"loss": ()} and scalars of a batch; on held-back images also of what a few steps make, and how many bits
        the indices take by their frequencies alone."""
        stage, model = self.stage, self.model
        images = batch.images(self.device)
        seen = self._seen(images, draws)
        with torch.set_grad_enabled(stage.joint and torch.is_grad_enabled()):
            passed = model.autoencoder(seen, draws.generators())
        vector = self._told(batch, draws)
        x0, losses = self._decoded(passed.z, vector, images, draws)
        judged = None
        if stage.one_step:
            if self.adversary is not None and self.training:
                x0, judged = self.adversary.split(x0, draws)
            losses = self._errors(by_frame(visibility, images), self._restored(x0), images)
        losses = (1 - stage.rho) * losses + self._asked_along_time(x0, images)
        values: dict[str, Tensor] = {}
        if stage.rho:
            values["lpips"] = self._perceptual(self._restored(x0).clamp(-1, 1), images, draws)
            losses = losses + stage.rho * values["lpips"]
        head: Tensor | None = None
        if self.adversary is not None or stage.joint or not self.training:
            head = model.autoencoder.restore(passed.z).float()
            values["head_psnr_db"] = psnr_db(head, seen)
        if stage.joint:
            losses = losses + passed.loss
            if stage.head:
                assert head is not None
                losses = losses + stage.head * self._head_loss(head, seen, draws)
        loss = losses.mean()
        if self.adversary is not None:
            assert head is not None
            beside = F.interpolate(head, size=images.shape[2:]) if head.shape != images.shape else head
            made = self._restored(x0 if judged is None else judged)
            shown = [frames_of(x) for x in (made.clamp(-1, 1), images, beside.clamp(-1, 1))]
            if judged is not None:
                loss = loss + self.adversary.deceive(*shown)
            else:
                values["critic_loss"] = self.adversary.told(*shown)
        if not self.training:
            values |= self._measures(images, seen, passed, model.told(captions_of(batch), images.device), draws)
        return {"loss": loss, **{key: value.mean() for key, value in (values | passed.scalars).items()}}

    def _seen(self, images: Tensor, draws: Draws) -> Tensor:
        """What the encoder is shown of ``images``: they themselves, or smaller ones, whose sides its stride divides."""
        least, stride = self.stage.least_input, self.model.stride_px
        if least == 1 or not self.training:
            return images
        share = least + (1 - least) * draws.input_size()
        size = [max(1, round(side * share / stride)) * stride for side in images.shape[-2:]]

        def scaled(x: Tensor) -> Tensor:
            return F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)

        return by_frame(scaled, images)

    def _told(self, batch: Batch, draws: Draws) -> Tensor | None:
        """What the U-Net is told of the images' texts, as far as they are not hidden."""
        texts = captions_of(batch)
        if any(texts) and self.text_dropped:
            hidden = draws.drop_text(self.text_dropped).tolist()
            texts = ["" if hides else text for hides, text in zip(hidden, texts, strict=True)]
        return self.model.told(texts, self.device)

    def _decoded(self, z: Tensor, vector: Tensor | None, images: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """x0 as the network finds it, and (B,) losses: from noise alone, or at a time that is drawn."""
        model, stage = self.model, self.stage
        x = model.stage.encode(images)
        if stage.one_step:
            return model.answer(normal(x.shape, draws.generators(), x.device), z, vector), x.new_zeros(len(x))
        if self.dropped:
            z = model.hide(z, draws.drop_mask(self.dropped).to(z.device))
        absolute = stage.error == "absolute"
        found: Denoised = denoise_once(model.diffusion, model, x, draws, absolute=absolute, z=z, vector=vector)
        return found.x0, found.losses

    def _restored(self, x0: Tensor) -> Tensor:
        """(B, 3, H, W) float32, not clamped."""
        return self.model.stage.decode(x0).float()

    def _asked_along_time(self, x0: Tensor, images: Tensor) -> Tensor | float:
        """(B,) what is asked of clips beside; of images nothing is."""
        return 0.0

    def _errors(self, weight: Tensor | float, restored: Tensor, images: Tensor) -> Tensor:
        """(B,)"""
        errors = restored - images
        errors = errors.abs() if self.stage.error == "absolute" else errors.square()
        return (weight * errors).flatten(1).mean(1)

    def _perceptual(self, restored: Tensor, images: Tensor, draws: Draws) -> Tensor:
        """(B,) LPIPS of images in [-1, 1], of clips the mean of their frames'."""
        return distances(self.lpips, restored, images, draws.shift() if self.training else None)

    def _head_loss(self, head: Tensor, seen: Tensor, draws: Draws) -> Tensor:
        rho = self.stage.head_rho
        losses = self._errors(1 - rho, head, seen)
        return losses + rho * self._perceptual(head.clamp(-1, 1), seen, draws) if rho else losses

    def _measures(
        self, images: Tensor, seen: Tensor, passed: Passed, vector: Tensor | None, draws: Draws
    ) -> dict[str, Tensor]:
        """Of held-back images: what decoding makes of them, and the frequencies of the indices."""
        model = self.model
        steps = 1 if self.stage.one_step else min(max(model.decoder.steps, 1), _SHOWN_STEPS)
        noise = normal(model.noise_shape(passed.z), draws.generators(), images.device)
        restored = model.restore(passed.z, steps, noise, vector=vector).clamp(-1, 1).float()
        values = {"psnr_db": psnr_db(restored, images)}
        if self.stage.looks:
            values["decoded_lpips"] = self._perceptual(restored, images, draws)
        sizes = model.autoencoder.between.sizes
        if sizes is not None:
            coded = model.autoencoder.coded(seen)
            usage = code_usage(coded, sizes)
            values["entropy_bits"] = torch.tensor(math.fsum(usage.plane_bits), dtype=torch.float32)
            values["codes_used"] = torch.tensor(usage.share, dtype=torch.float32)
        return values

    def pictures(self) -> Tensor | None:
        """(3·B, 3, H, W) uint8 of what is shown: originals, the head's images, those of a few steps; of clips all
        frames."""
        if self.shown is None:
            return None
        model = self.model
        images = self.shown.to(self.device).float() / 127.5 - 1
        z = model.autoencoder(images).z
        generators = [torch_generator(0, Stream.DECODER_PICTURE, number) for number in range(len(images))]
        noise = normal(model.noise_shape(z), generators, images.device)
        steps = 1 if self.stage.one_step else min(max(model.decoder.steps, 1), _SHOWN_STEPS)
        vector = model.told(self.captions or [""] * len(images), images.device)
        restored = model.restore(z, steps, noise, vector=vector)
        return signed_to_uint8(frames_of(torch.cat([images, model.restore(z, 0), restored]))).cpu()
