"""Recipe `latent`: a diffusion model in the finite latent space of a codec, continuous or categorical."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from difflate.codecs.loading import load
from difflate.data.crops import Batch
from difflate.data.latents import Latents
from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError
from difflate.models.categorical_diffusion import CategoricalDiffusion, channels
from difflate.models.latent_diffusion import LatentDiffusion, LatentSpec, network_for
from difflate.models.latent_space import LatentSpace, latent_space
from difflate.nn import UNetConfig
from difflate.nn.unet import multiply_adds, parameters
from difflate.store.hub import bundled_models
from difflate.train.categorical import CategoricalSettings, CategoricalTask
from difflate.train.diffusion_loss import GeneratorTask, diffusion_loss
from difflate.train.draws import Draws
from difflate.train.recipe import Data, loop_recipe
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
    """Softness that a continuous model decodes with by default; it changes nothing of the training."""
    categorical: CategoricalSettings = field(default_factory=CategoricalSettings)
    """Settings of the categorical model only."""
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


class LatentTask(GeneratorTask):
    """The diffusion loss of a `LatentDiffusion`."""

    model: LatentDiffusion

    def loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """{"loss": ()} of a batch of latents."""
        model = self.model
        z0 = model.latent.index_space.scale(batch.pixels.to(self.device, non_blocking=True).long())
        losses = diffusion_loss(self.process, model, z0, draws, self_conditioned=model.self_conditioned)
        return {"loss": losses.mean()}


def cost(settings: LatentTraining) -> str:
    """What the network of ``settings`` takes, in one line; nothing of it is allocated."""
    data = Latents.open(settings.latents)
    spec = spec_of(data)
    with torch.device("meta"):
        model = _model(settings, spec, data.header.image_px)
    _, height, width = model.shape((model.image_px, model.image_px))
    work = multiply_adds(model.network, height, width)
    return (
        f"{parameters(model) / 1e6:.1f} million parameters, {work / 1e9:.2f} billion multiply-adds an image of "
        f"{model.image_px}x{model.image_px} px and evaluation"
    )


def spec_of(data: Latents) -> LatentSpec:
    """The latent space that shards are of."""
    header = data.header
    return LatentSpec(header.codec, header.fingerprint, header.codebook_sizes, header.image_px // data.shape[1])


def space_of(codec: str | None, data: Latents) -> LatentSpace:
    """The latent space of ``codec``, which the shards were written with; None: the bundled one of their name.

    Raises ConfigError, ModelError for another.
    """
    name = data.header.codec
    if codec is None and name not in bundled_models("codec"):
        raise ConfigError(f"the latents are of {name}, which is not bundled; name its folder with codec=FOLDER")
    space = latent_space(load(codec or name))
    spec_of(data).check(space)
    return space


def _model(settings: LatentTraining, spec: LatentSpec, image_px: int) -> LatentDiffusion | CategoricalDiffusion:
    if settings.model == "continuous":
        planes = len(spec.codebook_sizes)
        network = network_for(settings.network, settings.process, planes, planes)
        return LatentDiffusion(spec, network, settings.process, image_px, settings.softness)
    own = settings.categorical
    network = network_for(settings.network, settings.process, *channels(spec, own.self_condition))
    return CategoricalDiffusion(spec, network, settings.process, image_px, own.self_condition, own.temperature)


@dataclass(frozen=True)
class LatentData(Data):
    """Latents and the space that they are of."""

    space: LatentSpace
    image_px: int


def _data(settings: LatentTraining) -> LatentData:
    data = Latents.open(settings.latents, flips=settings.flips, seed=settings.training.seed)
    space = space_of(settings.codec, data)
    return LatentData(*data.hold_back(settings.holdback), settings.latents, space, data.header.image_px)


def _task(settings: LatentTraining, data: LatentData) -> GeneratorTask:
    model = _model(settings, LatentSpec.of(data.space), data.image_px)
    model.use_codec(data.space)
    if isinstance(model, CategoricalDiffusion):
        return CategoricalTask(model, settings.training, settings.categorical)
    return LatentTask(model, settings.training)


RECIPE = loop_recipe("latent", LatentTraining, data=_data, task=_task, cost=cost)
