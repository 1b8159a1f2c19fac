"""Recipe `latent`: a diffusion model in the finite latent space of a codec, continuous or categorical."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from difflate.codecs.loading import load
from difflate.data.crops import Batch
from difflate.data.latents import Latents
from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError
from difflate.generate.sampling import preview
from difflate.models.categorical_diffusion import CategoricalDiffusion, channels
from difflate.models.latent_diffusion import LatentDiffusion, LatentSpec, network_for
from difflate.models.latent_space import LatentSpace, latent_space
from difflate.nn import UNetConfig
from difflate.nn.unet import multiply_adds, parameters
from difflate.store.hub import bundled_models
from difflate.train.cards import card_of
from difflate.train.categorical import CategoricalObjective, CategoricalSettings
from difflate.train.config import resolved
from difflate.train.draws import Draws
from difflate.train.loop import train
from difflate.train.objective import diffusion_loss, mean_loss
from difflate.train.settings import LoopSettings


@dataclass(frozen=True)
class LatentTraining:
    """Settings of the recipe `latent`."""

    out: str
    """Folder that the model is written to."""
    latents: list[str] = field(default_factory=list)
    """Folders of shards that `difflate latents` has written."""
    codec: str | None = None
    """Name or folder of the codec of the latents; null: the bundled one of the name that stands in the shards."""
    holdback: int = 500
    """Images, evenly spaced among all, that are kept for validation."""
    flips: bool = True
    """Take half of the latents of mirrored images, if the shards have them."""
    model: Literal["continuous", "categorical"] = "continuous"
    """What the network predicts: the indices as numbers, or logits over each codebook."""
    network: UNetConfig = field(default_factory=UNetConfig)
    """in_channels, out_channels and noise_scale follow from the codec and the process."""
    process: ProcessConfig = field(default_factory=ProcessConfig)
    softness: float = 0.0
    """Of a continuous model: its default when images are decoded. It changes nothing of the training."""
    categorical: CategoricalSettings = field(default_factory=CategoricalSettings)
    """For the categorical model only."""
    training: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        if not self.latents:
            raise ConfigError(
                "latents is empty; name folders of shards with latents=FOLDER, as `difflate latents` writes"
            )
        if self.model == "continuous" and self.categorical != CategoricalSettings():
            raise ConfigError("categorical is set for a continuous model; leave it out, or set model=categorical")
        if self.model == "categorical" and self.softness:
            raise ConfigError("softness is set for a categorical model; leave it out, or set model=continuous")


class LatentObjective(nn.Module):
    """The diffusion loss of a `LatentDiffusion`."""

    def __init__(self, model: LatentDiffusion, batch: int, seed: int):
        super().__init__()
        self.model, self.batch, self.seed = model, batch, seed
        self.process = model.process.build()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """{"loss": ()} of a batch of latents."""
        model = self.model
        z0 = model.latent.index_space.scale(batch.pixels.to(next(self.parameters()).device, non_blocking=True).long())
        draws = Draws(self.seed, batch.numbers, self.batch)
        return mean_loss(diffusion_loss(self.process, model, z0, draws, self_conditioned=model.self_conditioned))

    def pictures(self) -> Tensor:
        """(16, 3, H, W) uint8."""
        return preview(self.model)


def cost(settings: LatentTraining) -> str:
    """What the network of ``settings`` takes, in one line; nothing of it is allocated."""
    data = Latents.open(settings.latents)
    with torch.device("meta"):
        model = _model(settings, _spec(data), data.header.image_px)
    _, height, width = model.shape((model.image_px, model.image_px))
    work = multiply_adds(model.network, height, width)
    return (
        f"{parameters(model) / 1e6:.1f} million parameters, {work / 1e9:.2f} billion multiply-adds an image of "
        f"{model.image_px}x{model.image_px} px and evaluation"
    )


def _spec(data: Latents) -> LatentSpec:
    header = data.header
    return LatentSpec(header.codec, header.fingerprint, header.codebook_sizes, header.image_px // data.shape[1])


def _space(settings: LatentTraining, data: Latents) -> LatentSpace:
    """The latent space that the shards were written with. Raises ConfigError, ModelError for another."""
    name = data.header.codec
    if settings.codec is None and name not in bundled_models("codec"):
        raise ConfigError(f"the latents are of {name}, which is not bundled; name its folder with codec=FOLDER")
    space = latent_space(load(settings.codec or name))
    _spec(data).check(space)
    return space


def _model(settings: LatentTraining, spec: LatentSpec, image_px: int) -> LatentDiffusion | CategoricalDiffusion:
    if settings.model == "continuous":
        planes = len(spec.codebook_sizes)
        network = network_for(settings.network, settings.process, planes, planes)
        return LatentDiffusion(spec, network, settings.process, image_px, settings.softness)
    own = settings.categorical
    network = network_for(settings.network, settings.process, *channels(spec, own.self_condition))
    return CategoricalDiffusion(spec, network, settings.process, image_px, own.self_condition, own.temperature)


def run(settings: LatentTraining, command: str, progress: bool) -> Path:
    """Trains, writes the model folder and returns it. ``command`` goes into the model card."""
    loop = settings.training
    data = Latents.open(settings.latents, flips=settings.flips, seed=loop.seed)
    space = _space(settings, data)
    trained_on, held_back = data.hold_back(settings.holdback)
    torch.manual_seed(loop.seed)
    model = _model(settings, LatentSpec.of(space), data.header.image_px)
    model.use_codec(space)
    objective: nn.Module
    if isinstance(model, CategoricalDiffusion):
        objective = CategoricalObjective(model, settings.categorical, loop.batch, loop.seed)
    else:
        objective = LatentObjective(model, loop.batch, loop.seed)
    train(
        objective,
        trained_on,
        held_back,
        loop,
        Path(settings.out),
        config=resolved(settings, "latent"),
        card=card_of(model, settings.latents, len(trained_on), len(held_back or ()), command),
        bar=progress,
    )
    return Path(settings.out)
