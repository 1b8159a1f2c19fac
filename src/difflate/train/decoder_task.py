"""The loss of a diffusion decoder (Yang & Mandt 2023)."""

from typing import Self

import torch
from torch import Tensor

from difflate.data.crops import Batch
from difflate.diffusion import normal
from difflate.models.diffusion_decoder import Conditions, DiffusionDecoder
from difflate.nn.colour import signed_to_uint8
from difflate.nn.entropy_network import Coded
from difflate.seeds import Stream, torch_generator
from difflate.train import perceptual_loss
from difflate.train.adversary import AdversarialTask
from difflate.train.diffusion_loss import Denoised, denoise_once
from difflate.train.draws import Draws
from difflate.train.perceptual_loss import shifted, visibility
from difflate.train.stages import DiffusionStage
from difflate.train.structure import psnr_db

_PICTURE_STEPS = 4


class DecoderTask(AdversarialTask):
    """ρ·LPIPS + (1 - ρ)·(diffusion loss [+ λ-normalised rate]) of a `DiffusionDecoder` [+ an adversary].

    The adversary judges the image that one step makes beside the synthesis: whether it is an original of this latent.
    """

    model: DiffusionDecoder

    def __init__(self, model: DiffusionDecoder, stage: DiffusionStage, shown: Tensor | None = None):
        """``shown``: (B, 3, H, W) uint8, what `pictures` are of. Raises ConfigError: no LPIPS weights."""
        super().__init__(model, stage.training, stage.adversary, cond_channels=3)
        self.stage, self.shown = stage, shown
        coder = model.coder
        coder.requires_grad_(stage.joint)
        if not model.decoder.needs_synthesis:
            coder.synthesis.requires_grad_(False)
        if stage.rho:
            self.freeze(lpips=perceptual_loss.load_lpips(stage.lpips))

    def train(self, mode: bool = True) -> Self:
        """A frozen coder stays in evaluation mode, with rounding for noise."""
        super().train(mode)
        if not self.stage.joint:
            self.model.coder.eval()
        return self

    def loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """{"loss": ()} and scalars of a batch: "bpp", an estimate, and PSNR of the synthesis; on held-back images also
        that of one step, from zeros or, if that is what is trained, from noise, and the adversary's own loss."""
        stage, model = self.stage, self.model
        images = batch.images(self.device)
        quality = draws.spread().to(images.device)
        coded = self._encode(images, quality, draws)
        conditions = model.conditions(coded.y_hat, quality)
        judged = None
        if stage.one_step:
            x0 = self._one_step(images, conditions, draws)
            if self.adversary is not None and self.training:
                x0, judged = self.adversary.split(x0, draws)
            denoising = self._errors(x0, images, conditions)
        else:
            denoising = self._any_step(images, conditions, draws)
        bpp = (coded.y_bits + coded.z_bits) / (images.shape[2] * images.shape[3])
        losses = (1 - stage.rho) * denoising.losses
        if stage.joint:
            losses = losses + self._rate(images, quality, bpp, conditions)
        values = {"bpp": bpp.mean(), "psnr_db": psnr_db(conditions.synthesis, images)}
        if stage.rho:
            seen = (self._restored(denoising.x0, conditions), images)
            perceptual = self.lpips(*(shifted(seen, draws.shift()) if self.training else seen))
            losses = losses + stage.rho * perceptual
            values["lpips"] = perceptual.mean()
        if not self.training:
            zeros = torch.zeros_like(images)
            one_step = (
                model.to_images(denoising.x0, conditions) if stage.one_step else model.refine(conditions, 1, zeros)
            )
            values["one_step_psnr_db"] = psnr_db(one_step, images)
        loss = losses.mean()
        if self.adversary is not None:
            if judged is not None:
                loss = loss + self.adversary.deceive(self._restored(judged, conditions), images, conditions.synthesis)
            else:
                made = self._restored(denoising.x0, conditions)
                values["critic_loss"] = self.adversary.told(made, images, conditions.synthesis)
        return {"loss": loss, **values}

    def _restored(self, x0: Tensor, conditions: Conditions) -> Tensor:
        """(B, 3, H, W) float32 in [-1, 1]."""
        return self.model.to_images(x0, conditions).clamp(-1, 1).float()

    def _any_step(self, images: Tensor, conditions: Conditions, draws: Draws) -> Denoised:
        """At a time that is drawn: a diffusion model's loss."""
        model = self.model
        return denoise_once(
            model.diffusion,
            model,
            model.to_x0(images, conditions),
            draws,
            self_conditioned=model.network.self_condition,
            absolute=self.stage.error == "absolute",
            conditions=conditions,
        )

    def _one_step(self, images: Tensor, conditions: Conditions, draws: Draws) -> Tensor:
        """x0, same shape as ``images``, that `DiffusionDecoder.refine` finds in one step."""
        noise = self.model.decoder.gamma * normal(images.shape, draws.generators(), images.device)
        return self.model.answer(noise, conditions)

    def _errors(self, x0: Tensor, images: Tensor, conditions: Conditions) -> Denoised:
        """Of ``x0`` against the images themselves."""
        errors = x0 - self.model.to_x0(images, conditions)
        errors = errors.abs() if self.stage.error == "absolute" else errors.square()
        return Denoised((visibility(images) * errors).flatten(1).mean(1), x0)

    def _encode(self, images: Tensor, quality: Tensor, draws: Draws) -> Coded:
        coder = self.model.coder
        gradients = torch.set_grad_enabled(self.stage.joint and torch.is_grad_enabled())
        with gradients, torch.autocast(images.device.type, enabled=False):  # in full precision, as a codec has it
            return coder.entropy(coder.analyse(images, quality), quality, draws.generators())

    def _rate(self, images: Tensor, quality: Tensor, bpp: Tensor, conditions: Conditions) -> Tensor:
        """(B,) what bits cost in the units of the diffusion's error.

        λ prices a squared error of one 8-bit level in bits, and the diffusion's is one of x0. With a synthesis that
        is used comes its own error: nothing else keeps it what the residual is measured from.
        """
        per_pixel = 127.5**2 * self.model.coder.lmbda(quality)
        unit = conditions.std.square() if self.model.decoder.residual else torch.ones_like(conditions.std)
        cost = self.stage.bit_price * bpp / (per_pixel * unit)
        if self.model.decoder.needs_synthesis:
            cost = cost + (conditions.synthesis - images).square().flatten(1).mean(1) / unit
        return cost

    def pictures(self) -> Tensor | None:
        """(3·B, 3, H, W) uint8 of what is shown, from low to high quality: originals, syntheses, refined images."""
        if self.shown is None:
            return None
        images = self.shown.to(self.device).float() / 127.5 - 1
        quality = torch.linspace(0, 1, len(images), dtype=torch.float32, device=images.device)
        coder = self.model.coder
        conditions = self.model.conditions(coder.entropy(coder.analyse(images, quality), quality).y_hat, quality)
        generators = [torch_generator(0, Stream.DECODER_PICTURE, number) for number in range(len(images))]
        decoder = self.model.decoder
        noise = decoder.gamma * normal(images.shape, generators, images.device)
        refined = self.model.refine(conditions, min(decoder.steps, _PICTURE_STEPS), noise)
        return signed_to_uint8(torch.cat([images, conditions.synthesis, refined])).cpu()
