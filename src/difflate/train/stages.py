"""The stages that a transform coder and its diffusion decoder are trained in, as a configuration lists them."""

from dataclasses import dataclass, field
from typing import Literal

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
        _check_stage(self)
        if self.rate_ramp_steps < 0:
            raise ConfigError(f"rate_ramp_steps (={self.rate_ramp_steps}) must be at least 0")


@dataclass(frozen=True)
class DiffusionStage:
    """A stage that trains the diffusion decoder, and the coder with it if `joint`."""

    name: str
    """What its folder and its lines in the log are called."""
    kind: Literal["diffusion"] = "diffusion"
    crop_px: int = 128
    """Side of the crops, a multiple of 16."""
    joint: bool = False
    """Train the coder as well, on the diffusion loss and the rate; otherwise it is left as it is."""
    bit_price: float = 1.0
    """joint: price of a bit as a share of the full one. The paper's models start with a very small one."""
    error: Literal["squared", "absolute"] = "squared"
    """Which errors of the network's target count."""
    one_step: bool = False
    """Train what decoding in one step runs, from noise of the decoder's `gamma`, and nothing else: a diffusion model's
    single step is a mean of all images that could be, this one's is an image. More steps than one are no use then."""
    rho: float = 0.0
    """ρ: share of the loss that is the LPIPS of the image that one step makes."""
    lpips: Nets = "vgg"
    """Network that LPIPS looks with; alex takes a tenth of the time, but is what evaluations report. [alex, vgg]: the
    mean of both, which lets through what both do not mind."""
    adversary: AdversarySettings | None = None
    """With `one_step`: a discriminator that the images of one step learn to mislead; null: none."""
    training: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        _check_stage(self)
        if not 0 <= self.rho <= 1:
            raise ConfigError(f"rho (={self.rho}) must be from 0 to 1")
        check_nets(self.lpips)
        if self.adversary is not None and not self.one_step:
            raise ConfigError("adversary needs one_step (=true): it judges what one step makes; set it to null")


Stage = CoderStage | DiffusionStage
KINDS = {"coder": CoderStage, "diffusion": DiffusionStage}


def check_names(stages: list[Stage]) -> None:
    """Raises ConfigError for names that two stages have, or that no folder and no key could have."""
    names = [stage.name for stage in stages]
    for name in names:
        if not name.replace("-", "").replace("_", "").isalnum() or name.isdigit():
            raise ConfigError(f"the stage's name (={name!r}) must be of letters, digits, - and _, and no number")
        if names.count(name) > 1:
            raise ConfigError(f"two stages have the name {name}; their folders would be one")


def _check_stage(stage: Stage) -> None:
    check_crop(stage.crop_px, 1)
    if not 0 <= stage.bit_price <= 1:
        raise ConfigError(f"bit_price (={stage.bit_price}) must be from 0 to 1")
