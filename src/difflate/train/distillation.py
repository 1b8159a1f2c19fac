"""Students of one or two steps of our diffusion models, as `difflate.diffusion` distils them."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from difflate.data.crops import Batch
from difflate.diffusion import (
    Model,
    Pair,
    consistency_pair,
    ddim,
    distillation_pair,
    normal,
    pseudo_huber,
    times,
)
from difflate.errors import ConfigError
from difflate.generate.sampling import preview
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder
from difflate.models.diffusion_decoder import Conditions, DiffusionDecoder
from difflate.models.latent_diffusion import LatentDiffusion
from difflate.models.pixel_diffusion import PixelDiffusion
from difflate.nn.colour import signed_to_uint8
from difflate.nn.unet import UNet
from difflate.seeds import Stream, torch_generator
from difflate.train import perceptual_loss
from difflate.train.diffae_task import captions_of
from difflate.train.draws import Draws
from difflate.train.settings import ImageSettings, LoopSettings
from difflate.train.structure import psnr_db
from difflate.train.task import Task

_MAX_TEACHER_STEPS = 1000
Student = DiffusionAutoencoder | DiffusionDecoder | LatentDiffusion | PixelDiffusion


@dataclass(frozen=True)
class DistilSettings(ImageSettings):
    """How a student learns, whatever it is of."""

    method: Literal["direct", "consistency"] = "direct"
    """direct: to end where the teacher's steps end, from the same noise. consistency: to say the same of neighbours on
    the teacher's way, at all noise levels."""
    steps: int = 1
    """Steps of the student, 1 or 2."""
    teacher_steps: int = 8
    """direct: steps of DDIM of the teacher. consistency: into how many the time is divided; each example is one."""
    error: Literal["pseudo-huber", "squared"] = "pseudo-huber"
    """How far apart student and teacher are: √(mean square + c²) - c, or the mean square."""
    rho: float = 0.0
    """ρ: share of the loss that is LPIPS, between the images of student and teacher."""
    lpips: Literal["alex", "vgg"] = "vgg"
    """Network that LPIPS looks with; alex takes a tenth of the time, but is what evaluations report."""
    target_decay: float = 0.95
    """consistency: share of the averaged student that stays in a step; 0: the student itself, without gradient."""
    unlabelled: float = 0.1
    """Share of the images whose class is not told, of a teacher with classes; guidance needs it."""
    training: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        if self.steps not in (1, 2):
            raise ConfigError(f"steps (={self.steps}) must be 1 or 2")
        if not self.steps < self.teacher_steps <= _MAX_TEACHER_STEPS:
            raise ConfigError(
                f"teacher_steps (={self.teacher_steps}) must be above steps (={self.steps}), and at most "
                f"{_MAX_TEACHER_STEPS}"
            )
        for key in ("rho", "unlabelled"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"{key} (={getattr(self, key)}) must be from 0 to 1")
        if not 0 <= self.target_decay < 1:
            raise ConfigError(f"target_decay (={self.target_decay}) must be from 0 to below 1")


@dataclass(frozen=True)
class Example:
    """What the diffusion of a batch runs on."""

    x0: Tensor
    """(B, …)"""
    told: dict[str, Any] = field(default_factory=dict)
    """What the U-Net is told beside x and the noise condition."""
    conditions: Conditions | None = None
    """Of a decoder: what makes images of x0."""


class DistilTask(Task, ABC):
    """(1 - ρ)·error + ρ·LPIPS between what student and teacher make of the same noise.

    Only the student's U-Net is trained: what is around it is the teacher's, so that both see the same conditions.
    """

    clip: float | None = 1.0
    """x0 is kept within ± this in sampling."""
    followed: Tensor

    def __init__(self, model: Student, teacher: UNet, settings: DistilSettings):
        """``teacher``: the network of the model that ``model`` was made from. Raises ConfigError: no LPIPS weights."""
        super().__init__(model, settings.training)
        self.settings, self.process = settings, model.process.build()
        model.requires_grad_(False)
        model.unet.requires_grad_(True)
        self.freeze(teacher=teacher)
        if settings.rho:
            self.freeze(lpips=perceptual_loss.load_lpips(settings.lpips))
        self.averaged: nn.Module | None = None
        if settings.method == "consistency":
            self.averaged = copy.deepcopy(model.unet).requires_grad_(False)  # no `freeze`: it is saved and resumed
            self.register_buffer("followed", torch.tensor(-1))

    @abstractmethod
    def example(self, batch: Batch, draws: Draws) -> Example:
        """What the diffusion of ``batch`` runs on."""

    def noise(self, like: Tensor, draws: Draws) -> Tensor:
        """(B, …) what few and many steps start from, as ``like``."""
        return self.process.start(like.shape, draws.generators(), device=like.device)

    def images(self, x0: Tensor, example: Example) -> Tensor:
        """(B, 3, H, W) in [-1, 1] of ``x0``, for LPIPS."""
        return x0.clamp(-1, 1)

    def loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """{"loss": ()} and its terms: "error" and, with ρ, "lpips"."""
        s = self.settings
        with torch.no_grad():
            example = self.example(batch, draws)
        pair = self._consistency(example, draws) if s.method == "consistency" else self._direct(example, draws)
        found, wanted = pair.found.float(), pair.wanted.float()
        if s.error == "squared":
            error = (found - wanted).square().mean()
        else:
            error = pseudo_huber(found, wanted).mean()
        values = {"loss": (1 - s.rho) * error, "error": error}
        if s.rho:
            images = (self.images(x0, example).float() for x0 in (found, wanted))
            values["lpips"] = self.lpips(*images).mean()
            values["loss"] = values["loss"] + s.rho * values["lpips"]
        if not self.training:
            values |= self.measures(batch, example, draws)
        return values

    def measures(self, batch: Batch, example: Example, draws: Draws) -> dict[str, Tensor]:
        """Further scalars of held-back images."""
        return {}

    def _direct(self, example: Example, draws: Draws) -> Pair:
        return distillation_pair(
            self.process,
            self.told(self.model.unet, example),
            self.told(self.teacher, example),
            self.noise(example.x0, draws),
            steps=self.settings.steps,
            teacher_steps=self.settings.teacher_steps,
            clip=self.clip,
            self_conditioned=self.teacher.config.self_condition,
        )

    def _consistency(self, example: Example, draws: Draws) -> Pair:
        assert self.averaged is not None
        if self.training:
            self._follow(int(draws.numbers[0]) // draws.batch)
        x0 = example.x0
        grid = torch.tensor(times(self.settings.teacher_steps), dtype=torch.float32)
        place = (draws.uniform() * (len(grid) - 1)).long()  # of the later of the two times, 1 the first
        t, r = (grid[i].to(x0.device) for i in (place, place + 1))
        eps = normal(x0.shape, draws.generators(), x0.device)
        return consistency_pair(
            self.process,
            self.told(self.model.unet, example),
            self.told(self.averaged, example),
            self.told(self.teacher, example),
            self.process.noise(x0, eps, self.process.logsnr(t)),
            t,
            r,
            clip=self.clip,
            self_conditioned=self.teacher.config.self_condition,
        )

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Moves the averaged student, once a step: parts of one step have the same weights."""
        assert self.averaged is not None
        if step <= int(self.followed):
            return
        share = 1 - self.settings.target_decay if self.followed >= 0 else 1.0  # at first it is where training starts
        for mean, value in zip(self.averaged.parameters(), self.model.unet.parameters(), strict=True):
            mean.lerp_(value, share)
        self.followed.fill_(step)

    def told(self, network: Any, example: Example) -> Model:
        """``network`` with what it is told of ``example``."""

        def model(x: Tensor, condition: Tensor, *extra: Tensor) -> Tensor:
            return network(x, condition, *extra, **example.told)

        return model


class LatentDistilTask(DistilTask):
    """Of a continuous generator of latents."""

    model: LatentDiffusion

    def example(self, batch: Batch, draws: Draws) -> Example:
        return Example(self.model.latent.index_space.scale(batch.pixels.to(self.device, non_blocking=True).long()))

    def pictures(self) -> Tensor:
        """(16, 3, H, W) uint8."""
        return preview(self.model)


class PixelDistilTask(DistilTask):
    """Of a generator of pixels."""

    model: PixelDiffusion

    def example(self, batch: Batch, draws: Draws) -> Example:
        images = batch.images(self.device)
        labels = (
            torch.where(draws.drop_mask(self.settings.unlabelled), -1, batch.labels) if self.model.classes else None
        )
        return Example(images, {"vector": self.model.vector_of(labels, images)})

    def pictures(self) -> Tensor:
        """(16, 3, H, W) uint8."""
        return preview(self.model)


class DecoderDistilTask(DistilTask):
    """Of a diffusion decoder, whose coder and context decoder stay as they are."""

    model: DiffusionDecoder

    def __init__(self, model: DiffusionDecoder, teacher: UNet, settings: DistilSettings, shown: Tensor | None = None):
        """``shown``: (B, 3, H, W) uint8, what `pictures` are of."""
        super().__init__(model, teacher, settings)
        self.clip = None if model.decoder.residual else 1.0
        self.shown = shown

    def train(self, mode: bool = True) -> Self:
        """The coder stays in evaluation mode, with rounding for noise."""
        super().train(mode)
        self.model.coder.eval()
        return self

    def example(self, batch: Batch, draws: Draws) -> Example:
        images = batch.images(self.device)
        return self._example(images, draws.spread().to(images.device))

    @torch.no_grad()
    def _example(self, images: Tensor, quality: Tensor) -> Example:
        model = self.model
        with torch.autocast(images.device.type, enabled=False):  # in full precision, as a codec has it
            coded = model.coder.entropy(model.coder.analyse(images, quality), quality)
        conditions = model.conditions(coded.y_hat, quality)
        told = {"spatial": conditions.spatial, "vector": conditions.vector}
        return Example(model.to_x0(images, conditions), told, conditions)

    def noise(self, like: Tensor, draws: Draws) -> Tensor:
        return self.model.decoder.gamma * normal(like.shape, draws.generators(), like.device)

    def images(self, x0: Tensor, example: Example) -> Tensor:
        assert example.conditions is not None
        return self.model.to_images(x0, example.conditions).clamp(-1, 1)

    def measures(self, batch: Batch, example: Example, draws: Draws) -> dict[str, Tensor]:
        """PSNR of the synthesis and of what the student makes, as a codec decodes."""
        assert example.conditions is not None
        images = batch.images(self.device)
        restored = self.model.refine(example.conditions, self.settings.steps, self.noise(images, draws))
        return {
            "synthesis_psnr_db": psnr_db(example.conditions.synthesis, images),
            "psnr_db": psnr_db(restored, images),
        }

    def pictures(self) -> Tensor | None:
        """(3·B, 3, H, W) uint8 of what is shown, from low to high quality: originals, teacher, student."""
        if self.shown is None:
            return None
        images = self.shown.to(self.device).float() / 127.5 - 1
        example = self._example(images, torch.linspace(0, 1, len(images), dtype=torch.float32, device=images.device))
        generators = [torch_generator(0, Stream.DECODER_PICTURE, number) for number in range(len(images))]
        noise = self.model.decoder.gamma * normal(images.shape, generators, images.device)
        ends = [
            self._end(network, steps, example, noise)
            for network, steps in ((self.teacher, self.settings.teacher_steps), (self.model.unet, self.settings.steps))
        ]
        return signed_to_uint8(torch.cat([images, *(self.images(x0, example) for x0 in ends)])).cpu()

    def _end(self, network: UNet, steps: int, example: Example, noise: Tensor) -> Tensor:
        own = network.config.self_condition
        *_, last = ddim(self.process, self.told(network, example), noise, steps, clip=self.clip, self_condition=own)
        return last.x


class AutoencoderDistilTask(DistilTask):
    """Of a diffusion autoencoder, whose encoder, bottleneck and head stay as they are; the teacher is not guided."""

    model: DiffusionAutoencoder

    def __init__(
        self,
        model: DiffusionAutoencoder,
        teacher: UNet,
        settings: DistilSettings,
        shown: Tensor | None = None,
        captions: Sequence[str] = (),
    ):
        """``shown``: (B, 3, H, W) uint8, what `pictures` are of, and their ``captions``."""
        super().__init__(model, teacher, settings)
        self.clip, self.shown, self.captions = model.stage.bound, shown, captions

    def train(self, mode: bool = True) -> Self:
        """The autoencoder stays in evaluation mode."""
        super().train(mode)
        self.model.autoencoder.eval()
        return self

    def example(self, batch: Batch, draws: Draws) -> Example:
        return self._example(batch.images(self.device), captions_of(batch))

    @torch.no_grad()
    def _example(self, images: Tensor, captions: Sequence[str]) -> Example:
        model = self.model
        with torch.autocast(images.device.type, enabled=False):  # in full precision, as a codec has it
            x0, z = model.stage.encode(images), model.autoencoder(images).z
        told = {"spatial": model.spatial(z, *x0.shape[2:]), "vector": model.told(captions, images.device)}
        return Example(x0, told)

    def images(self, x0: Tensor, example: Example) -> Tensor:
        return self.model.stage.decode(x0).clamp(-1, 1)

    def measures(self, batch: Batch, example: Example, draws: Draws) -> dict[str, Tensor]:
        """PSNR of what the student makes, as a codec decodes."""
        noise = self.noise(example.x0, draws)
        return {"psnr_db": psnr_db(self._restored(self.model.unet, self.settings.steps, example, noise),
                                   batch.images(self.device))}  # fmt: skip

    def pictures(self) -> Tensor | None:
        """(3·B, 3, H, W) uint8 of what is shown: originals, teacher, student."""
        if self.shown is None:
            return None
        images = self.shown.to(self.device).float() / 127.5 - 1
        example = self._example(images, self.captions or [""] * len(images))
        generators = [torch_generator(0, Stream.DECODER_PICTURE, number) for number in range(len(images))]
        noise = self.process.start(example.x0.shape, generators, device=images.device)
        ends = [
            self._restored(network, steps, example, noise)
            for network, steps in ((self.teacher, self.settings.teacher_steps), (self.model.unet, self.settings.steps))
        ]
        return signed_to_uint8(torch.cat([images, *ends])).cpu()

    def _restored(self, network: UNet, steps: int, example: Example, noise: Tensor) -> Tensor:
        *_, last = ddim(self.process, self.told(network, example), noise, steps, clip=self.clip)
        return self.images(last.x, example).float()


def passes(settings: DistilSettings, self_conditioned: bool) -> str:
    """What training costs, in passes of the network."""
    ways = settings.teacher_steps if settings.method == "direct" else 2 + self_conditioned
    back = settings.steps if settings.method == "direct" else 1
    return f"each time {ways} passes forward and {back} forward and back"
