"""Folders of images, shards of latents made by hand and a tiny latent space, for the tests of latents."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.nn import functional

from difflate.data.latents import LatentHeader, Latents
from difflate.nn.colour import rgb_to_ycrcb, signed_to_uint8, ycrcb_to_signed_rgb
from difflate.nn.padding import pad_to_multiple
from training_helpers import picture

CODEC, OTHER = "opq-32-8-8", "vq-8-8-8"
PX = 16
HEADER = LatentHeader(CODEC, 64 * "a", (1000, 2), PX, 12)


def squares(folder: Path, count: int = 10, side: int = PX, broken: tuple[int, ...] = ()) -> Path:
    """``folder`` with so many PNG files, of which some are none."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:03d}.png"
        if number in broken:
            path.write_text("no image")
        else:
            Image.fromarray(picture(number, side, side)).save(path)
    return folder


def hand_made(path: Path, listed: list[int], header: LatentHeader = HEADER, shards: int = 1, **changes: Any) -> Path:
    """A shard with rows that say which they are, and with ``changes`` of its tensors and metadata."""
    latents = np.zeros((len(listed), 2, 2, 2), header.dtype)
    latents[:, 0] = np.array(listed, np.int64)[:, None, None]
    mirrored = latents + np.array([500, 0], header.dtype)[:, None, None]
    tensors = {"latents": latents, "mirrored": mirrored, "numbers": np.array(listed, np.int64)}
    tensors |= {key: value for key, value in changes.items() if key in tensors}
    tensors = {key: value for key, value in tensors.items() if value is not None}
    metadata = header.metadata(shards, ["cats"])
    metadata |= {key: value for key, value in changes.items() if key in metadata}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path), metadata)
    return path


def rows(data: Latents, count: int | None = None) -> list[list[int]]:
    return [data[n][0].flatten().tolist() for n in range(len(data) if count is None else count)]


class BlockMeans(nn.Module):
    """A `LatentSpace` without codebooks: the means of Y, Cr and Cb over 8x8 px, each as one of a few scalars."""

    name, stride_px, sizes = "block-means", 8, (5, 3, 3)
    fingerprint = bytes(range(32))

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Buffer(torch.zeros(0))

    @property
    def device(self) -> torch.device:
        return self.anchor.device

    @property
    def codebooks(self) -> list[Tensor]:
        return [torch.linspace(0, 255, size, device=self.device)[:, None] for size in self.sizes]

    def to_latent(self, images: Tensor) -> Tensor:
        padded = pad_to_multiple(images.to(self.device), self.stride_px)
        means = functional.avg_pool2d(rgb_to_ycrcb(padded), self.stride_px)
        tops = torch.tensor(self.sizes, device=self.device)[:, None, None] - 1
        return (means / 255 * tops).round().long()

    def from_latent(self, latent: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
        words = [book[latent[:, c].long()].movedim(3, 1) for c, book in enumerate(self.codebooks)]
        return signed_to_uint8(self.from_codewords(words))[:, :, :height, :width]

    def from_codewords(self, codewords: Sequence[Tensor]) -> Tensor:
        means = torch.cat(list(codewords), dim=1)
        return ycrcb_to_signed_rgb(means.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3))
