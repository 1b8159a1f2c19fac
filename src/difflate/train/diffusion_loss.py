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
    logsnr = process.logsnr(t)
    eps = normal(x0.shape, draws.generators(), x0.device)
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
    x, logsnr = noisy.x, noisy.logsnr

    def model(x: Tensor, condition: Tensor, *extra: Tensor) -> Tensor:
        return network(x, condition, *extra, **conds)

    extra = (self_condition(process, model, x, noisy.t, clip=1.0, generator=draws.toss()),) if self_conditioned else ()
    y = model(process.network_input(x, logsnr), process.noise_condition(noisy.t).to(x.dtype), *extra).float()
    errors = y - process.target_of(x0, noisy.eps, logsnr)
    errors = (errors.abs() if absolute else errors.square()).flatten(1).mean(1)
    return Denoised(process.weight(logsnr) * errors, process.split(x, y, logsnr)[0])
