"""The loss of the categorical model: decoding in image space (Scribano et al. 2023, Algorithm 1 and Eq. 24)."""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from difflate.data.crops import Batch
from difflate.diffusion import IndexSpace, expected_codewords, gumbel_softmax, sampled_x0, self_condition
from difflate.errors import ConfigError
from difflate.models.categorical_diffusion import CategoricalDiffusion
from difflate.train.diffusion_loss import GeneratorTask, diffuse
from difflate.train.draws import Draws
from difflate.train.settings import LoopSettings


@dataclass(frozen=True)
class CategoricalSettings:
    """What the categorical model is told, and the terms of its loss."""

    self_condition: bool = True
    """The network is given its last z̃0."""
    temperature: float = 1.0
    """γ of Eq. 25, unless samples are drawn with another."""
    tau: float = 1.0
    """τ of the Gumbel-softmax (Eq. 20)."""
    image: float = 1.0
    """Weight of ||x0 - x̃0||², the mean squared error of the decoded image in [-1, 1]: the first term of Eq. 24."""
    eps: float = 1.0
    """Weight of ||ε - ε_z||², the second: an error of z̃0 counts SNR times, or as process.weighting says."""
    cross_entropy: float = 0.0
    """Weight of the cross-entropy of the logits in nats per index. Not in the paper."""

    def __post_init__(self) -> None:
        for key in ("image", "eps", "cross_entropy"):
            if not 0 <= getattr(self, key) < float("inf"):
                raise ConfigError(f"{key} (={getattr(self, key)}) must be a number from 0 on")
        if not self.image + self.eps + self.cross_entropy:
            raise ConfigError("image, eps and cross_entropy are 0; there is nothing to train")
        if not 0.01 <= self.tau <= 100:
            raise ConfigError(f"tau (={self.tau}) must be from 0.01 to 100")


class CategoricalTask(GeneratorTask):
    """The loss of a `CategoricalDiffusion`, of latents alone: x0 is the decoded image of the true indices.

    Planes are decoded one after the other. With `gradient_checkpointing` once more for the gradient: then, beside the
    logits in the precision of the training, there is never more than one plane of K numbers a site.
    """

    gradient_checkpointing = False
    """Set by the loop."""

    model: CategoricalDiffusion

    def __init__(self, model: CategoricalDiffusion, loop: LoopSettings, settings: CategoricalSettings):
        super().__init__(model, loop)
        self.settings = settings

    def loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """{"loss": (), "image": (), "eps": (), "cross_entropy": ()} of a batch of latents, the terms unweighted."""
        model, process, s = self.model, self.process, self.settings
        space, device = model.latent.index_space, self.device
        indices = batch.pixels.to(device, non_blocking=True).long()
        z0 = space.scale(indices)
        noisy = diffuse(process, z0, draws)
        extra = ()
        if model.self_conditioned:
            of_image = sampled_x0(model, space, model.temperature, draws.of_first_answer(device))
            extra = (self_condition(process, of_image, noisy.x, noisy.t, generator=draws.toss()),)
        condition = process.noise_condition(noisy.t).to(noisy.x.dtype)
        logits = space.split(model(process.network_input(noisy.x, noisy.logsnr), condition, *extra))
        codec = model.space.to(device)
        words, places, entropies = [], [], []
        for plane, (of_plane, book) in enumerate(zip(logits, codec.codebooks, strict=True)):
            decode = functools.partial(self._decode_plane, draws=draws, plane=plane)
            of_one = (of_plane, book, indices[:, plane])
            if self.gradient_checkpointing:
                decoded = checkpoint(decode, *of_one, use_reentrant=False, preserve_rng_state=False)
            else:
                decoded = decode(*of_one)
            for values, value in zip((words, places, entropies), decoded, strict=True):
                values.append(value)
        with torch.autocast(device.type, enabled=False):
            true = [book[indices[:, plane]].permute(0, 3, 1, 2) for plane, book in enumerate(codec.codebooks)]
            image = _mean_square(codec.from_codewords(words) - codec.from_codewords(true))
            z_error = _mean_square(torch.stack(places, dim=1) - z0)
        weight = noisy.logsnr.exp() if process.weighting is None else process.weight(noisy.logsnr)
        eps, entropy = weight * z_error, torch.stack(entropies).mean(0)
        losses = s.image * image + s.eps * eps + s.cross_entropy * entropy
        return {"loss": losses.mean(), "image": image.mean(), "eps": eps.mean(), "cross_entropy": entropy.mean()}

    def _decode_plane(
        self, logits: Tensor, book: Tensor, indices: Tensor, draws: Draws, plane: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, n_c, h, w) codewords, (B, h, w) z̃0 and (B,) cross-entropy of ``logits: (B, K_c, h, w)`` of a plane."""
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            soft = gumbel_softmax(logits, self.settings.tau, draws.of_plane(plane, logits.device))
            (words,) = expected_codewords([soft], [book])
            place = IndexSpace((len(book),)).soft([soft])[:, 0]
            entropy = F.cross_entropy(logits, indices, reduction="none").flatten(1).mean(1)
        return words, place, entropy


def _mean_square(errors: Tensor) -> Tensor:
    """(B,) of ``errors: (B, …)``."""
    return errors.square().flatten(1).mean(1)
