"""What a diffusion runs on: the pixels themselves, or the latent of another model."""

from pathlib import Path
from typing import Protocol

from torch import Tensor

from difflate import registry
from difflate.errors import ModelError
from difflate.models.stored_stage import CLASSES, OURS, OURS_OF_CLIPS, DiffusersStage
from difflate.nn.temporal import Past
from difflate.store.config import read_config
from difflate.store.hub import model_folder


class FirstStage(Protocol):
    """Images to what a diffusion runs on, of about unit variance or within ± `bound`, and back.

    Clips have T before H everywhere. A first stage of images takes each frame of them alone.
    """

    stride_px: int
    """Pixels between two sites, down and sideways."""
    frames: int
    """Frames of a clip that become one."""
    channels: int
    scale: float
    """What the latent is multiplied by."""
    bound: float | None
    """What `encode` gives is within ± this, so that samplers keep to it; None: it may be anything."""

    @property
    def digest(self) -> str:
        """What tells this model from others; empty: there is none."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """(B, channels, H/s, W/s) of ``images: (B, 3, H, W)`` in [-1, 1], s = `stride_px`, which divides H and W.

        Of clips (B, channels, T/frames, H/s, W/s); `frames` divides T.
        """
        ...

    def decode(self, x: Tensor, past: Past | None = None) -> Tensor:
        """(B, 3, s·h, s·w) in about [-1, 1], not clamped, of ``x: (B, channels, h, w)``; differentiable.

        ``past``: of a clip that comes in chunks, see `difflate.nn.temporal`.
        """
        ...


class Pixels:
    """No first stage: PixelUnshuffle in the network costs what a latent at a quarter of the size does."""

    stride_px, frames, channels, scale = 1, 1, 3, 1.0
    bound: float | None = 1.0
    digest = ""

    def encode(self, images: Tensor) -> Tensor:
        """``images`` as they are."""
        return images

    def decode(self, x: Tensor, past: Past | None = None) -> Tensor:
        """``x`` as it is."""
        return x


def first_stage(name: str | None, clips: bool = False) -> FirstStage:
    """The first stage in a folder, a model of the recipe `autoencoder` or an AutoencoderKL or VQModel of diffusers, or
    of a Hugging Face repository that is in the cache; None: the pixels. Its weights are read when it is first used.

    ``clips``: whether it is for clips, for which it may also be of the recipe `video-autoencoder`. Raises ModelError if
    there is none.
    """
    if name is None:
        return Pixels()
    folder = model_folder(name)
    if folder is None:
        raise ModelError(
            f"first stage {name!r} is not here; put its folder there, or name another with decoder.first_stage=FOLDER"
        )
    config = read_config(folder)
    ours = (OURS | OURS_OF_CLIPS if clips else OURS).get(str(config.get("kind")))
    if ours is not None:
        return ours(folder, config)
    if config.get("_class_name") in CLASSES:
        return DiffusersStage(folder, config)
    kind = registry.kind_of(config)
    what = kind.name if kind else config.get("_class_name")
    recipes = "autoencoder or video-autoencoder" if clips else "autoencoder"
    raise ModelError(
        f"first stage {folder}: is a model of the kind {what}; name one of the recipe {recipes}, or of diffusers' "
        f"{' or '.join(CLASSES)}"
    )


def check_same(stage: FirstStage, digest: str, folder: Path) -> None:
    """Raises ModelError if ``stage`` is another model than that which the one in ``folder`` was trained with."""
    if stage.digest != digest:
        raise ModelError(f"{folder}: was trained with another first stage than the one that is there now; get that one")
