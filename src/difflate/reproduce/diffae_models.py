"""The models of the thesis' comparisons (Rampas 2024, 4.1), at a scale that trains in minutes on a core of a CPU.

Each is trained by its recipe into a folder of its own, once. All diffusion autoencoders share what the thesis holds
fixed: cosine schedule, variance preserving, uniform times, squared error, a continuous latent of 16 numbers for 32x32
px, which the thesis counts as a ratio of 96, and no loss but that of the diffusion.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difflate.data.crops import Crops
from difflate.data.items import hold_back, list_items
from difflate.diffusion import ProcessConfig, normal
from difflate.errors import ConfigError, OutputExists
from difflate.models.autoencoder import Autoencoder
from difflate.models.bottlenecks import BottleneckConfig
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder, LatentDecoderConfig
from difflate.nn.colour import signed_to_uint8
from difflate.nn.encoder_kinds import EncoderConfig
from difflate.nn.encoders import ConvConfig
from difflate.nn.unet import UNetConfig, parameters
from difflate.registry import recipe
from difflate.reproduce.pairs import Images, by_name
from difflate.seeds import Stream, torch_generator
from difflate.store.config import CONFIG
from difflate.train import checkpoint
from difflate.train.adversary import AdversarySettings
from difflate.train.autoencoder_task import ReconstructionStage
from difflate.train.config import TRAINING, as_yaml, plain_settings
from difflate.train.index_context import ContextSettings
from difflate.train.lock import BeingTrained
from difflate.train.output import CHECKPOINTS
from difflate.train.recipes.autoencoder import AutoencoderTraining
from difflate.train.recipes.diffae import DiffaeTraining
from difflate.train.settings import LoopSettings
from difflate.train.staged import STAGES
from difflate.train.stages import AutoencodingStage

log = logging.getLogger(__name__)

HELD_BACK = 64
"""Images that models are measured on, if that is no more than a quarter."""
STRIDE_PX, CHANNELS = 16, 4
_BATCH, _STAGE = 8, "main"
_SEED = 0
_ENCODER = EncoderConfig(widths=(24, 48, 96), blocks=(1, 1, 1), patch=4)
_LARGER = EncoderConfig(widths=(48, 96, 192), blocks=(1, 2, 3), patch=4)
_PATCH = 4
_UNUSED_HEAD = ConvConfig(widths=(4, 4, 4), blocks=(0, 0, 0), patch=4)
"""The thesis has no head: this one is not trained and not looked at."""
_VQGAN_DECODER = ConvConfig(widths=(32, 64, 128), blocks=(1, 1, 2), patch=4)


@dataclass(frozen=True)
class Scale:
    """What the comparisons are run on, and for how long."""

    images: Sequence[str]
    """Folders of images."""
    work: Path = Path("runs/reproduce-diffae")
    """Folder of the trained models."""
    minutes: float = 3.0
    """Of training for each model, at most."""
    steps: int = 1_000_000
    """Of training for each model, at most. With so few that all take them before the time is over, equal ones."""
    px: int = 64
    """Side of the crops."""
    guidance: float = 1.0
    """w of classifier-free guidance in decoding."""
    width: int = 64
    """Channels of the U-Net's first level, which is given 48 numbers of noise a site."""

    def __post_init__(self) -> None:
        if self.px < 32 or self.px % STRIDE_PX:
            raise ConfigError(f"px (={self.px}) must be a multiple of {STRIDE_PX}, at least 32")
        if self.steps < 1:
            raise ConfigError(f"steps (={self.steps}) must be at least 1")

    @property
    def adversary_step(self) -> int:
        """The step from which on the VQGAN learns from its adversary."""
        return min(self.steps // 2, 300)

    @property
    def holdback(self) -> int:
        """How many images are held back. Raises ConfigError for fewer than 8 images."""
        count = len(list_items(self.images))
        if count < 8:
            raise ConfigError(
                f"images (={count}) must be 8 or more, a quarter of which is held back; name more folders"
            )
        return min(HELD_BACK, count // 4)


@dataclass(frozen=True)
class Variant:
    """A diffusion autoencoder among those that are compared."""

    title: str
    process: Mapping[str, Any]
    encoder: EncoderConfig = field(default=_ENCODER)


VARIANTS: Mapping[str, Variant] = {
    "x0": Variant("x0", {"target": "x0"}),
    "eps": Variant("ε", {"target": "eps"}),
    "v": Variant("v", {"target": "v"}),
    "x0-min-snr": Variant("x0, min-SNR", {"target": "x0", "weighting": "min-snr"}),
    "eps-p2": Variant("ε, P2", {"target": "eps", "weighting": "p2"}),
    "v-sech": Variant("v, sech", {"target": "v", "weighting": "sech"}),
    "larger": Variant("conv encoder, larger", {"target": "x0", "weighting": "min-snr"}, _LARGER),
    "lite0": Variant(
        "EfficientNet-Lite0, pretrained",
        {"target": "x0", "weighting": "min-snr"},
        EncoderConfig(kind="efficientnet-lite0", stride=STRIDE_PX),
    ),
    "lite0-random": Variant(
        "EfficientNet-Lite0, random",
        {"target": "x0", "weighting": "min-snr"},
        EncoderConfig(kind="efficientnet-lite0", stride=STRIDE_PX, pretrained=False),
    ),
}
"""By the names of their folders."""
VQGAN = "vqgan"


def settings_of(name: str, scale: Scale) -> DiffaeTraining | AutoencoderTraining:
    """The settings of the recipe that trains a model of `VARIANTS`, or `VQGAN`. Raises ConfigError."""
    never = max(scale.steps, 1) + 1
    training = LoopSettings(
        max_steps=scale.steps, max_minutes=scale.minutes, batch=_BATCH, lr=1e-3, warmup_steps=50, decay="cosine",
        log_every=50, validate_every=never, checkpoint_every=never, pictures_every=0, workers=0, seed=_SEED,
    )  # fmt: skip
    shared: dict[str, Any] = {
        "out": str(scale.work / name),
        "images": [str(source) for source in scale.images],
        "holdback": scale.holdback,
        "in_memory": True,
    }
    if name == VQGAN:
        adversary = AdversarySettings(weight=0.5, start_step=scale.adversary_step, widths=(24, 48, 96))
        stage = ReconstructionStage(
            _STAGE, crop_px=scale.px, perceptual=1.0, lpips="alex", adversary=adversary, training=training
        )
        return AutoencoderTraining(
            **shared, encoder=_ENCODER, bottleneck=BottleneckConfig("vq", channels=16, codebook_size=1024),
            decoder=_VQGAN_DECODER, stages=[stage], context=ContextSettings(views=100, view_px=256, steps=0),
        )  # fmt: skip
    variant = VARIANTS[name]
    network = UNetConfig(widths=(scale.width, 64, 96), blocks=(1, 1, 1), patch=_PATCH)
    return DiffaeTraining(
        **shared, encoder=variant.encoder, bottleneck=BottleneckConfig("ae", channels=CHANNELS), head=_UNUSED_HEAD,
        decoder=LatentDecoderConfig(steps=30, dropped=0.05), network=network, process=ProcessConfig(**variant.process),
        stages=[AutoencodingStage(_STAGE, crop_px=scale.px, head=0.0, training=training)],
    )  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A model, and what its training took."""

    model: DiffusionAutoencoder | Autoencoder
    steps: int
    minutes: float

    @property
    def row(self) -> dict[str, Any]:
        """For tables: million weights that decode or encode, steps and minutes of the training."""
        model = self.model
        if isinstance(model, Autoencoder):
            parts = (model.encode, model.between, model.decode)
        else:
            parts = (model.autoencoder.encode, model.unet)
        return {
            "parameters_m": sum(map(parameters, parts)) / 1e6,
            "steps": self.steps,
            "minutes": self.minutes,
        }


def trained(name: str, scale: Scale, progress: bool = False) -> Trained:
    """The model ``name``, trained unless its folder has it already. Raises what `difflate.train.recipe.Recipe.run`
    does."""
    settings = settings_of(name, scale)
    kind = "autoencoder" if name == VQGAN else "diffae"
    out = Path(settings.out)
    if not _is_done(out, as_yaml(plain_settings(settings, kind))):
        log.info("training %s", name)
        try:
            recipe(kind).run(settings, progress=progress)
        except BeingTrained:
            raise
        except OutputExists:
            pass  # for as long, or for longer, before
    found = checkpoint.latest_readable(out / STAGES / _STAGE / CHECKPOINTS)
    if found is None:
        raise ConfigError(f"{out}: has no checkpoint; remove the folder, so that it is trained anew")
    cls = Autoencoder if name == VQGAN else DiffusionAutoencoder
    return Trained(cls.from_pretrained(out).eval(), found[1].step, found[1].seconds / 60)


def _is_done(out: Path, settings: str) -> bool:
    """Without a look at images."""
    path = out / TRAINING
    return (out / CONFIG).exists() and path.exists() and path.read_text("utf-8") == settings


def held_back(scale: Scale) -> dict[str, np.ndarray]:
    """The middles, (3, px, px), of the images that no model was trained on, by name. Raises ImageError."""
    _, items = hold_back(list_items(scale.images), scale.holdback)
    crops = Crops(items, scale.px, augment=False)
    return by_name(items, (crops.read(number).pixels for number in range(len(items))))


def stacked(images: Images) -> Tensor:
    """(B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.stack(list(images.values()))).float() / 127.5 - 1


@torch.no_grad()
def restored(
    model: DiffusionAutoencoder | Autoencoder, originals: Images, steps: int, guidance: float
) -> dict[str, np.ndarray]:
    """``originals`` through the model's latent, as files hold it, and back in so many steps, by the same names.

    Image n starts from noise that follows from n. ``steps`` and ``guidance`` are of diffusion autoencoders.
    """
    made = []
    numbers = torch.arange(len(originals))
    for images, places in zip(stacked(originals).split(_BATCH), numbers.split(_BATCH), strict=True):
        if isinstance(model, Autoencoder):
            made += signed_to_uint8(model.restore(model(images).z))
            continue
        z = model.autoencoder(images).z
        generators = [torch_generator(_SEED, Stream.DECODER_PICTURE, int(place)) for place in places]
        noise = normal(model.noise_shape(z), generators, images.device)
        made += signed_to_uint8(model.restore(z, steps, noise, guidance))
    return {name: pixels.numpy() for name, pixels in zip(originals, made, strict=True)}
