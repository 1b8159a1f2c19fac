"""Recipe `cdc`: a transform coder and its diffusion decoder, trained in stages (Yang & Mandt 2023)."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError, OutputExists
from difflate.models.diffusion_decoder import DecoderConfig, DiffusionDecoder
from difflate.models.transform_coder import TransformModel
from difflate.nn.unet import UNetConfig, multiply_adds, parameters
from difflate.store.config import CONFIG
from difflate.store.fingerprint import fingerprint
from difflate.store.folders import FolderModel
from difflate.store.hub import model_folder
from difflate.train import checkpoint, perceptual_loss
from difflate.train.cards import card_of
from difflate.train.checkpoint import Progress
from difflate.train.config import plain_settings, write_settings
from difflate.train.decoder_task import DecoderTask
from difflate.train.lock import BeingTrained
from difflate.train.loop import train
from difflate.train.output import CHECKPOINTS
from difflate.train.recipe import Data, Recipe, crops_of, first_images
from difflate.train.recipes.hyperprior import CoderSettings, RateDistortion
from difflate.train.settings import ImageSettings, check_crop
from difflate.train.stages import KINDS, CoderStage, DiffusionStage, Stage, check_names
from difflate.train.start import take_weights

STAGES = "stages"
"""Folder in `out` that has one for each stage."""
_PICTURES = 4
_COST_PX = (512, 768)


@dataclass(frozen=True)
class CdcTraining(ImageSettings):
    """Settings of the recipe `cdc`."""

    coder: CoderSettings = field(default_factory=CoderSettings)
    coder_from: str | None = None
    """Folder or name of a model of the recipe `hyperprior`, of the shape of `coder`, whose weights the coder takes."""
    init_from: str | None = None
    """Folder or name of a model of this recipe, of the same shape, whose weights all networks start from."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    network: UNetConfig = field(default_factory=UNetConfig)
    """cond_channels, vector_channels and noise_scale follow from the rest."""
    process: ProcessConfig = field(default_factory=ProcessConfig)
    stages: list[Stage] = field(default_factory=list, metadata={"kinds": KINDS})
    """What is trained, one after the other, each from the averaged weights of the one before; its kind is coder or
    diffusion. On the command line one is named: stages.diffusion.training.lr=1e-4, or stages.diffusion=null."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stages:
            raise ConfigError("stages is empty; there is nothing to train")
        check_names(self.stages)
        for stage in self.stages:
            if isinstance(stage, DiffusionStage):
                check_crop(stage.crop_px, self.coder.transform.stride_px, f"stages.{stage.name}: crop_px")
        if self.coder_from is not None and self.init_from is not None:
            raise ConfigError("coder_from and init_from are both set; the weights of the one would replace the other's")
        trained = any(isinstance(stage, CoderStage) or stage.joint for stage in self.stages)
        if not trained and self.coder_from is None and self.init_from is None:
            raise ConfigError(
                "the coder is not trained; name the folder of one with coder_from=FOLDER, or add a stage of the kind "
                "coder"
            )
        with torch.device("meta"):
            build_model(self)  # what does not fit together is said here


def cost(settings: CdcTraining) -> str:
    """What the networks of ``settings`` take, in one line; nothing of it is allocated."""
    with torch.device("meta"):
        model = build_model(settings)
    height, width = _COST_PX
    work = multiply_adds(model.network, height, width)
    return (
        f"{parameters(model.coder) / 1e6:.1f} million parameters of the coder, {parameters(model.context) / 1e6:.2f} "
        f"of the context decoder and {parameters(model.unet) / 1e6:.1f} of the U-Net; {work / 1e9:.1f} billion "
        f"multiply-adds of the U-Net a step for {width}x{height}"
    )


def build_model(settings: CdcTraining) -> DiffusionDecoder:
    """The model, untrained. Raises ConfigError for settings that do not fit."""
    coder = settings.coder
    return DiffusionDecoder(
        coder.transform, coder.hyperprior, coder.lmbda_min, coder.lmbda_max,
        settings.decoder, settings.network, settings.process,
    )  # fmt: skip


def _start(model: DiffusionDecoder, settings: CdcTraining) -> FolderModel | None:
    """Puts the weights into ``model`` that the training starts from; the part of it that has them, or None."""
    if settings.coder_from is not None:
        _take_coder(model, settings.coder_from)
        return model.coder
    if settings.init_from is not None:
        folder, source = take_weights(model, settings.init_from, "init_from")
        _check_shape(source.coder, model.coder, folder)
        model.coder.keep_exact(source.coder)
        return model
    return None


def _take_coder(model: DiffusionDecoder, name: str) -> None:
    """The weights of the folder ``name`` for the coder of ``model``."""
    folder = model_folder(name)
    if folder is None:
        raise ConfigError(f"coder_from (={name}): no such folder; name the folder of a model of recipe hyperprior")
    source = TransformModel.from_pretrained(folder)
    _check_shape(source, model.coder, folder)
    model.coder.load_state_dict(source.state_dict())
    model.coder.keep_exact(source)  # files of the one are then files of the other, on any machine


def _check_shape(source: TransformModel, ours: TransformModel, name: object) -> None:
    """Raises ConfigError for a coder of other settings than those of `coder`."""
    theirs = source.config_dict()
    for key, value in ours.config_dict().items():
        if theirs[key] != value and _plain(theirs[key]) != _plain(value):
            raise ConfigError(f"coder.{key} (={value}) is {theirs[key]} in {name}; give it that value")


def _plain(value: Any) -> Any:
    """Tuples as lists, as config.json has them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()} if isinstance(value, dict) else value


def _train(settings: CdcTraining, command: str, progress: bool) -> Path:
    """Each stage is a training with checkpoints and a model folder of its own; what is finished is not repeated. Raises
    OutputExists only if all stages were finished before."""
    out = Path(settings.out)
    if (out / CONFIG).exists() and not (out / STAGES).exists():
        raise OutputExists(f"{out}: holds a model already; choose another folder")
    torch.manual_seed(settings.stages[0].training.seed)
    model = build_model(settings)
    start = _start(model, settings)
    for stage in settings.stages:
        if isinstance(stage, DiffusionStage) and stage.rho:
            perceptual_loss.load_lpips(stage.lpips)  # if it is missing: now, not in hours
    done: dict[str, Progress] = {}
    trained = False
    for stage in settings.stages:
        data = crops_of(settings, stage.crop_px, stage.training.seed)
        card = _card_of(model, data, command)
        task = _task(model, stage, data)
        folder = out / STAGES / stage.name
        config = _stage_config(settings, stage, start)
        own = _card_of(task.model, data, command)
        try:
            done[stage.name] = train(
                task, data.trained_on, data.held_back, folder, config=config, card=own, bar=progress, stage=stage.name
            )
            trained = True
        except BeingTrained:
            raise
        except OutputExists:
            newest = checkpoint.latest_readable(folder / CHECKPOINTS)
            if newest is None or not stage.training.resume:
                raise
            done[stage.name] = newest[1]
        start = task.model
        saved: Any = type(start).from_pretrained(folder)
        start.load_state_dict(saved.state_dict())  # the averaged weights
        model.coder.keep_exact(getattr(saved, "coder", saved))  # also where `save_dtype` has rounded them
    if int(os.environ.get("RANK", "0")) == 0:  # of the processes that `accelerate launch` started
        model.save_pretrained(out, card=_with_stages(card, done))
        write_settings(plain_settings(settings, "cdc"), out)
    if not trained:
        raise OutputExists(f"{out}: is trained already; raise max_steps or max_minutes of a stage to go on")
    return out


def _task(model: DiffusionDecoder, stage: Stage, data: Data) -> RateDistortion | DecoderTask:
    if isinstance(stage, CoderStage):
        model.coder.requires_grad_(True)
        return RateDistortion(model.coder, stage.training, stage.rate_ramp_steps, stage.bit_price)
    return DecoderTask(model, stage, first_images(data.held_back, _PICTURES))


def _stage_config(settings: CdcTraining, stage: Stage, start: FolderModel | None) -> dict[str, Any]:
    """What a checkpoint of the stage must have been made with; the weights that it starts from among it."""
    values = plain_settings(settings, "cdc")
    own = values["stages"][settings.stages.index(stage)]
    others = {"stages", "coder_from", "init_from"}
    if isinstance(stage, CoderStage):
        others |= {"decoder", "network", "process"}
    weights = {} if start is None else {k: v.cpu().numpy() for k, v in start.state_dict().items()}
    shared = {key: value for key, value in values.items() if key not in others}
    own = {key: value for key, value in own.items() if key not in ("name", "kind")}
    return {**shared, "stage": stage.name, **own, "start": fingerprint("", weights).hex()[:16] if start else ""}


def _card_of(model: FolderModel, data: Data, command: str) -> Callable[[Progress], str]:
    return card_of(model, data.sources, len(data.trained_on), len(data.held_back or ()), command)


def _with_stages(card: Callable[[Progress], str], done: dict[str, Progress]) -> str:
    *_, last = done.values()
    rows = "\n".join(f"| {name} | {p.step} | {p.seconds / 60:.0f} |" for name, p in done.items())
    return f"{card(last)}\n| stage | steps | minutes |\n|---|--:|--:|\n{rows}\n"


RECIPE = Recipe("cdc", CdcTraining, _train, cost)
