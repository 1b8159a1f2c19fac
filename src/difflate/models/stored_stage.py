"""First stages that are models in folders: our own autoencoders, of images and of clips, and those of diffusers.

What a diffusion model needs of one to be built stands in config.json; the weights are read when they are first used.
"""

import functools
import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from difflate.errors import ModelError
from difflate.extras import require
from difflate.models.autoencoder import Autoencoder
from difflate.models.stored_network import StoredNetwork, digest_of
from difflate.models.video_autoencoder import VideoAutoencoder
from difflate.nn.layers import by_frame
from difflate.nn.temporal import Past

CLASSES = ("AutoencoderKL", "VQModel")
"""Of diffusers."""
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_SCALE = 0.18215
"""Of models that do not say it (Rombach et al. 2022)."""


class StoredStage(StoredNetwork):
    """A `difflate.models.first_stage.FirstStage` whose network is read when it is first used."""

    bound: float | None = None
    frames = 1

    def __init__(self, folder: Path, stride_px: int, channels: int, scale: float):
        super().__init__(folder)
        self.stride_px, self.channels, self.scale = stride_px, channels, scale

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """See `difflate.models.first_stage.FirstStage`."""
        return by_frame(self._encode, images)

    def decode(self, x: Tensor, past: Past | None = None) -> Tensor:
        """See `difflate.models.first_stage.FirstStage`."""
        return by_frame(self._decode, x)

    @abstractmethod
    def _encode(self, images: Tensor) -> Tensor:
        """(B, channels, H/s, W/s) of ``images: (B, 3, H, W)``."""

    @abstractmethod
    def _decode(self, x: Tensor) -> Tensor:
        """(B, 3, s·h, s·w) of ``x: (B, channels, h, w)``."""


class AutoencoderStage(StoredStage):
    """A model of the recipe `autoencoder`; its latent has a deviation of about 1."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        """Raises ModelError."""
        try:
            latent = config["latent"]
            values = int(latent["stride_px"]), int(latent["channels"]), 1 / float(latent["std"])
            self.frames = int(latent.get("frames", 1))
            if min(*values[:2], self.frames) < 1:
                raise ValueError("a size of the latent is below 1")
            self._digest = hashlib.sha256(json.dumps(config["sha256"], sort_keys=True).encode()).hexdigest()
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise ModelError(f"first stage {folder}: config.json is damaged ({error}); get the folder again") from error
        super().__init__(folder, *values)

    @property
    def digest(self) -> str:
        return self._digest

    def load(self) -> Autoencoder:
        return Autoencoder.from_pretrained(self.folder)

    def _encode(self, images: Tensor) -> Tensor:
        """What decoders see, but not rounded in steps."""
        return self._seen(self.network(images.device).encode(images))

    def _decode(self, x: Tensor) -> Tensor:
        return self.network(x.device).restore(x / self.scale)

    def _seen(self, features: Tensor) -> Tensor:
        """(B, channels, h, w) of ``features: (B, F, h, w)``, what the bottleneck is given."""
        between = self.network(features.device).between
        return between.latent(between.coded(features)) * self.scale


class VideoAutoencoderStage(AutoencoderStage):
    """A model of the recipe `video-autoencoder`, which also makes few frames of many (Rampas 2024, 3.4.1)."""

    def load(self) -> VideoAutoencoder:
        return VideoAutoencoder.from_pretrained(self.folder)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """See `difflate.models.first_stage.FirstStage`; ``images`` are clips."""
        return by_frame(self._seen, self.network(images.device).features(images))

    def decode(self, x: Tensor, past: Past | None = None) -> Tensor:
        """See `difflate.models.first_stage.FirstStage`."""
        network = self.network(x.device)
        return network.restore(network.expand(x / self.scale, past))


class DiffusersStage(StoredStage):
    """An AutoencoderKL or a VQModel in the folder that diffusers saves."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        """Raises ModelError."""
        try:
            self._class = str(config["_class_name"])
            stride_px = 2 ** (len(config["block_out_channels"]) - 1)
            channels = int(config.get("vq_embed_dim") or config["latent_channels"])
            scale, self.shift = float(config.get("scaling_factor", _SCALE)), float(config.get("shift_factor") or 0)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"first stage {folder}: config.json is damaged ({error}); get the folder again") from error
        super().__init__(folder, stride_px, channels, scale)

    @property
    def digest(self) -> str:
        return self._digest_of_weights

    @functools.cached_property
    def _digest_of_weights(self) -> str:
        path = self.folder / _WEIGHTS
        if not path.is_file():
            raise ModelError(f"first stage {self.folder}: {_WEIGHTS} is missing; get the folder again")
        return digest_of([path])

    def load(self) -> nn.Module:
        made = getattr(require("diffusers", "diffusers"), self._class)
        try:
            return made.from_pretrained(
                self.folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
            )
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"first stage {self.folder}: cannot be loaded ({reason}); get the folder again") from error

    def _encode(self, images: Tensor) -> Tensor:
        """The mean of an AutoencoderKL, a VQModel's before look-up."""
        found = self.network(images.device).encode(images)
        z = found.latents if self._class == "VQModel" else found.latent_dist.mean
        return (z - self.shift) * self.scale

    def _decode(self, x: Tensor) -> Tensor:
        """A VQModel looks its codewords up."""
        return self.network(x.device).decode(x / self.scale + self.shift).sample


OURS: dict[str, type[AutoencoderStage]] = {Autoencoder.kind: AutoencoderStage}
"""By the kind of the model."""
OURS_OF_CLIPS: dict[str, type[AutoencoderStage]] = {VideoAutoencoder.kind: VideoAutoencoderStage}
"""Those that take nothing but clips."""
