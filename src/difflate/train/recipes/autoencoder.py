"""Recipe `autoencoder`: an encoder, a bottleneck and a plain decoder. Its bottleneck and losses make it an AE, a VAE, a
VQ-VAE or a VQGAN; with a stride of 4 it is what latent diffusion calls a first stage."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from difflate.errors import ConfigError
from difflate.models.autoencoder import Autoencoder
from difflate.models.bottlenecks import BottleneckConfig
from difflate.nn.encoder_kinds import EncoderConfig, start_encoder
from difflate.nn.encoders import ConvConfig
from difflate.nn.unet import parameters
from difflate.train import perceptual_loss
from difflate.train.autoencoder_task import AutoencoderTask, ReconstructionStage
from difflate.train.index_context import ContextSettings, finish_indices
from difflate.train.recipe import Data, Recipe, first_images
from difflate.train.settings import ImageSettings, check_crop
from difflate.train.staged import check_out, train_stages
from difflate.train.stages import check_names
from difflate.train.start import take_weights

_PICTURES = 8


@dataclass(frozen=True)
class AutoencoderTraining(ImageSettings):
    """Settings of the recipe `autoencoder`."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    allow_download: bool = False
    """Fetch the encoder's pretrained weights if torchvision has not got them; else it starts with random ones."""
    bottleneck: BottleneckConfig = field(default_factory=BottleneckConfig)
    decoder: ConvConfig = field(default_factory=ConvConfig)
    """Of the encoder's stride."""
    init_from: str | None = None
    """Folder or name of a model of this recipe, of the same shape, whose weights all networks start from."""
    stages: list[ReconstructionStage] = field(
        default_factory=list, metadata={"kinds": {"reconstruction": ReconstructionStage}}
    )
    """What is trained, one after the other, each from the averaged weights of the one before. On the command line one
    is named: stages.main.training.lr=1e-4, or stages.main=null."""
    context: ContextSettings = field(default_factory=ContextSettings)
    """Of the model by which indices are coded, fitted after the last stage."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stages:
            raise ConfigError("stages is empty; there is nothing to train")
        check_names(self.stages)
        with torch.device("meta"):
            model = self.build_model()  # what does not fit together is said here
        for stage in self.stages:
            check_crop(stage.crop_px, model.stride_px, f"stages.{stage.name}: crop_px")
        if model.between.sizes is not None or self.context == ContextSettings():
            return
        raise ConfigError(
            f"context is set for the bottleneck {self.bottleneck.kind}, which has no indices; leave it out"
        )

    def build_model(self) -> Autoencoder:
        """The model, untrained. Raises ConfigError for settings that do not fit."""
        return Autoencoder(self.encoder, self.bottleneck, self.decoder)


def cost(settings: AutoencoderTraining) -> str:
    """What the networks of ``settings`` take, in one line; nothing of it is allocated."""
    with torch.device("meta"):
        model = settings.build_model()
    encoder, bottleneck, decoder = (parameters(part) / 1e6 for part in (model.encode, model.between, model.decode))
    return (
        f"{encoder:.2f} million parameters of the encoder, {bottleneck:.3f} of the bottleneck and {decoder:.2f} of the "
        f"decoder; a site every {model.stride_px} px"
    )


def train_autoencoder(
    settings: Any,
    recipe: str,
    model: Autoencoder,
    *,
    command: str,
    progress: bool,
    shown: int,
    finish: Callable[[], str],
    data_of: Callable[[Any], Data] | None = None,
) -> Path:
    """Trains ``model`` in the stages of ``settings``, and calls ``finish``, which fits its context model.

    ``shown``: how many images, or clips, pictures are of. ``data_of``: see `train_stages`.
    """
    start = None
    if settings.init_from is not None:
        take_weights(model, settings.init_from, "init_from")
        start = model
    else:
        start_encoder(model.encode, settings.encoder, settings.allow_download)
    for stage in settings.stages:
        if stage.perceptual:
            perceptual_loss.load_lpips(stage.lpips)  # if it is missing: now, not in hours

    def task(stage: ReconstructionStage, data: Data) -> AutoencoderTask:
        return AutoencoderTask(model, stage, first_images(data.held_back, shown))

    def take(saved: Autoencoder) -> None:
        if model.between.exact is not None and saved.between.exact is not None:
            model.between.exact.keep(saved.between.exact)  # also where `save_dtype` has rounded the weights

    return train_stages(
        settings, recipe, model, start, command=command, progress=progress, task=task,
        apart=lambda stage: {"init_from", "allow_download", "context"}, take=take, finish=lambda data: finish(),
        data_of=data_of,
    )  # fmt: skip


def _train(settings: AutoencoderTraining, command: str, progress: bool) -> Path:
    check_out(Path(settings.out))
    torch.manual_seed(settings.stages[0].training.seed)
    model = settings.build_model()

    def finish() -> str:
        return finish_indices(
            model, Path(settings.out).name, settings.images, settings.holdback, settings.context,
            seed=settings.stages[-1].training.seed, progress=progress,
        )  # fmt: skip

    return train_autoencoder(
        settings, "autoencoder", model, command=command, progress=progress, shown=_PICTURES, finish=finish
    )


RECIPE = Recipe("autoencoder", AutoencoderTraining, _train, cost)
