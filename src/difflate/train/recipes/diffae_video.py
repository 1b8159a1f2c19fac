"""Recipe `diffae-video`: a diffusion autoencoder of clips in stages, and the context model of its indices."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from difflate.errors import ConfigError
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder
from difflate.models.video_diffusion_autoencoder import VideoDiffusionAutoencoder
from difflate.nn.folding import FoldingConfig
from difflate.nn.unet import multiply_adds, parameters
from difflate.train.clip_context import finish_clip_indices
from difflate.train.diffae_task import DiffaeTask
from difflate.train.recipe import Data, Recipe, clips_of, first_images
from difflate.train.recipes.diffae import DiffaeTraining, start_of, train_diffae
from difflate.train.settings import ClipSettings, check_frames
from difflate.train.staged import check_out
from difflate.train.stages import CLIP_KINDS, ClipStage
from difflate.train.start import take_fitting

_PICTURES = 1
_COST_PX = (512, 768)


@dataclass(frozen=True)
class DiffaeVideoTraining(ClipSettings, DiffaeTraining):
    """Settings of the recipe `diffae-video`: those of `diffae`, and of clips."""

    folding: FoldingConfig = field(default_factory=FoldingConfig)
    init_image: str | None = None
    """Folder or name of a model of the recipe diffae, whose weights all parts of the same shape start from: what it
    knows of frames needs no clips to be learned again."""
    stages: list[ClipStage] = field(default_factory=list, metadata={"kinds": CLIP_KINDS})  # type: ignore[assignment]
    """See the recipe diffae."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for stage in self.stages:
            check_frames(stage.frames, self.folding.ratio, f"stages.{stage.name}")
        if self.init_from is not None and self.init_image is not None:
            raise ConfigError("init_from and init_image are both given; take one of them")

    def build_model(self) -> VideoDiffusionAutoencoder:
        """The model, untrained. Raises ConfigError for settings that do not fit."""
        return VideoDiffusionAutoencoder(
            self.encoder, self.bottleneck, self.folding, self.head, self.decoder, self.network, self.process
        )


class DiffaeVideoTask(DiffaeTask):
    """`DiffaeTask` of clips, which also asks that differences of frames are those of the original."""

    stage: ClipStage

    def _asked_along_time(self, x0: Tensor, images: Tensor) -> Tensor | float:
        if not self.stage.flicker:
            return 0.0
        errors = self._restored(x0) - images
        return self.stage.flicker * errors.diff(dim=2).abs().flatten(1).mean(1)


def cost(settings: DiffaeVideoTraining) -> str:
    """What the networks of ``settings`` take, in one line; nothing of it is allocated."""
    with torch.device("meta"):
        model = settings.build_model()
    height, width = (side // model.stage.stride_px for side in _COST_PX)
    coder, work = model.autoencoder, multiply_adds(model.network, height, width) / model.stage.frames
    encoder = parameters(coder.encode) + parameters(coder.compress)
    decoder = parameters(coder.decode) + parameters(coder.expand)
    return (
        f"{encoder / 1e6:.2f} million parameters of encoder and compression, {decoder / 1e6:.2f} of expansion and head "
        f"and {parameters(model.unet) / 1e6:.2f} of the U-Net; {work / 1e9:.1f} "
        f"billion multiply-adds of the U-Net a step for a frame of {_COST_PX[1]}x{_COST_PX[0]}"
    )


def _train(settings: DiffaeVideoTraining, command: str, progress: bool) -> Path:
    check_out(Path(settings.out))
    torch.manual_seed(settings.stages[0].training.seed)
    model = settings.build_model()
    start = start_of(settings, model)
    if settings.init_image is not None:
        take_fitting(model, DiffusionAutoencoder, settings.init_image, "init_image")
        start = model

    def data_of(stage: ClipStage) -> Data:
        return clips_of(settings, stage.crop_px, stage.frames, stage.training.seed)

    def task(stage: ClipStage, data: Data) -> DiffaeVideoTask:
        return DiffaeVideoTask(model, stage, first_images(data.held_back, _PICTURES))

    def finish(data: Data) -> str:
        return finish_clip_indices(
            model.autoencoder, settings, seed=settings.stages[-1].training.seed, progress=progress
        )

    return train_diffae(
        settings, "diffae-video", model, command=command, progress=progress, start=start, data_of=data_of, task=task,
        finish=finish,
    )  # fmt: skip


RECIPE = Recipe("diffae-video", DiffaeVideoTraining, _train, cost)
