"""Recipe `cdc`: a transform coder and its diffusion decoder, trained in stages (Yang & Mandt 2023)."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from difflate.data.crops import Batch, Crops
from difflate.data.items import hold_back, list_items
from difflate.diffusion import ProcessConfig, normal
from difflate.errors import ConfigError, OutputExists
from difflate.models.diffusion_decoder import PRESETS, Conditions, DecoderConfig, DiffusionDecoder
from difflate.models.transform_coder import TransformModel
from difflate.nn.colour import signed_to_uint8
from difflate.nn.entropy_network import Coded, HyperpriorConfig
from difflate.nn.transforms import TransformConfig
from difflate.nn.unet import UNetConfig, multiply_adds, parameters
from difflate.seeds import torch_generator
from difflate.store.config import CONFIG
from difflate.store.fingerprint import fingerprint
from difflate.store.folders import FolderModel
from difflate.store.hub import model_folder
from difflate.train import checkpoint
from difflate.train.cards import card_of
from difflate.train.checkpoint import Progress
from difflate.train.config import resolved, write_settings
from difflate.train.draws import Draws
from difflate.train.loop import CHECKPOINTS, train
from difflate.train.objective import denoised
from difflate.train.recipes.hyperprior import RateDistortion
from difflate.train.settings import LoopSettings

STAGES = "stages"
"""Folder in `out` that has one for each stage."""
_PICTURES, _PICTURE_STEPS, _PICTURE_NOISE = 4, 4, 4
_COST_PX = (512, 768)


@dataclass(frozen=True)
class CoderSettings:
    """The transform coder."""

    transform: TransformConfig = field(default_factory=TransformConfig)
    hyperprior: HyperpriorConfig | None = field(default_factory=HyperpriorConfig)
    """null: a plain factorized prior, which has one rate: lmbda_min must be lmbda_max."""
    lmbda_min: float = 0.0006
    """λ of quality 0: what a squared error of one 8-bit level costs in bits per pixel."""
    lmbda_max: float = 0.08
    """λ of quality 100."""


@dataclass(frozen=True)
class CoderStage:
    """A stage that trains the transform coder alone, on R + λ·D."""

    crop_px: int = 128
    """Side of the crops."""
    bit_price: float = 1.0
    """Of the full price of a bit; small in a warm-up, where the transforms learn to restore images at all."""
    rate_ramp_steps: int = 0
    """Steps over which the price rises to `bit_price` from a hundredth of it."""
    training: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        _check_stage(self.crop_px, 1, self.bit_price)
        if self.rate_ramp_steps < 0:
            raise ConfigError(f"rate_ramp_steps (={self.rate_ramp_steps}) must be at least 0")


@dataclass(frozen=True)
class DiffusionStage:
    """A stage that trains the diffusion decoder, and the coder with it if `joint`."""

    crop_px: int = 128
    """Side of the crops, a multiple of 16."""
    joint: bool = False
    """Train the coder as well, on the diffusion loss and the rate; otherwise it is left as it is."""
    bit_price: float = 1.0
    """joint: of the full price of a bit. The paper's models start with a very small one."""
    error: Literal["squared", "absolute"] = "squared"
    """Of the network's target."""
    rho: float = 0.0
    """ρ: share of the loss that is the LPIPS of the image found in one step."""
    lpips: Literal["alex", "vgg"] = "vgg"
    """Network that LPIPS looks with; alex takes a tenth of the time, but is what evaluations report."""
    training: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        _check_stage(self.crop_px, TransformConfig().stride_px, self.bit_price)
        if not 0 <= self.rho <= 1:
            raise ConfigError(f"rho (={self.rho}) must be from 0 to 1")


Stage = CoderStage | DiffusionStage


def _check_stage(crop_px: int, multiple: int, bit_price: float) -> None:
    if crop_px < 1 or crop_px % multiple:
        raise ConfigError(f"crop_px (={crop_px}) must be a multiple of {multiple}, above 0")
    if not 0 <= bit_price <= 1:
        raise ConfigError(f"bit_price (={bit_price}) must be from 0 to 1")


@dataclass(frozen=True)
class CdcTraining:
    """Settings of the recipe `cdc`. Stages run one after the other, each from the averaged weights of the one before;
    null: there is no such stage."""

    out: str
    """Folder that the model is written to; its folder `stages` holds what each stage has made."""
    images: list[str] = field(default_factory=list)
    """Folders of images or tar shards, tar shards, or images."""
    holdback: int = 16
    """Images, evenly spaced among all, that are kept for validation."""
    coder: CoderSettings = field(default_factory=CoderSettings)
    coder_from: str | None = None
    """Folder or name of a model of the recipe `hyperprior`, of the shape of `coder`, whose weights the coder takes."""
    decoder: DecoderConfig = field(default_factory=lambda: PRESETS["small"].decoder)
    network: UNetConfig = field(default_factory=lambda: PRESETS["small"].network)
    """By default that of the preset small. cond_channels, vector_channels and noise_scale follow from the rest."""
    process: ProcessConfig = field(default_factory=lambda: PRESETS["small"].process)
    transforms: CoderStage | None = None
    """First stage: the coder with bits that cost almost nothing."""
    hyperprior: CoderStage | None = None
    """Second stage: the coder with bits at their price."""
    diffusion: DiffusionStage | None = field(default_factory=DiffusionStage)
    """Third stage: the diffusion decoder."""
    perceptual: DiffusionStage | None = None
    """Fourth stage: the same with a `rho` above 0."""

    def __post_init__(self) -> None:
        if not self.images:
            raise ConfigError("images is empty; name folders of images with images=FOLDER")
        if not self.stages():
            raise ConfigError("transforms, hyperprior, diffusion and perceptual are null; there is nothing to train")
        trained = any(isinstance(stage, CoderStage) or stage.joint for stage in self.stages().values())
        if not trained and self.coder_from is None:
            raise ConfigError(
                "the coder is not trained; name the folder of one with coder_from=FOLDER, or add the stage hyperprior"
            )
        with torch.device("meta"):
            _model(self)  # what does not fit together is said here

    def stages(self) -> dict[str, Stage]:
        """Those that are to be run, by their names, in their order."""
        named = {name: getattr(self, name) for name in ("transforms", "hyperprior", "diffusion", "perceptual")}
        return {name: stage for name, stage in named.items() if stage is not None}


class DecoderObjective(nn.Module):
    """ρ·LPIPS + (1 - ρ)·(diffusion loss [+ λ-normalised rate]) of a `DiffusionDecoder` (Yang & Mandt 2023)."""

    def __init__(self, model: DiffusionDecoder, stage: DiffusionStage, shown: Tensor | None = None):
        """``shown``: (B, 3, H, W) float32 in [-1, 1], what `pictures` are of. Raises ConfigError: no LPIPS weights."""
        super().__init__()
        self.model, self.stage, self.shown = model, stage, shown
        coder = model.coder
        coder.requires_grad_(stage.joint)
        if not model.decoder.needs_synthesis:
            coder.synthesis.requires_grad_(False)
        # no submodule: it is neither trained nor saved
        self._lpips = (_load_lpips(stage.lpips),) if stage.rho else None

    def train(self, mode: bool = True) -> Self:
        """A frozen coder stays in evaluation mode, with rounding for noise."""
        super().train(mode)
        if not self.stage.joint:
            self.model.coder.eval()
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """{"loss": ()} and scalars of a batch: "bpp", an estimate, and PSNR of the synthesis; on held-back images also
        that of one step from zeros."""
        stage, model, loop = self.stage, self.model, self.stage.training
        images = batch.images(next(self.parameters()).device)
        draws = Draws(loop.seed, batch.numbers, loop.batch)
        level = draws.levels().to(images.device)
        coded = self._coded(images, level, draws)
        conditions = model.conditions(coded.y_hat, level)
        found = denoised(
            model.diffusion,
            model,
            model.to_x0(images, conditions),
            draws,
            self_conditioned=model.network.self_condition,
            absolute=stage.error == "absolute",
            conditions=conditions,
        )
        bpp = (coded.y_bits + coded.z_bits) / (images.shape[2] * images.shape[3])
        losses = (1 - stage.rho) * found.losses
        if stage.joint:
            losses = losses + self._rate(images, level, bpp, conditions)
        values = {"bpp": bpp.mean(), "psnr_db": _psnr_db(conditions.synthesis, images)}
        if self._lpips is not None:
            restored = model.to_images(found.x0, conditions).clamp(-1, 1)
            perceptual = self._lpips[0].to(images.device)(restored.float(), images)
            losses = losses + stage.rho * perceptual
            values["lpips"] = perceptual.mean()
        if not self.training:
            one_step = model.refine(conditions, 1, torch.zeros_like(images))
            values["one_step_psnr_db"] = _psnr_db(one_step, images)
        return {"loss": losses.mean(), **values}

    def _coded(self, images: Tensor, level: Tensor, draws: Draws) -> Coded:
        coder = self.model.coder
        gradients = torch.set_grad_enabled(self.stage.joint and torch.is_grad_enabled())
        with gradients, torch.autocast(images.device.type, enabled=False):  # in full precision, as a codec has it
            return coder.entropy(coder.analyse(images, level), level, draws.generators())

    def _rate(self, images: Tensor, level: Tensor, bpp: Tensor, conditions: Conditions) -> Tensor:
        """(B,) what bits cost in the units of the diffusion's error.

        λ prices a squared error of one 8-bit level in bits, and the diffusion's is one of x0. With a synthesis that
        is used comes its own error: nothing else keeps it what the residual is measured from.
        """
        per_pixel = 127.5**2 * self.model.coder.lmbda(level)
        unit = conditions.std.square() if self.model.decoder.residual else torch.ones_like(conditions.std)
        cost = self.stage.bit_price * bpp / (per_pixel * unit)
        if self.model.decoder.needs_synthesis:
            cost = cost + (conditions.synthesis - images).square().flatten(1).mean(1) / unit
        return cost

    @torch.no_grad()
    def pictures(self) -> Tensor | None:
        """(12, 3, H, W) uint8 of four images from low to high quality: originals, syntheses, refined images."""
        if self.shown is None:
            return None
        images = self.shown.to(next(self.parameters()).device)
        level = torch.linspace(0, 1, len(images), device=images.device)
        coder = self.model.coder
        conditions = self.model.conditions(coder.entropy(coder.analyse(images, level), level).y_hat, level)
        generators = [torch_generator(0, _PICTURE_NOISE, number) for number in range(len(images))]
        decoder = self.model.decoder
        noise = decoder.gamma * normal(images.shape, generators, images.device)
        refined = self.model.refine(conditions, min(decoder.steps, _PICTURE_STEPS), noise)
        return signed_to_uint8(torch.cat([images, conditions.synthesis, refined])).cpu()


def _psnr_db(found: Tensor, images: Tensor) -> Tensor:
    mse = ((found.detach() - images) * 127.5).square().flatten(1).mean(1)
    return (20 * torch.log10(torch.tensor(255.0)) - 10 * mse.clamp_min(1e-9).log10()).mean()


def _load_lpips(net: Literal["alex", "vgg"]) -> nn.Module:
    from difflate.metrics.perceptual import load_lpips

    return load_lpips(net)


def cost(settings: CdcTraining) -> str:
    """What the networks of ``settings`` take, in one line; nothing of it is allocated."""
    with torch.device("meta"):
        model = _model(settings)
    height, width = _COST_PX
    work = multiply_adds(model.network, height, width)
    return (
        f"{parameters(model.coder) / 1e6:.1f} million parameters of the coder, {parameters(model.context) / 1e6:.2f} "
        f"of the context decoder and {parameters(model.unet) / 1e6:.1f} of the U-Net; {work / 1e9:.1f} billion "
        f"multiply-adds of the U-Net a step for {width}x{height}"
    )


def _model(settings: CdcTraining) -> DiffusionDecoder:
    coder = settings.coder
    return DiffusionDecoder(
        coder.transform, coder.hyperprior, coder.lmbda_min, coder.lmbda_max,
        settings.decoder, settings.network, settings.process,
    )  # fmt: skip


def _take_coder(model: DiffusionDecoder, name: str) -> None:
    """The weights of the folder ``name`` for the coder of ``model``."""
    folder = model_folder(name)
    if folder is None:
        raise ConfigError(f"coder_from (={name}): no such folder; name the folder of a model of recipe hyperprior")
    source = TransformModel.from_pretrained(folder)
    theirs, ours = source.config_dict(), model.coder.config_dict()
    for key, value in ours.items():
        if theirs[key] != value and _plain(theirs[key]) != _plain(value):
            raise ConfigError(f"coder.{key} (={value}) is {theirs[key]} in {folder}; give it that value")
    model.coder.load_state_dict(source.state_dict())
    model.coder.load_exact(folder)  # files of the one are then files of the other, on any machine


def _plain(value: Any) -> Any:
    """Tuples as lists, as config.json has them."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()} if isinstance(value, dict) else value


def run(settings: CdcTraining, command: str, progress: bool) -> Path:
    """Trains, writes the model folder and returns it. ``command`` goes into the model card.

    Each stage is a training with checkpoints and a model folder of its own; what is finished is not repeated. Raises
    what `difflate.train.loop.train` raises, OutputExists only if all stages were finished before.
    """
    out, stages = Path(settings.out), settings.stages()
    if (out / CONFIG).exists() and not (out / STAGES).exists():
        raise OutputExists(f"{out}: holds a model already; choose another folder")
    trained_on, held_back = hold_back(list_items(settings.images), settings.holdback)
    torch.manual_seed(next(iter(stages.values())).training.seed)
    model = _model(settings)
    start: FolderModel | None = None
    if settings.coder_from is not None:
        _take_coder(model, settings.coder_from)
        start = model.coder
    for stage in stages.values():
        if isinstance(stage, DiffusionStage) and stage.rho:
            _load_lpips(stage.lpips)  # if it is missing: now, not in hours
    done: dict[str, Progress] = {}
    trained = False
    counts = len(trained_on), len(held_back)
    for name, stage in stages.items():
        held = Crops(held_back, stage.crop_px, augment=False) if held_back else None
        objective = _objective(model, stage, held)
        folder = out / STAGES / name
        staged = objective.model
        card = card_of(staged, settings.images, *counts, command)
        config = _stage_config(settings, name, start)
        crops = Crops(trained_on, stage.crop_px, seed=stage.training.seed)
        try:
            done[name] = train(objective, crops, held, stage.training, folder, config=config, card=card, bar=progress)
            trained = True
        except OutputExists:
            newest = checkpoint.latest(folder / CHECKPOINTS)
            if newest is None or not stage.training.resume:
                raise
            done[name] = checkpoint.read_head(newest)[0]
        staged.load_state_dict(type(staged).from_pretrained(folder).state_dict())  # the averaged weights
        start = staged
    if int(os.environ.get("RANK", "0")) == 0:  # of the processes that `accelerate launch` started
        model.save_pretrained(out, card=_card(card_of(model, settings.images, *counts, command), done))
        write_settings(_without_calls(resolved(settings, "cdc")), out)
    if not trained:
        raise OutputExists(f"{out}: is trained already; raise max_steps or max_minutes of a stage to go on")
    return out


def _objective(model: DiffusionDecoder, stage: Stage, held_back: Crops | None) -> RateDistortion | DecoderObjective:
    if isinstance(stage, CoderStage):
        loop = stage.training
        model.coder.requires_grad_(True)
        return RateDistortion(model.coder, loop.batch, loop.seed, stage.rate_ramp_steps, stage.bit_price)
    shown = None
    if held_back is not None:
        shown = torch.stack([held_back.read(n)[0] for n in range(min(_PICTURES, len(held_back)))]).float() / 127.5 - 1
    return DecoderObjective(model, stage, shown)


def _stage_config(settings: CdcTraining, name: str, start: FolderModel | None) -> dict[str, Any]:
    """What a checkpoint of the stage must have been made with; the weights that it starts from among it."""
    values = _without_calls(resolved(settings, "cdc"))
    others = {"transforms", "hyperprior", "diffusion", "perceptual", "coder_from"}
    if isinstance(getattr(settings, name), CoderStage):
        others |= {"decoder", "network", "process"}
    weights = {} if start is None else {k: v.cpu().numpy() for k, v in start.state_dict().items()}
    shared = {key: value for key, value in values.items() if key not in others}
    return {**shared, "stage": name, **values[name], "start": fingerprint("", weights).hex()[:16] if start else ""}


def _without_calls(values: dict[str, Any]) -> dict[str, Any]:
    """`resolved` settings without what is of one call, not of the training, in stages."""
    for section in values.values():
        if isinstance(section, dict) and "training" in section:
            for key in ("force", "resume"):
                section["training"].pop(key, None)
    return values


def _card(card: Callable[[Progress], str], done: dict[str, Progress]) -> str:
    *_, last = done.values()
    rows = "\n".join(f"| {name} | {p.step} | {p.seconds / 60:.0f} |" for name, p in done.items())
    return f"{card(last)}\n| stage | steps | minutes |\n|---|--:|--:|\n{rows}\n"
