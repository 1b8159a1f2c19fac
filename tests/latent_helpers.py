"""Folders of images, and shards of latents made by hand, for the tests of latent data sets."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from difflate.data.latents import LatentHeader, Latents
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
