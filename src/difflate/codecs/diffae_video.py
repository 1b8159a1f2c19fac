"""The diffusion autoencoder of clips (Rampas 2024, 3.4): the files of an autoencoder of clips, restored by diffusion.

    encode   frames ─ `VideoDiffusionSpace.analyse` ─▶ latent frames ─ coder ─▶ group of a clip's file; hints, text
    decode   frames ◀─ `DiffusionFrames.restore` ─ latent frames ◀─ coder ─ group; hints, text

Groups and coders are those of `difflate.codecs.video_autoencoder`.
"""

from pathlib import Path
from typing import Any, Self

from torch import Tensor

from difflate.codecs.video_autoencoder import VideoAutoencoderCodec
from difflate.format.container import DflFile
from difflate.models.video_diffusion_autoencoder import VideoDiffusionAutoencoder
from difflate.models.video_space import ClipPast, VideoDiffusionSpace
from difflate.nn.tiles import TILE_PX
from difflate.options import SamplingDecoding


class DiffaeVideoCodec(VideoAutoencoderCodec):
    """Clips to .dfl files and back, with a `VideoDiffusionAutoencoder`; without steps its head restores them."""

    space: VideoDiffusionSpace

    def __init__(self, name: str, model: VideoDiffusionAutoencoder):
        """Raises ModelError if what is coded with does not fit the networks."""
        space, decoder = VideoDiffusionSpace(name, model), model.decoder
        defaults = SamplingDecoding(tile_px=TILE_PX, steps=decoder.steps, guidance=decoder.guidance, seed=0)
        super().__init__("diffae-video", space, DiffusionFrames(space), defaults)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The codec of a model's folder. Raises ModelError if a file is missing, or altered since it was written."""
        return cls(folder.name, VideoDiffusionAutoencoder.from_pretrained(folder))

    @property
    def model(self) -> VideoDiffusionAutoencoder:
        return self.space.model


class DiffusionFrames:
    """What steps of diffusion make of latent frames."""

    def __init__(self, space: VideoDiffusionSpace):
        self.space = space

    def check(self, options: Any) -> None:
        """See `difflate.codecs.video_autoencoder.FrameRestorer`."""
        self.space.model.decoder.check_guidance(options.guidance)
        self.space.model.check_text(options.text or "")

    def restore(self, latent: Tensor, frames: int, header: DflFile, options: Any, past: ClipPast) -> Tensor:
        """See `difflate.codecs.video_autoencoder.FrameRestorer`."""
        return self.space.sample(
            latent, frames, header.height, header.width, options.tile_px, options.steps, options.guidance,
            options.seed, options.text or "", past,
        )  # fmt: skip
