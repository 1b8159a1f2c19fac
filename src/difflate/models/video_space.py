"""What autoencoders of clips code of frames, chunk by chunk, and back, in tiles: by the plain decoder, or by diffusion.

A chunk is the frames of a latent frame. What the layers along time have to see of the chunks before is kept for each
tile, so neither the clip's length nor where it is cut changes what is made of a frame.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from difflate.models.autoencoder_space import AutoencoderSpace
from difflate.models.video_autoencoder import VideoAutoencoder
from difflate.models.video_diffusion_autoencoder import VideoDiffusionAutoencoder
from difflate.nn.encoders import conv_reach_sites
from difflate.nn.folding import padded
from difflate.nn.temporal import Past
from difflate.nn.tiles import blend, place_noise, restore_in_tiles, sites_of, windows
from difflate.nn.unet import reach_px


@dataclass
class ClipPast:
    """What chunks that come have to see of those before, of one clip and one direction."""

    tiles: dict[tuple[int, int], Past] = field(default_factory=lambda: defaultdict(Past))
    """By the row and column where a tile begins."""
    frames: int = 0
    """How many there were."""

    def begin(self, row: int, column: int) -> Past:
        """That of a tile, for its next chunk."""
        past = self.tiles[row, column]
        past.begin()
        return past


class VideoSpace(AutoencoderSpace):
    """Chunks of frames to what files hold of them, and back by the plain decoder."""

    def __init__(self, name: str, video: VideoAutoencoder):
        super().__init__(name, video)
        self.video = video

    @property
    def chunk_frames(self) -> int:
        """f_t: frames of a latent frame."""
        return self.video.folding.ratio

    @torch.no_grad()
    def analyse(self, frames: Tensor, tile_px: int, past: ClipPast) -> Tensor:
        """(C, ⌈H/stride⌉, ⌈W/stride⌉) on the CPU, the latent frame of ``frames: (T, 3, H, W)`` uint8, T up to
        `chunk_frames`: int64 indices, or float32 numbers in steps, not rounded."""
        video, stride = self.video, self.stride_px
        clip = padded(frames.transpose(0, 1)[None], self.chunk_frames)
        rows, columns = (-(-side // stride) for side in clip.shape[-2:])
        features = torch.zeros(video.between.features, rows, columns, dtype=torch.float32, device=self.device)
        tile = sites_of(self.encoder_tile_px(tile_px), stride)
        for down, across in windows(rows, columns, tile, self.margin(video.encode.reach), self.ramp, 1):
            part = clip[..., down.start * stride : down.stop * stride, across.start * stride : across.stop * stride]
            images = part.to(self.device).float() / 127.5 - 1
            found = video.features(images, past.begin(down.start, across.start))
            blend(features, found[0, :, 0].float(), down, across, 1)
        return self.banded(features[None])[0].cpu()

    @torch.no_grad()
    def decode(self, latent: Tensor, frames: int, height: int, width: int, tile_px: int, past: ClipPast) -> Tensor:
        """(``frames``, 3, ``height``, ``width``) uint8 on the CPU: what the plain decoder makes of a latent frame as
        files have it, ``latent: (C, h, w)``. ``frames``: up to `chunk_frames`."""

        def restored(told: Tensor, row: int, column: int, own: Past) -> Tensor:
            return self.video.restore(told)

        reach = conv_reach_sites(self.video.decoder)
        return self._in_tiles(restored, latent, frames, height, width, tile_px, reach, past)

    def _in_tiles(
        self, restored: Callable[[Tensor, int, int, Past], Tensor], latent: Tensor, frames: int, height: int,
        width: int, tile_px: int, reach: int, past: ClipPast,
    ) -> Tensor:  # fmt: skip
        """``restored``: what decoders are told of a tile, its first row and column and its past, to its frames (1, 3,
        T, s·h', s·w') in [-1, 1]."""
        count = self.chunk_frames

        def tile(part: Tensor, row: int, column: int) -> Tensor:
            own, coded = past.begin(row, column), part[:, :, None]
            told = self.video.told(coded if coded.is_floating_point() else coded.long(), own)
            return restored(told, row, column, own).flatten(1, 2)

        images = restore_in_tiles(
            tile, latent.numpy()[None], height, width, tile_px, self.margin(reach), self.ramp, self.stride_px,
            self.device, planes=3 * count,
        )  # fmt: skip
        past.frames += count
        return images[0].unflatten(0, (3, count)).transpose(0, 1)[:frames]


class VideoDiffusionSpace(VideoSpace):
    """The same, and back by steps of diffusion."""

    def __init__(self, name: str, model: VideoDiffusionAutoencoder):
        super().__init__(name, model.autoencoder)
        self.model = model

    @torch.no_grad()
    def sample(
        self, latent: Tensor, frames: int, height: int, width: int, tile_px: int, steps: int, guidance: float,
        seed: int, text: str, past: ClipPast,
    ) -> Tensor:  # fmt: skip
        """See `VideoSpace.decode`: what ``steps`` steps make of ``latent``; none: `VideoSpace.decode`.

        The noise of each frame of what the diffusion runs on follows from ``seed``, its number and the place. Raises
        ConfigError.
        """
        model, stage = self.model, self.model.stage
        model.check_text(text)
        if not steps:
            return self.decode(latent, frames, height, width, tile_px, past)
        vector = model.told([text], self.device)
        sites, first = self.stride_px // stage.stride_px, past.frames // stage.frames

        def restored(told: Tensor, row: int, column: int, own: Past) -> Tensor:
            _, channels, count, rows, columns = model.noise_shape(told)
            noise = [
                place_noise(seed, row * sites, column * sites, rows, columns, channels, first + number)
                for number in range(count)
            ]
            whole = torch.stack(noise, dim=2).to(told.device)
            return model.restore(told, steps, whole, guidance, vector, own)

        reach = -(-reach_px(model.network) // sites)
        return self._in_tiles(restored, latent, frames, height, width, tile_px, reach, past)
