"""The stages that models with several parts are trained in, as a configuration lists them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from difflate.errors import ConfigError
from difflate.train.adversary import AdversarySettings
from difflate.train.perceptual_loss import Nets, check_nets
from difflate.train.settings import LoopSettings, check_crop


@dataclass(frozen=True)
class CoderStage:
    """A stage that trains the transform coder alone, on R + λ·D."""

    name: str
    """What its folder and its lines in the log are called."""
    kind: Literal["coder"] = "coder"
    crop_px: int = 128
    """Side of the crops."""
    bit_price: float = 1.0
    """Price of a bit as a share of the full one; small in a warm-up, where the transforms learn to restore images."""
    rate_ramp_steps: int = 0
    """Steps over which the price rises to `bit_price` from a hundredth of it."""
    training: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        check_crop(self.crop_px, 1)
        _check_price(self.bit_price)
        if self.rate_ramp_steps < 0:
            raise ConfigError(f"rate_ramp_steps (={self.rate_ramp_steps}) must be at least 0")


@dataclass(frozen=True)
class DecodingStage:
    """What all stages have that train a model to decode by diffusion."""

    name: str
    """What its folder and its lines in the log are called."""
    crop_px: int = 128
    """Side of the crops, a multiple of the latent's stride."""
    error: Literal["squared", "absolute"] = "squared"
    """Which errors of the network's target count."""
    one_step: bool = False
    """Train what decoding in one step runs, from noise, and nothing else: a diffusion model's single step is a mean of
    all images that could be, this one's is an image. More steps than one are no use then."""
    rho: float = 0.0
    """ρ: share of the loss that is the LPIPS of the image that one step makes."""
    lpips: Nets = "vgg"
    """Network that LPIPS looks with; alex takes a tenth of the time, but is what evaluations report. [alex, vgg]: the
    mean of both, which lets through what both do not mind."""
    adversary: AdversarySettings | None = None
    """With `one_step`: a discriminator that the images of one step learn to mislead; null: none."""
    training: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        check_crop(self.crop_px, 1)
        if not 0 <= self.rho <= 1:
            raise ConfigError(f"rho (={self.rho}) must be from 0 to 1")
        check_nets(self.lpips)
        if self.adversary is not None and not self.one_step:
            raise ConfigError("adversary needs one_step (=true): it judges what one step makes; set it to null")


@dataclass(frozen=True)
class DiffusionStage(DecodingStage):
    """A stage that trains the diffusion decoder of a transform coder, and the coder with it if `joint`."""

    kind: Literal["diffusion"] = "diffusion"
    joint: bool = False
    """Train the coder as well, on the diffusion loss and the rate; otherwise it is left as it is."""
    bit_price: float = 1.0
    """joint: price of a bit as a share of the full one. The paper's models start with a very small one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_price(self.bit_price)


@dataclass(frozen=True)
class AutoencodingStage(DecodingStage):
    """A stage that trains a diffusion autoencoder: its U-Net, and if `joint` encoder, bottleneck and head with it."""

    kind: Literal["diffusion"] = "diffusion"
    joint: bool = True
    """Train encoder, bottleneck and head as well; otherwise they are left as they are."""
    head: float = 1.0
    """joint: what the error of the head's image counts, beside the loss of the diffusion."""
    head_rho: float = 0.0
    """joint: share of the head's loss that is LPIPS."""
    least_input: float = 1.0
    """The encoder sees images at a random size from this share of theirs on: one model for several strides."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.head >= 0:
            raise ConfigError(f"head (={self.head}) must be at least 0")
        if not 0 <= self.head_rho <= 1:
            raise ConfigError(f"head_rho (={self.head_rho}) must be from 0 to 1")
        if not 0.25 <= self.least_input <= 1:
            raise ConfigError(f"least_input (={self.least_input}) must be from 0.25 to 1")
        if self.least_input < 1 and self.training.cuda_graph:
            raise ConfigError(
                f"cuda_graph (=true) cannot record inputs of random sizes, least_input (={self.least_input}); "
                "set it to false, or least_input to 1"
            )

    @property
    def looks(self) -> bool:
        """Whether LPIPS is needed."""
        return self.rho > 0 or self.joint * self.head * self.head_rho > 0


@dataclass(frozen=True)
class ClipStage(AutoencodingStage):
    """A stage that trains a diffusion autoencoder of clips."""

    frames: int = 8
    """Of a clip, a multiple of folding.ratio."""
    flicker: float = 0.0
    """What the absolute errors of the differences of neighbouring frames count: what flickers is seen where nothing
    moves."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames < 1:
            raise ConfigError(f"frames (={self.frames}) must be at least 1")
        if not 0 <= self.flicker <= 100:
            raise ConfigError(f"flicker (={self.flicker}) must be from 0 to 100")


Stage = CoderStage | DiffusionStage
KINDS = {"coder": CoderStage, "diffusion": DiffusionStage}
"""Of the recipe cdc."""
AUTOENCODING_KINDS = {"diffusion": AutoencodingStage}
"""Of the recipe diffae."""
CLIP_KINDS = {"diffusion": ClipStage}
"""Of the recipe diffae-video."""


class AnyStage(Protocol):
    """What a stage of any recipe has."""

    @property
    def name(self) -> str: ...
    @property
    def crop_px(self) -> int: ...
    @property
    def training(self) -> LoopSettings: ...


def check_names(stages: Sequence[AnyStage]) -> None:
    """Raises ConfigError for names that two stages have, or that no folder and no key could have."""
    names = [stage.name for stage in stages]
    for name in names:
        if not name.replace("-", "").replace("_", "").isalnum() or name.isdigit():
            raise ConfigError(f"the stage's name (={name!r}) must be of letters, digits, - and _, and no number")
        if names.count(name) > 1:
            raise ConfigError(f"two stages have the name {name}; their folders would be one")


def _check_price(bit_price: float) -> None:
    if not 0 <= bit_price <= 1:
        raise ConfigError(f"bit_price (={bit_price}) must be from 0 to 1")
