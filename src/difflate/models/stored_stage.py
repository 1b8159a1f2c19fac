"""First stages that are models in folders: our own autoencoders, and those of diffusers.

What a diffusion model needs of one to be built stands in config.json; the weights are read when they are first used.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from difflate.errors import ModelError
from difflate.extras import require
from difflate.models.autoencoder import Autoencoder
from difflate.models.stored_network import StoredNetwork, digest_of

CLASSES = ("AutoencoderKL", "VQModel")
"""Of diffusers."""
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_SCALE = 0.18215
"""Of models that do not say it (Rombach et al. 2022)."""


class StoredStage(StoredNetwork):
    """A `difflate.models.first_stage.FirstStage` whose network is read when it is first used."""

    bound: float | None = None

    def __init__(self, folder: Path, stride_px: int, channels: int, scale: float):
        super().__init__(folder)
        self.stride_px, self.channels, self.scale = stride_px, channels, scale


class AutoencoderStage(StoredStage):
    """A model of the recipe `autoencoder`; its latent has a deviation of about 1."""

    def __init__(self, folder: Path, config: Mapping[str, Any]):
        """Raises ModelError."""
        try:
            latent = config["latent"]
            values = int(latent["stride_px"]), int(latent["channels"]), 1 / float(latent["std"])
            self._digest = hashlib.sha256(json.dumps(config["sha256"], sort_keys=True).encode()).hexdigest()
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise ModelError(f"first stage {folder}: config.json is damaged ({error}); get the folder again") from error
        super().__init__(folder, *values)

    @property
    def digest(self) -> str:
        return self._digest

    def load(self) -> Autoencoder:
        return Autoencoder.from_pretrained(self.folder)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """See `difflate.models.first_stage.FirstStage`: what decoders see, but not rounded in steps."""
        network = self.network(images.device)
        return network.between.latent(network.between.coded(network.encode(images))) * self.scale

    def decode(self, x: Tensor) -> Tensor:
        """See `difflate.models.first_stage.FirstStage`."""
        return self.network(x.device).restore(x / self.scale)


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

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """See `difflate.models.first_stage.FirstStage`: the mean of an AutoencoderKL, a VQModel's before look-up."""
        found = self.network(images.device).encode(images)
        z = found.latents if self._class == "VQModel" else found.latent_dist.mean
        return (z - self.shift) * self.scale

    def decode(self, x: Tensor) -> Tensor:
        """See `difflate.models.first_stage.FirstStage`; a VQModel looks its codewords up."""
        return self.network(x.device).decode(x / self.scale + self.shift).sample
