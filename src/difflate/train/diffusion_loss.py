"""The loss of a diffusion model, which recipes share."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from difflate.diffusion import Model, Process, normal, self_condition
from difflate.generate.sampling import preview
from difflate.models.generator import Generator
from difflate.train.draws import Draws
from difflate.train.settings import LoopSettings
from difflate.train.task import Task


class GeneratorTask(Task):
    """A generator and its diffusion process, which the loss of a recipe is of; its samples are the pictures."""

    def __init__(self, model: Generator, loop: LoopSettings):
        super().__init__(model, loop)
        self.process = model.process.build()

    def pictures(self) -> Tensor:
        """(16, 3, H, W) uint8."""
        return preview(self.model)


@dataclass(frozen=True)
class Denoised:
    """What a training step of a diffusion model finds."""

    losses: Tensor
    """(B,) weighted errors of the target."""
    x0: Tensor
    """(B, …) what the network takes for x0, in one step."""


@dataclass(frozen=True)
class Noisy:
    """What a training step of a diffusion model starts from."""

    t: Tensor
    """(B,) times."""
    logsnr: Tensor
    """(B,) logSNR at them."""
    eps: Tensor
    """(B, …) noise, drawn on the CPU, image by image."""
    x: Tensor
    """(B, …) the data with it."""


def diffuse(process: Process, x0: Tensor, draws: Draws) -> Noisy:
    """``x0: (B, …)`` at times and with noise that follow from ``draws``."""
    t = process.training_times(draws.uniform()).to(x0.device)
    return noisy_at(process, x0, t, normal(x0.shape, draws.generators(), x0.device))


def noisy_at(process: Process, x0: Tensor, t: Tensor, eps: Tensor) -> Noisy:
    """``x0: (B, …)`` with the noise ``eps: (B, …)`` of the times ``t: (B,)``."""
    logsnr = process.logsnr(t)
    return Noisy(t, logsnr, eps, process.noise(x0, eps, logsnr))


def diffusion_loss(
    process: Process, network: Model, x0: Tensor, draws: Draws, *, self_conditioned: bool = False, **conds: Any
) -> Tensor:
    """(B,) weighted squared errors of the target for ``x0: (B, …)`` (Rampas 2024, 2.4).

    ``conds`` go to the network. Noise is drawn on the CPU, image by image.
    """
    return denoise_once(process, network, x0, draws, self_conditioned=self_conditioned, **conds).losses


def denoise_once(
    process: Process,
    network: Model,
    x0: Tensor,
    draws: Draws,
    *,
    self_conditioned: bool = False,
    absolute: bool = False,
    **conds: Any,
) -> Denoised:
    """The losses of `diffusion_loss`, and x0 as the network finds it; ``absolute``: of absolute errors, not squared."""
    noisy = diffuse(process, x0, draws)

    def model(x: Tensor, condition: Tensor, *extra: Tensor) -> Tensor:
        return network(x, condition, *extra, **conds)

    extra = ()
    if self_conditioned:
        extra = (self_condition(process, model, noisy.x, noisy.t, clip=1.0, generator=draws.toss()),)
    return denoise_noisy(process, model, x0, noisy, *extra, absolute=absolute)


def denoise_noisy(
    process: Process, network: Model, x0: Tensor, noisy: Noisy, *extra: Tensor, absolute: bool = False, **conds: Any
) -> Denoised:
    """`denoise_once` of what is noisy already; ``extra`` and ``conds`` go to the network."""
    x, logsnr = noisy.x, noisy.logsnr
    condition = process.noise_condition(noisy.t).to(x.dtype)
    y = network(process.network_input(x, logsnr), condition, *extra, **conds).float()
    errors = y - process.target_of(x0, noisy.eps, logsnr)
    errors = (errors.abs() if absolute else errors.square()).flatten(1).mean(1)
    return Denoised(process.weight(logsnr) * errors, process.split(x, y, logsnr)[0])
