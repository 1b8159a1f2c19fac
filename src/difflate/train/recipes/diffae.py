"""Recipe `diffae`: a diffusion autoencoder in stages, and the context model of its indices (Rampas 2024, 3)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError
from difflate.models.bottlenecks import BottleneckConfig
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder, LatentDecoderConfig
from difflate.models.text import text_encoder
from difflate.nn.encoder_kinds import EncoderConfig, start_encoder
from difflate.nn.encoders import ConvConfig
from difflate.nn.unet import UNetConfig, multiply_adds, parameters
from difflate.train import perceptual_loss
from difflate.train.diffae_task import DiffaeTask, check_recordable
from difflate.train.index_context import ContextSettings, finish_indices
from difflate.train.recipe import Data, Recipe, crops_of, first_captions, first_images
from difflate.train.settings import ImageSettings, check_crop
from difflate.train.staged import check_out, train_stages
from difflate.train.stages import AUTOENCODING_KINDS, AutoencodingStage, check_names
from difflate.train.start import take_weights

_PICTURES = 4
_COST_PX = (512, 768)


@dataclass(frozen=True)
class DiffaeTraining(ImageSettings):
    """Settings of the recipe `diffae`."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    allow_download: bool = False
    """Fetch the encoder's pretrained weights if torchvision has not got them, else it starts with random ones; and the
    text model if it is a Hugging Face repository that is not in the cache."""
    bottleneck: BottleneckConfig = field(default_factory=BottleneckConfig)
    head: ConvConfig = field(default_factory=ConvConfig)
    """The plain decoder beside the diffusion; of the encoder's stride."""
    decoder: LatentDecoderConfig = field(default_factory=LatentDecoderConfig)
    network: UNetConfig = field(default_factory=UNetConfig)
    """cond_channels, vector_channels and noise_scale follow from the rest."""
    process: ProcessConfig = field(default_factory=ProcessConfig)
    init_from: str | None = None
    """Folder or name of a model of this recipe, of the same shape, whose weights all networks start from."""
    stages: list[AutoencodingStage] = field(default_factory=list, metadata={"kinds": AUTOENCODING_KINDS})
    """What is trained, one after the other, each from the averaged weights of the one before. On the command line one
    is named: stages.joint.training.lr=1e-4, or stages.joint=null."""
    context: ContextSettings = field(default_factory=ContextSettings)
    """Of the model by which indices are coded, fitted after the last stage."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stages:
            raise ConfigError("stages is empty; there is nothing to train")
        check_names(self.stages)
        for stage in self.stages:
            check_crop(stage.crop_px, self.encoder.stride_px, f"stages.{stage.name}: crop_px")
            check_recordable(self.decoder, stage.training, f"stages.{stage.name}.training")
        if not self.stages[0].joint and self.init_from is None:
            raise ConfigError(
                f"stages.{self.stages[0].name}: joint (=False) leaves an encoder as it is that was never trained; name "
                "a trained model with init_from=FOLDER"
            )
        if self.decoder.text and self.allow_download:
            text_encoder(self.decoder.text, allow_download=True)
        with torch.device("meta"):
            self.build_model()  # what does not fit together is said here

    def build_model(self) -> DiffusionAutoencoder:
        """The model, untrained. Raises ConfigError for settings that do not fit."""
        return DiffusionAutoencoder(self.encoder, self.bottleneck, self.head, self.decoder, self.network, self.process)


def cost(settings: DiffaeTraining) -> str:
    """What the networks of ``settings`` take, in one line; nothing of it is allocated."""
    with torch.device("meta"):
        model = settings.build_model()
    height, width = (side // model.stage.stride_px for side in _COST_PX)
    work = multiply_adds(model.network, height, width)
    return (
        f"{parameters(model.autoencoder.encode) / 1e6:.2f} million parameters of the encoder, "
        f"{parameters(model.autoencoder.decode) / 1e6:.2f} of the head and {parameters(model.unet) / 1e6:.2f} of the "
        f"U-Net; {work / 1e9:.1f} billion multiply-adds of the U-Net a step for {_COST_PX[1]}x{_COST_PX[0]}"
    )


def train_diffae(
    settings: Any,
    recipe: str,
    model: DiffusionAutoencoder,
    *,
    command: str,
    progress: bool,
    start: DiffusionAutoencoder | None,
    data_of: Callable[[Any], Data],
    task: Callable[[Any, Data], DiffaeTask],
    finish: Callable[[Data], str],
) -> Path:
    """Trains ``model`` in the stages of ``settings``, and fits its context model.

    ``start``: what has trained weights already that ``model`` has taken; None: its encoder is started.
    """
    if start is None:
        start_encoder(model.autoencoder.encode, settings.encoder, settings.allow_download)
    for stage in settings.stages:
        if stage.looks:
            perceptual_loss.load_lpips(stage.lpips)  # if it is missing: now, not in hours

    def take(saved: DiffusionAutoencoder) -> None:
        model.autoencoder.context = saved.autoencoder.context

    return train_stages(
        settings, recipe, model, start, command=command, progress=progress, task=task,
        apart=lambda stage: {"init_from", "allow_download", "context"}, take=take, finish=finish, data_of=data_of,
    )  # fmt: skip


def start_of(settings: Any, model: DiffusionAutoencoder) -> DiffusionAutoencoder | None:
    """``model`` with the weights and the context model of `init_from`; None: there are none."""
    if settings.init_from is None:
        return None
    _, source = take_weights(model, settings.init_from, "init_from")
    model.autoencoder.context = source.autoencoder.context
    return model


def _train(settings: DiffaeTraining, command: str, progress: bool) -> Path:
    check_out(Path(settings.out))
    torch.manual_seed(settings.stages[0].training.seed)
    model = settings.build_model()

    def data_of(stage: AutoencodingStage) -> Data:
        return crops_of(settings, stage.crop_px, stage.training.seed, captions=model.text is not None)

    def task(stage: AutoencodingStage, data: Data) -> DiffaeTask:
        shown = first_images(data.held_back, _PICTURES)
        return DiffaeTask(model, stage, shown, first_captions(data.held_back, _PICTURES))

    def finish(data: Data) -> str:
        return finish_indices(
            model.autoencoder, Path(settings.out).name, settings.images, settings.holdback, settings.context,
            seed=settings.stages[-1].training.seed, progress=progress,
        )  # fmt: skip

    return train_diffae(
        settings, "diffae", model, command=command, progress=progress, start=start_of(settings, model),
        data_of=data_of, task=task, finish=finish,
    )  # fmt: skip


RECIPE = Recipe("diffae", DiffaeTraining, _train, cost)
