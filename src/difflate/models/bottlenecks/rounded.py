"""Continuous latents, rounded in steps where they are written into files."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from difflate.diffusion.draws import Generators, normal
from difflate.models.bottlenecks.base import Bottleneck, Passed
from difflate.models.exact import ExactEntropy
from difflate.nn.entropy_network import Coded, HyperpriorConfig, HyperpriorNetwork
from difflate.nn.factorized_network import FactorizedNetwork

_ARCHITECTURE = "rounded"
"""BITSTREAM: part of the fingerprint."""
_LEARNING = 1e-3
"""What a bit counts, a site, where only the entropy model learns of it."""
_LOGVAR_MAX = 20.0


class CodedInSteps(Bottleneck):
    """z in steps of a quantizer, and the entropy model that tells what its integers cost.

    The entropy model is a hyperprior or a table for each channel (`difflate.nn.entropy_network`,
    `factorized_network`), trained with noise in the place of rounding; files are written with its integers, `exact`.
    """

    sizes = None
    exact: ExactEntropy

    def __init__(self, features: int, channels: int, step: float, hyperprior: int):
        """``step``: in units of z. ``hyperprior``: width of its network; 0: a table for each channel."""
        super().__init__()
        self.features, self.channels, self.step = features, channels, step
        config = (
            HyperpriorConfig(channels=-(-hyperprior // 4), width=hyperprior, features=hyperprior)
            if hyperprior
            else None
        )
        self.entropy = HyperpriorNetwork(config, channels) if config else FactorizedNetwork(channels)
        self.exact = ExactEntropy(self.entropy, _ARCHITECTURE)

    def coded(self, features: Tensor) -> Tensor:
        return self.mean(features).float() / self.step

    def latent(self, coded: Tensor) -> Tensor:
        return coded.float() * self.step

    @abstractmethod
    def mean(self, features: Tensor) -> Tensor:
        """(B, channels, h, w) z before it is rounded, of ``features: (B, features, h, w)``."""

    def side_information(self, y: Tensor) -> Tensor:
        """(B, Z, ⌈h/4⌉, ⌈w/4⌉) integers of ``y: (B, channels, h, w)`` in steps; Z = 0 without a hyperprior."""
        return self.entropy.side_information(y)

    def entropy_of(self, y: Tensor, generator: Generators) -> Coded:
        """``y: (B, channels, h, w)``, in steps, as its coder has it."""
        with torch.autocast(y.device.type, enabled=False):  # in full precision, as a codec has it
            return self.entropy(y.float(), y.new_zeros(len(y), dtype=torch.float32), generator)

    def rounded(self, z: Tensor) -> Passed:
        """``z: (B, channels, h, w)`` as files have it."""
        coded = self.entropy_of(z.float() / self.step, None)
        return Passed(self.latent(coded.y_hat), z.new_zeros(len(z)), {"site_bits": bits_of(coded).mean()})

    def learned_of(self, z: Tensor, generator: Generators) -> Tensor:
        """(B,) zeros, whose gradient teaches the entropy model what ``z`` is like, and nothing else."""
        bits = _LEARNING * bits_of(self.entropy_of(z.detach().float() / self.step, generator))
        return bits - bits.detach()


def bits_of(coded: Coded) -> Tensor:
    """(B,) bits of a site."""
    return (coded.y_bits + coded.z_bits) / (coded.y_hat.shape[2] * coded.y_hat.shape[3])


class RateTrained(CodedInSteps):
    """What its integers cost is a part of the loss, and decoders see them (Ballé et al. 2017)."""

    def __init__(self, channels: int, step: float, hyperprior: int, bit_price: float):
        """``bit_price``: of a bit, a site."""
        super().__init__(channels, channels, step, hyperprior)
        self.bit_price = bit_price

    def forward(self, features: Tensor, generator: Generators = None) -> Passed:
        coded = self.entropy_of(self.coded(features), generator)
        bits = bits_of(coded)
        return Passed(self.latent(coded.y_hat), self.bit_price * bits, {"site_bits": bits.mean()})

    def mean(self, features: Tensor) -> Tensor:
        return features


class Normalised(CodedInSteps):
    """Each channel with mean 0 and variance 1, and nothing else that holds z together (Pernias et al. 2023).

    The statistics are those of a batch while training, then a moving average, which is saved with the weights.
    """

    def __init__(self, channels: int, step: float, hyperprior: int):
        super().__init__(channels, channels, step, hyperprior)
        self.norm = nn.BatchNorm2d(channels, affine=False, dtype=torch.float32)

    def forward(self, features: Tensor, generator: Generators = None) -> Passed:
        z = self.mean(features)
        return Passed(z, self.learned_of(z, generator)) if self.training else self.rounded(z)

    def mean(self, features: Tensor) -> Tensor:
        return self.norm(features.float())


class Gaussian(CodedInSteps):
    """z from a Gaussian at each site, held to N(0, 1) by a very small price (Rombach et al. 2022)."""

    def __init__(self, channels: int, step: float, hyperprior: int, kl_weight: float):
        """``kl_weight``: of the divergence, a number of z."""
        super().__init__(2 * channels, channels, step, hyperprior)
        self.kl_weight = kl_weight

    def forward(self, features: Tensor, generator: Generators = None) -> Passed:
        mean, logvar = features.float().chunk(2, dim=1)
        logvar = logvar.clamp(-1.5 * _LOGVAR_MAX, _LOGVAR_MAX)
        kl = (mean.square() + logvar.exp() - 1 - logvar).flatten(1).mean(1) / 2
        if not self.training:
            passed = self.rounded(mean)
            return Passed(passed.z, self.kl_weight * kl, {"kl": kl.mean(), **passed.scalars})
        z = mean + (logvar / 2).exp() * normal(mean.shape, generator, mean.device)
        return Passed(z, self.kl_weight * kl + self.learned_of(mean, generator), {"kl": kl.mean()})

    def mean(self, features: Tensor) -> Tensor:
        return features.float().chunk(2, dim=1)[0]
