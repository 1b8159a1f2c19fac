"""Which bottleneck, and how fine."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal

from difflate.errors import ConfigError
from difflate.models.bottlenecks.base import Bottleneck
from difflate.models.bottlenecks.binary import Signs
from difflate.models.bottlenecks.finite import FiniteScalars
from difflate.models.bottlenecks.rounded import Gaussian, Normalised, RateTrained
from difflate.models.bottlenecks.vector import VectorQuantizer
from difflate.quantize.binary import MAX_BITS

_MAX_CHANNELS, _MAX_CODEWORDS = 1 << 10, 1 << 16


@dataclass(frozen=True)
class BottleneckConfig:
    """Which bottleneck, and how fine. What has no meaning for its kind is left out."""

    kind: Literal["fsq", "vq", "ae", "vae", "rounded", "lfq", "bsq"] = "fsq"
    """fsq: finite scalars (Mentzer et al. 2023). vq: one learned codebook (van den Oord et al. 2017). ae: each channel
    with mean 0 and variance 1. vae: a Gaussian that costs little (Rombach et al. 2022). rounded: numbers whose bits are
    part of the loss (Ballé et al. 2017). lfq: one bit a channel (Yu et al. 2024). bsq: the same on the unit sphere
    (Zhao et al. 2024)."""
    levels: list[int] | tuple[int, ...] = (8, 8, 8, 8, 8)
    """fsq: how many values each channel has."""
    bits: int = 18
    """lfq, bsq: channels of z, each one bit."""
    entropy_weight: float = 0.02
    """lfq, bsq: what an entropy penalty of 1 nat costs: a site should be sure of its code, and all codes be used."""
    channels: int = 16
    """vq, ae, vae, rounded: channels of z."""
    codebook_size: int = 4096
    """vq: number of codewords."""
    commitment: float = 0.25
    """vq, lfq: β, what the distance of features from their codewords costs, for vq beside that of codewords from
    features."""
    step: float = 0.25
    """ae, vae, rounded: the step of the quantizer whose integers files hold, in units of z."""
    hyperprior: int = 0
    """ae, vae, rounded: width of a network that tells how each number is distributed, whose own numbers are written
    first; 0: a table for each channel. A network pays for large latents."""
    kl_weight: float = 1e-6
    """vae: what the Kullback-Leibler divergence from N(0, 1) costs, a number of z."""
    bit_price: float = 1e-3
    """rounded: what a bit costs, a site of z."""

    def __post_init__(self) -> None:
        if self.kind not in BOTTLENECKS:
            raise ConfigError(f"`kind` (={self.kind!r}) must be one of {', '.join(BOTTLENECKS)}")
        _, own = BOTTLENECKS[self.kind]
        for field in fields(self):
            value, default = getattr(self, field.name), field.default
            if field.name not in ("kind", *own) and _plain(value) != _plain(default):
                raise ConfigError(
                    f"`{field.name}` (={value}) has no meaning for the bottleneck {self.kind}; leave it out"
                )
        for name, most in (("channels", _MAX_CHANNELS), ("codebook_size", _MAX_CODEWORDS), ("bits", MAX_BITS)):
            least = 2 if name == "codebook_size" else 1
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"`{name}` (={getattr(self, name)}) must be from {least} to {most}")
        if not 0 < self.step <= 1e3:
            raise ConfigError(f"`step` (={self.step}) must be above 0, at most 1000")
        if not 0 <= self.hyperprior <= 1 << 12:
            raise ConfigError(f"`hyperprior` (={self.hyperprior}) must be from 0 to {1 << 12}")
        for name in ("commitment", "kl_weight", "bit_price", "entropy_weight"):
            if not 0 <= getattr(self, name) <= 1e3:
                raise ConfigError(f"`{name}` (={getattr(self, name)}) must be from 0 to 1000")

    def build(self) -> Bottleneck:
        """The bottleneck. Raises ConfigError."""
        return BOTTLENECKS[self.kind][0](self)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


_STEPS = ("channels", "step", "hyperprior")

BOTTLENECKS: dict[str, tuple[Callable[[BottleneckConfig], Bottleneck], tuple[str, ...]]] = {
    "fsq": (lambda c: FiniteScalars(c.levels), ("levels",)),
    "vq": (
        lambda c: VectorQuantizer(c.codebook_size, c.channels, c.commitment),
        ("channels", "codebook_size", "commitment"),
    ),
    "ae": (lambda c: Normalised(c.channels, c.step, c.hyperprior), _STEPS),
    "vae": (lambda c: Gaussian(c.channels, c.step, c.hyperprior, c.kl_weight), (*_STEPS, "kl_weight")),
    "rounded": (lambda c: RateTrained(c.channels, c.step, c.hyperprior, c.bit_price), (*_STEPS, "bit_price")),
    "lfq": (
        lambda c: Signs(c.bits, spherical=False, entropy_weight=c.entropy_weight, commitment=c.commitment),
        ("bits", "entropy_weight", "commitment"),
    ),
    "bsq": (lambda c: Signs(c.bits, spherical=True, entropy_weight=c.entropy_weight), ("bits", "entropy_weight")),
}
"""By `BottleneckConfig.kind`: what builds it, and the settings that it has."""
