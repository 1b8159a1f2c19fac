"""A diffusion model of images of one size, in pixels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from difflate.diffusion import Generators, Model, ProcessConfig, guided
from difflate.errors import ConfigError
from difflate.models.generator import (
    MAX_IMAGE_PX,
    Generator,
    check_no_guidance,
    check_no_temperature,
    check_size,
    check_steps,
)
from difflate.nn import UNet, UNetConfig
from difflate.nn.colour import signed_to_uint8


def check_image_px(image_px: int) -> None:
    """Raises ConfigError for a side that no such model has."""
    if not 1 <= image_px <= MAX_IMAGE_PX:
        raise ConfigError(f"`image_px` (={image_px}) must be from 1 to {MAX_IMAGE_PX}")


class PixelDiffusion(Generator):
    """Network and process; `difflate.generate.sample` draws images of (3, image_px, image_px) from it."""

    kind = "pixel-diffusion"

    def __init__(
        self,
        network: UNetConfig,
        process: ProcessConfig,
        image_px: int,
        classes: list[str] | None = None,
        steps: int = Generator.steps,
    ) -> None:
        """``classes``: names of what the network is told to make, `vector_channels` of it; None: it is told nothing.
        ``steps``: of sampling, unless others are asked for.

        Raises ConfigError.
        """
        super().__init__()
        check_image_px(image_px)
        check_steps(steps)
        if (network.in_channels, network.out_channels) != (3, 3) or any(network.cond_channels or ()):
            raise ConfigError(
                "`in_channels` and `out_channels` must be 3, and `cond_channels` 0: pixels are all it sees"
            )
        if network.vector_channels != len(classes or ()):
            raise ConfigError(
                f"`vector_channels` (={network.vector_channels}) must be the number of classes (={len(classes or ())})"
            )
        self.network, self.process, self.image_px, self.classes = network, process, image_px, classes
        self.steps = steps
        self.unet = UNet(network)

    def shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        check_size(size)
        return 3, *size

    def images(self, x: Tensor) -> Tensor:
        return signed_to_uint8(x)

    def forward(
        self, x: Tensor, condition: Tensor, x0_prev: Tensor | None = None, *, labels: Tensor | None = None
    ) -> Tensor:
        """The target: (B, 3, H, W) for ``x: (B, 3, H, W)``, the noise ``condition: (B,)`` and ``labels: (B,)`` int64.

        A label of -1, or none, is no class.
        """
        return self.unet(x, condition, x0_prev, vector=self.vector_of(labels, x))

    def vector_of(self, labels: Tensor | None, x: Tensor) -> Tensor | None:
        """(B, `vector_channels`) what the network is told of ``labels``, as ``x: (B, …)``; None: it has no classes."""
        count = len(self.classes or ())
        if not count:
            return None
        if labels is None:
            return x.new_zeros(len(x), count)
        return F.one_hot(labels.to(x.device) + 1, count + 1)[:, 1:].to(x.dtype)

    def denoiser(
        self,
        labels: Tensor | None = None,
        guidance: float = 1.0,
        temperature: float | None = None,
        generators: Generators = None,
    ) -> Model:
        """The model for ``labels: (B,)`` int64, guided away from the one without a class (Ho & Salimans 2022).

        Raises ConfigError for guidance of a network that knows no classes, and for any temperature.
        """
        check_no_temperature(temperature)
        if not self.classes:
            check_no_guidance(guidance)
            return self

        def conditional(x: Tensor, condition: Tensor, *extra: Tensor) -> Tensor:
            return self(x, condition, *extra, labels=labels)

        return guided(conditional, self, guidance)

    def labels_of(self, names: Sequence[str], count: int) -> Tensor | None:
        """(count,) int64: ``names`` in turn, or all classes in turn if there are none. Raises ConfigError."""
        known = self.classes or []
        for name in names:
            if name not in known:
                raise ConfigError(f"class (={name}) is unknown; this model knows {', '.join(known) or 'no classes'}")
        if not known:
            return None
        chosen = [known.index(name) for name in names] or range(len(known))
        return torch.tensor([chosen[i % len(chosen)] for i in range(count)])
