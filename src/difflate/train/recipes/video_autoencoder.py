"""Recipe `video-autoencoder`: an autoencoder of clips, which makes one latent frame of several. At a stride of 4 and
two frames it is the first stage of Rampas 2024, 3.4.1."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from difflate.models.video_autoencoder import VideoAutoencoder
from difflate.nn.folding import FoldingConfig
from difflate.nn.unet import parameters
from difflate.train.autoencoder_task import ClipReconstructionStage
from difflate.train.clip_context import finish_clip_indices
from difflate.train.recipe import Data, Recipe, clips_of
from difflate.train.recipes.autoencoder import AutoencoderTraining, train_autoencoder
from difflate.train.settings import ClipSettings, check_frames
from difflate.train.staged import check_out

_PICTURES = 1


@dataclass(frozen=True)
class VideoAutoencoderTraining(ClipSettings, AutoencoderTraining):
    """Settings of the recipe `video-autoencoder`: those of `autoencoder`, and of clips."""

    folding: FoldingConfig = field(default_factory=FoldingConfig)
    stages: list[ClipReconstructionStage] = field(  # type: ignore[assignment]
        default_factory=list, metadata={"kinds": {"reconstruction": ClipReconstructionStage}}
    )
    """See the recipe autoencoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for stage in self.stages:
            check_frames(stage.frames, self.folding.ratio, f"stages.{stage.name}")

    def build_model(self) -> VideoAutoencoder:
        """The model, untrained. Raises ConfigError for settings that do not fit."""
        return VideoAutoencoder(self.encoder, self.bottleneck, self.decoder, self.folding)


def cost(settings: VideoAutoencoderTraining) -> str:
    """What the networks of ``settings`` take, in one line; nothing of it is allocated."""
    with torch.device("meta"):
        model = settings.build_model()
    encoder = parameters(model.encode) + parameters(model.compress)
    decoder = parameters(model.decode) + parameters(model.expand)
    return (
        f"{encoder / 1e6:.2f} million parameters of encoder and compression, {parameters(model.between) / 1e6:.3f} of "
        f"the bottleneck and {decoder / 1e6:.2f} of expansion and decoder; a site every {model.stride_px} px, for "
        f"{model.folding.ratio} frames"
    )


def _train(settings: VideoAutoencoderTraining, command: str, progress: bool) -> Path:
    check_out(Path(settings.out))
    torch.manual_seed(settings.stages[0].training.seed)
    model = settings.build_model()

    def data_of(stage: ClipReconstructionStage) -> Data:
        return clips_of(settings, stage.crop_px, stage.frames, stage.training.seed)

    def finish() -> str:
        return finish_clip_indices(model, settings, seed=settings.stages[-1].training.seed, progress=progress)

    return train_autoencoder(
        settings, "video-autoencoder", model, command=command, progress=progress, shown=_PICTURES, finish=finish,
        data_of=data_of,
    )  # fmt: skip


RECIPE = Recipe("video-autoencoder", VideoAutoencoderTraining, _train, cost)
