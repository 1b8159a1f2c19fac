"""What generators of pixels and of latents share: a network, a process, and images of one size."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from difflate.diffusion import Generators, Model, ProcessConfig
from difflate.errors import ConfigError
from difflate.nn import UNetConfig
from difflate.store.folders import FolderModel

MAX_IMAGE_PX = 4096
MAX_STEPS = 1000


class Generator(FolderModel, ABC):
    """A model that `difflate.generate.sample` draws images from."""

    network: UNetConfig
    process: ProcessConfig
    image_px: int
    """Side of the images that the model was trained on."""
    sampler: str = "dpmpp_2m"
    """Name of the sampler that is taken unless another is asked for."""
    steps: int = 30
    """Steps of the sampler, unless others are asked for; a model that was distilled has few."""

    @property
    def self_conditioned(self) -> bool:
        """The network takes its last x0."""
        return self.network.self_condition

    @abstractmethod
    def shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """(C, h, w) of what the diffusion runs on, for images of ``size`` (height, width) in px. Raises ConfigError."""

    @abstractmethod
    def denoiser(
        self, labels: Tensor | None, guidance: float, temperature: float | None, generators: Generators
    ) -> Model:
        """The model for a sampler. ``labels``: (B,) int64. Raises ConfigError for an option that it does not have."""

    @abstractmethod
    def images(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 of ``x``, what the sampler has made."""

    def labels_of(self, names: Sequence[str], count: int) -> Tensor | None:
        """(count,) int64: the classes ``names`` in turn, all in turn if there are none. Raises ConfigError."""
        for name in names:
            raise ConfigError(f"class (={name}) is unknown; this model knows no classes")
        return None


def check_size(size: tuple[int, int], multiple: int = 1) -> None:
    """Raises ConfigError for a (height, width) that no such model makes."""
    for side in size:
        if not 1 <= side <= MAX_IMAGE_PX or side % multiple:
            what = f", in steps of {multiple}" if multiple > 1 else ""
            raise ConfigError(
                f"size (={size[1]}x{size[0]}) cannot be made; sides must be from {multiple} to {MAX_IMAGE_PX}{what}"
            )


def check_steps(steps: int) -> None:
    """Raises ConfigError for a number of steps that no sampler takes."""
    if type(steps) is not int or not 1 <= steps <= MAX_STEPS:
        raise ConfigError(f"steps (={steps}) must be from 1 to {MAX_STEPS}")


def check_no_temperature(temperature: float | None) -> None:
    """Raises ConfigError for any temperature but None."""
    if temperature is not None:
        raise ConfigError(
            f"temperature (={temperature:g}) has a meaning for categorical models only; this one has none: leave it out"
        )


def check_no_guidance(guidance: float) -> None:
    """Raises ConfigError for any guidance but 1."""
    if guidance != 1:
        raise ConfigError(f"guidance (={guidance:g}) needs a model with classes; this one has none: leave it out")
