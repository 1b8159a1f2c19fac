"""What a video diffusion autoencoder codes of the frames of a clip, chunk by chunk, and back, in tiles.

A chunk is the frames of a latent frame. What the layers along time have to see of the chunks before is kept for each
tile, so neither the clip's length nor where it is cut changes what is made of a frame.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch import Tensor

from difflate.models.autoencoder_space import AutoencoderSpace
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
    """Chunks of frames to what files hold of them, and back by the plain decoder or by steps of diffusion."""

    def __init__(self, name: str, model: VideoDiffusionAutoencoder):
        super().__init__(name, model.autoencoder)
        self.model, self.video = model, model.autoencoder

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
    def restore(
        self, latent: Tensor, frames: int, height: int, width: int, tile_px: int, steps: int, guidance: float,
        seed: int, text: str, past: ClipPast,
    ) -> Tensor:  # fmt: skip
        """(``frames``, 3, ``height``, ``width``) uint8 on the CPU of ``latent: (C, h, w)``, a latent frame as files
        have it, by ``steps`` steps; 0: by the plain decoder.

        The noise of each frame follows from ``seed``, its number and the place. ``frames``: up to `chunk_frames`.
        Raises ConfigError.
        """
        model, video, count = self.model, self.video, self.chunk_frames
        model.check_text(text)
        vector = model.told([text], self.device) if steps else None
        sites = self.stride_px // model.stage.stride_px

        def tile(part: Tensor, row: int, column: int) -> Tensor:
            own = past.begin(row, column)
            coded = part[:, :, None]
            told = video.told(coded if coded.is_floating_point() else coded.long(), own)
            if not steps:
                return video.restore(told).flatten(1, 2)
            _, channels, _, rows, columns = model.noise_shape(told)
            noise = [
                place_noise(seed, row * sites, column * sites, rows, columns, channels, past.frames + number)
                for number in range(count)
            ]
            whole = torch.stack(noise, dim=2).to(told.device)
            return model.restore(told, steps, whole, guidance, vector, own).flatten(1, 2)

        reach = -(-reach_px(model.network) // sites) if steps else conv_reach_sites(video.decoder)
        images = restore_in_tiles(
            tile, latent.numpy(), height, width, tile_px, self.margin(reach), self.ramp, self.stride_px, self.device,
            planes=3 * count,
        )  # fmt: skip
        past.frames += count
        return images.unflatten(0, (3, count)).transpose(0, 1)[:frames]
