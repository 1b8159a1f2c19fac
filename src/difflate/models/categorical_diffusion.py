"""The categorical model of latents: each step draws indices of the codebooks (Scribano et al. 2023, 3.2.2)."""

import torch
from torch import Tensor

from difflate.diffusion import Generators, Model, ProcessConfig, sampled_x0
from difflate.errors import ConfigError
from difflate.models.generator import check_no_guidance
from difflate.models.latent_diffusion import LatentGenerator, LatentSpec, check_network
from difflate.nn import UNet, UNetConfig


class CategoricalDiffusion(LatentGenerator):
    """The categorical model: logits over each plane's codebook, of which z0 is drawn (3.2.2, 4.2.3, Algorithm 2)."""

    kind = "categorical-diffusion"
    sampler = "ddpm"

    def __init__(
        self,
        latent: LatentSpec,
        network: UNetConfig,
        process: ProcessConfig,
        image_px: int,
        self_condition: bool = False,
        temperature: float = 1.0,
    ) -> None:
        """``network``: from C planes, 2·C with ``self_condition``, to the K_1 + … + K_C logits.

        ``temperature``: γ of Eq. 25, unless samples are drawn with another. Raises ConfigError.
        """
        super().__init__(latent, process, image_px)
        if process.target != "x0" or process.scaling != "vp":
            raise ConfigError(f"`target` (={process.target}) must be x0, and `scaling` vp: logits are of x0")
        if network.self_condition:
            raise ConfigError("`self_condition` of the network must be false; that of the model is the one to set")
        check_temperature(temperature)
        check_network(network, *channels(latent, self_condition))
        self.network, self.self_condition, self.temperature = network, self_condition, temperature
        self.unet = UNet(network)

    @property
    def self_conditioned(self) -> bool:
        return self.self_condition

    def forward(self, x: Tensor, condition: Tensor, x0_prev: Tensor | None = None) -> Tensor:
        """ẑ0: (B, K_1 + … + K_C, h, w) logits for ``x: (B, C, h, w)`` and the noise ``condition: (B,)``.

        ``x0_prev``: (B, C, h, w) the last z̃0, with `self_condition`.
        """
        if self.self_condition:
            x = torch.cat([x, torch.zeros_like(x) if x0_prev is None else x0_prev], dim=1)
        return self.unet(x, condition)

    def denoiser(
        self,
        labels: Tensor | None = None,
        guidance: float = 1.0,
        temperature: float | None = None,
        generators: Generators = None,
    ) -> Model:
        check_no_guidance(guidance)
        gamma = self.temperature if temperature is None else temperature
        check_temperature(gamma)
        return sampled_x0(self, self.latent.index_space, gamma, generators)


def channels(latent: LatentSpec, self_condition: bool) -> tuple[int, int]:
    """(into, out of) the network."""
    return len(latent.codebook_sizes) * (2 if self_condition else 1), sum(latent.codebook_sizes)


def check_temperature(temperature: float) -> None:
    """Raises ConfigError for a γ that no logits can be divided by."""
    if not 0 <= temperature <= 1e3:
        raise ConfigError(f"temperature (={temperature:g}) must be from 0, the most likely index, to 1000")
