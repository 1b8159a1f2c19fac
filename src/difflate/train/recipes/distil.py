"""Recipe `distil`: a student of one or two steps of a diffusion model that is trained already."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from difflate import registry
from difflate.data.items import label_by_folder, list_items
from difflate.data.latents import Latents
from difflate.errors import ConfigError
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder
from difflate.models.diffusion_decoder import DiffusionDecoder
from difflate.models.latent_diffusion import LatentDiffusion
from difflate.models.latent_space import LatentSpace
from difflate.models.pixel_diffusion import PixelDiffusion
from difflate.nn.unet import multiply_adds, parameters
from difflate.store.config import read_config
from difflate.store.hub import model_folder
from difflate.train.diffae_task import check_recordable
from difflate.train.distillation import (
    AutoencoderDistilTask,
    DecoderDistilTask,
    DistilSettings,
    DistilTask,
    LatentDistilTask,
    PixelDistilTask,
    Student,
    passes,
)
from difflate.train.recipe import Data, crops_of, first_captions, first_images, loop_recipe
from difflate.train.recipes.latent import space_of
from difflate.train.settings import check_crop

TEACHERS = {model.kind: model for model in (DiffusionAutoencoder, DiffusionDecoder, LatentDiffusion, PixelDiffusion)}
"""The kinds of models that a student can be made of."""
DECODERS = (DiffusionAutoencoder, DiffusionDecoder)
"""Those whose students learn on crops of any size."""
_PICTURES = 4


@dataclass(frozen=True)
class DistilTraining(DistilSettings):
    """Settings of the recipe `distil`. A teacher of latents takes `latents`, all others `images`."""

    teacher: str = ""
    """Folder or name of the model that the student starts from and learns of: of recipe cdc, diffae, pixel or
    latent (continuous)."""
    latents: list[str] = field(default_factory=list)
    """Folders of shards that `difflate latents` has written."""
    codec: str | None = None
    """Name or folder of the codec of the latents; null: the bundled one of the name that stands in the shards."""
    flips: bool = True
    """Mirror half of the images, or take half of the latents of mirrored ones."""
    crop_px: int = 128
    """Side of the crops for a decoder; a generator of pixels takes images of its own size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.teacher:
            raise ConfigError("teacher is empty; name a trained model with teacher=FOLDER, or a bundled one")


def _folder(settings: DistilTraining) -> Path:
    folder = model_folder(settings.teacher)
    if folder is None:
        raise ConfigError(f"teacher (={settings.teacher}): no such folder; name the folder of a trained model")
    return folder


def teacher_of(settings: DistilTraining) -> Student:
    """The teacher. Raises ConfigError for a model that no student can be made of, or settings of another kind."""
    named, folder = f"teacher (={settings.teacher})", _folder(settings)
    kind = registry.kind_of(read_config(folder))
    if kind is None or kind.name not in TEACHERS:
        raise ConfigError(
            f"{named}: is of the kind {kind.name if kind else 'unknown'}, whose steps cannot be distilled; name a "
            f"model of the kind {', '.join(TEACHERS)}"
        )
    of_latents = kind.name == LatentDiffusion.kind
    wanted, other = ("latents", "images") if of_latents else ("images", "latents")
    if not getattr(settings, wanted) or getattr(settings, other):
        raise ConfigError(
            f"{named}: is trained on {wanted}; name folders with {wanted}=FOLDER, and leave {other} empty"
        )
    if of_latents and settings.rho:
        raise ConfigError(
            f"rho (={settings.rho}) is a share of LPIPS, which sees images; a teacher of latents has none: leave it out"
        )
    if not of_latents and settings.codec is not None:
        raise ConfigError(f"codec (={settings.codec}) is of latents, which this teacher has none of; leave it out")
    teacher = TEACHERS[kind.name].load(folder)
    if isinstance(teacher, DECODERS):
        check_crop(settings.crop_px, teacher.stride_px)
    if isinstance(teacher, DiffusionAutoencoder):
        check_recordable(teacher.decoder, settings.training, "training")
    return teacher


def student_of(teacher: Student, steps: int) -> Student:
    """A model like ``teacher``, with its weights, that takes ``steps`` steps unless it is asked for others.

    It is not told its last x0, which in few steps is no help: of the weights those for it are cut off, so the student
    begins as the teacher that is given zeros.
    """
    network = dataclasses.replace(teacher.network, self_condition=False)
    given: dict[str, Any] = {**teacher.arguments(), "network": network}
    if isinstance(teacher, DiffusionAutoencoder):  # the student is never shown a latent that is hidden
        given["decoder"] = dataclasses.replace(teacher.decoder, steps=steps, guidance=1.0, dropped=0.0)
    elif isinstance(teacher, DiffusionDecoder):
        given["decoder"] = dataclasses.replace(teacher.decoder, steps=steps)
    else:
        given["steps"] = steps
    student = type(teacher)(**given)
    weights = teacher.state_dict()
    key = "unet.entrance.weight"
    weights[key] = weights[key][:, : network.in_channels * network.patch**2]
    student.load_state_dict(weights)
    return student


def cost(settings: DistilTraining) -> str:
    """What the network of ``settings`` takes, in one line."""
    teacher = teacher_of(settings)
    if isinstance(teacher, DECODERS):
        px = teacher.stage.stride_px if isinstance(teacher, DiffusionAutoencoder) else 1
        size = (settings.crop_px // px, settings.crop_px // px)
    else:
        size = teacher.shape((teacher.image_px, teacher.image_px))[1:]
    work = multiply_adds(teacher.network, *size)
    return (
        f"{parameters(teacher.unet) / 1e6:.1f} million parameters of the network, {work / 1e9:.2f} billion "
        f"multiply-adds an image and pass; {passes(settings, teacher.network.self_condition)}"
    )


@dataclass(frozen=True)
class TaughtData(Data):
    """What a student is shown, and its teacher."""

    teacher: Student
    space: LatentSpace | None = None
    """Of a teacher of latents."""


def _data(settings: DistilTraining) -> TaughtData:
    teacher, seed = teacher_of(settings), settings.training.seed
    if isinstance(teacher, LatentDiffusion):
        shards = Latents.open(settings.latents, flips=settings.flips, seed=seed)
        space = space_of(settings.codec, shards)
        teacher.latent.check(space)
        if shards.header.image_px != teacher.image_px:
            raise ConfigError(
                f"the latents are of images of {shards.header.image_px} px, but the teacher's are of {teacher.image_px}"
            )
        return TaughtData(*shards.hold_back(settings.holdback), settings.latents, teacher, space)
    if isinstance(teacher, DECODERS):
        captions = isinstance(teacher, DiffusionAutoencoder) and teacher.text is not None
        data = crops_of(settings, settings.crop_px, seed, flips=settings.flips, captions=captions)
        return TaughtData(data.trained_on, data.held_back, data.sources, teacher)
    items, size = list_items(settings.images), teacher.image_px
    if teacher.classes:
        items, classes = label_by_folder(items)
        if classes != list(teacher.classes):
            raise ConfigError(
                f"the folders of images are of the classes {', '.join(classes)}, but the teacher knows "
                f"{', '.join(teacher.classes)}; name folders of these"
            )
    data = crops_of(settings, size, seed, items=items, short_side=size, flips=settings.flips)
    return TaughtData(data.trained_on, data.held_back, data.sources, teacher)


def _task(settings: DistilTraining, data: TaughtData) -> DistilTask:
    student, taught = student_of(data.teacher, settings.steps), (data.teacher.unet, settings)
    if isinstance(student, DiffusionAutoencoder):
        student.autoencoder.load_exact(_folder(settings))  # files of the one are files of the other, on any machine
        shown = first_images(data.held_back, _PICTURES)
        return AutoencoderDistilTask(student, *taught, shown, first_captions(data.held_back, _PICTURES))
    if isinstance(student, DiffusionDecoder):
        assert isinstance(data.teacher, DiffusionDecoder)
        student.coder.keep_exact(data.teacher.coder)
        return DecoderDistilTask(student, *taught, first_images(data.held_back, _PICTURES))
    if isinstance(student, LatentDiffusion):
        student.use_codec(data.space)
        return LatentDistilTask(student, *taught)
    return PixelDistilTask(student, *taught)


RECIPE = loop_recipe("distil", DistilTraining, data=_data, task=_task, cost=cost)
