"""The categorical reverse process (Scribano et al. 2023, 3.2.2 and 4.2.3).

The latent z: (B, C, H, W) holds codebook indices, scaled to [-1, 1], and its forward process stays Gaussian. The
network answers with logits ẑ0 over each channel's codebook, (B, K_1 + … + K_C, H, W), as the codebooks may differ in
size. In training a Gumbel-softmax makes of them soft one-hots z̄0: (B, K, H, W), one for each channel, which give
codewords to decode and an expected index z̃0. In sampling z̃0 is drawn, and the rest is any sampler for x0:

    model = sampled_x0(network, space, gamma=0.8, generator=generator)
    for step in ddpm(Process(LinearBeta(), target="x0"), model, x, generator=generator):     # Algorithm 2
        ...
    indices = space.indices(step.x)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from difflate.diffusion.checks import check_positive
from difflate.diffusion.draws import Generators, gumbel
from difflate.diffusion.guidance import Model
from difflate.diffusion.process import expand
from difflate.errors import ConfigError

LEAST_SIGMA = 1e-6
"""The smallest error that `IndexSpace.posterior` takes: squares of what is divided by less overflow."""


@dataclass(frozen=True)
class IndexSpace:
    """Indices 0 … K_c - 1 of C codebooks and their places 2k/(K_c - 1) - 1 in [-1, 1]."""

    sizes: tuple[int, ...]
    """K_c, the entries of each channel's codebook."""

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 2:
            raise ConfigError(f"`sizes` (={self.sizes}) must be one or more codebook sizes of at least 2")

    def scale(self, indices: Tensor) -> Tensor:
        """z: (B, C, …) float32 in [-1, 1] of ``indices: (B, C, …)`` int64."""
        return indices * (2 / self._tops(indices)) - 1

    def indices(self, z: Tensor) -> Tensor:
        """(B, C, …) int64, the indices nearest to ``z: (B, C, …)``."""
        tops = self._tops(z)
        return ((z.float() + 1) * (tops / 2)).round().clamp(torch.zeros_like(tops), tops).long()

    def split(self, logits: Tensor) -> list[Tensor]:
        """C of (B, K_c, …) from ``logits: (B, K_1 + … + K_C, …)``."""
        if logits.shape[1] != sum(self.sizes):
            raise ConfigError(f"`logits` (={logits.shape[1]} channels) must have the sum of `sizes` (={self.sizes})")
        return list(logits.split(self.sizes, dim=1))

    def soft(self, z_bar: Sequence[Tensor]) -> Tensor:
        """z̃0: (B, C, …) in [-1, 1], the expected index of C ``z_bar: (B, K_c, …)``, differentiable."""
        # not a matrix product: autocast would take it to bfloat16, which cannot tell 256 places apart
        return torch.stack([(z.movedim(1, -1) * _places(z)).sum(-1) for z in z_bar], dim=1)

    def posterior(self, z: Tensor, sigma: float) -> list[Tensor]:
        """C of z̄0: (B, K_c, …), the probabilities of the indices that ``z: (B, C, …)`` may be, if it has a Gaussian
        error of standard deviation ``sigma`` in [-1, 1] and all were alike before. They sum to 1 along dim 1.

        Raises ConfigError for a sigma below 1e-6, which is none.
        """
        if not sigma >= LEAST_SIGMA:
            raise ConfigError(f"`sigma` (={sigma}) must be at least {LEAST_SIGMA:g}")
        self._tops(z)
        planes = []
        for plane, size in zip(z.float().unbind(1), self.sizes, strict=True):
            places = torch.linspace(-1, 1, size, dtype=torch.float32, device=z.device)
            planes.append((-0.5 * ((plane[..., None] - places) / sigma).square()).softmax(-1).movedim(-1, 1))
        return planes

    def sample(self, logits: Tensor, gamma: float = 1.0, generator: Generators = None) -> Tensor:
        """(B, C, …) int64 drawn from softmax(ẑ0/γ) (Eq. 25) of ``logits: (B, K_1 + … + K_C, …)``; γ = 0 is argmax."""
        if not gamma >= 0:
            raise ConfigError(f"`gamma` (={gamma}) must not be negative; 0 takes the most likely index")
        planes = []
        for plane in self.split(logits):  # one by one: the noise is as large as the logits
            if gamma > 0:
                # The largest of ẑ0/γ + G is such a draw; times γ it has its limit at 0 and never overflows.
                last = plane.movedim(1, -1)
                plane = gumbel(last.shape, generator, last.device).mul_(gamma).add_(last).movedim(-1, 1)
            planes.append(plane.argmax(dim=1))
        return torch.stack(planes, dim=1)

    def _tops(self, like: Tensor) -> Tensor:
        """(C, 1 …) float32, the largest index of each channel."""
        if like.shape[1] != len(self.sizes):
            raise ConfigError(
                f"the latent (={like.shape[1]} channels) must have one for each of `sizes` (={self.sizes})"
            )
        # filled where it is used: a copy from the CPU could not be recorded as part of a CUDA graph
        parts = [torch.full((1,), k - 1, dtype=torch.float32, device=like.device) for k in self.sizes]
        tops = torch.cat(parts)
        return tops.reshape(-1, *[1] * (like.ndim - 2))


def gumbel_softmax(logits: Tensor, tau: float = 1.0, generator: Generators = None) -> Tensor:
    """z̄0 = softmax((ẑ0 + G)/τ): (B, K, …), soft one-hots along dim 1 of ``logits: (B, K, …)`` (Eq. 20).

    ``tau``: towards 0 they become hard, and the gradient vanishes; towards infinity, uniform.
    """
    check_positive(tau=tau)
    z = logits.movedim(1, -1)  # where a network in channels-last has them side by side
    z = z + gumbel(z.shape, generator, z.device)
    return ((z - z.detach().amax(dim=-1, keepdim=True)) / tau).softmax(dim=-1).movedim(-1, 1)  # z/τ alone may overflow


def _places(z_bar: Tensor) -> Tensor:
    """(K,) from -1 to 1."""
    return torch.linspace(-1, 1, z_bar.shape[1], dtype=z_bar.dtype, device=z_bar.device)


def expected_codewords(z_bar: Sequence[Tensor], codebooks: Sequence[Tensor]) -> list[Tensor]:
    """c̃ = z̄0·C for each channel: (B, n_c, …) of ``z_bar: (B, K_c, …)`` and ``codebooks: (K_c, n_c)`` (Eq. 21).

    Algorithm 1 prints the logits ẑ0 in the place of z̄0; their product with a codebook is no codeword.
    """
    return [(z.movedim(1, -1) @ book).movedim(-1, 1) for z, book in zip(z_bar, codebooks, strict=True)]


def eps_z(z_t: Tensor, z0: Tensor, logsnr: Tensor) -> Tensor:
    """ε_z = (a_t·z_t - z̃0)/b_t: (B, C, …), a_t = 1/√ᾱ_t, b_t = √(1/ᾱ_t - 1) (Eq. 24), under the scaling vp.

    ``z_t``, ``z0``: (B, C, …), noisy and predicted; ``logsnr``: () or (B,). As b_t = e^(-l/2), the loss on ε_z counts
    an error of z̃0 SNR times.
    """
    a_t, b_t = (expand(s, z_t) for s in ((1 + (-logsnr).exp()).sqrt(), (-logsnr / 2).exp()))
    return (a_t * z_t - z0) / b_t


def sampled_x0(network: Model, space: IndexSpace, gamma: float = 1.0, generator: Generators = None) -> Model:
    """A model of target x0 that draws z̃0 from the logits of ``network`` (Algorithm 2, Eq. 25).

    Takes what the network takes: x: (B, C, …), noise condition: (B,), and the last z̃0 if it is self-conditioned.
    """

    def model(x: Tensor, condition: Tensor, *extra: Tensor) -> Tensor:
        return space.scale(space.sample(network(x, condition, *extra), gamma, generator))

    return model
