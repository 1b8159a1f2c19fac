"""A codec, images and a command line that several tests share."""

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from difflate.cli import eval as eval_command
from difflate.cli import reproduce as reproduce_command
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture
from difflate.options import Encoding, Options


class Coarse:
    """A codec for tests: quality is the number of bits that each sample keeps, packed by Pillow's PNG."""

    suffix = ".png"
    encoding: type[Encoding] = Encoding
    decoding: type[Options] = Options

    def __init__(self, name: str = "coarse", quality_range: tuple[float, float, float] | None = (1, 8, 5)) -> None:
        self.name = name
        self.quality_range = quality_range
        self.calls: list[str] = []
        self.seen: list[Picture] = []

    def encode(
        self, picture: Picture, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> bytes:
        self.calls.append("encode")
        self.seen.append(picture)
        drop = 8 - int(4 if quality is None else quality)
        centre = (1 << drop) >> 1
        file = io.BytesIO()
        Image.fromarray(((picture.pixels >> drop << drop) + centre).astype(np.uint8).transpose(1, 2, 0)).save(
            file, "PNG"
        )
        return file.getvalue()

    def decode(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> Picture:
        self.calls.append("decode")
        return Picture(np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1))


def save(path: Path, seed: int = 0, height: int = 48, width: int = 64, alpha: bool = False) -> Path:
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (height // 8, width // 8, 4 if alpha else 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def command(*words: str | Path) -> tuple[argparse.Namespace, int]:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    eval_command.add_parser(subparsers)
    reproduce_command.add_parser(subparsers)
    args = parser.parse_args([str(word) for word in words])
    return args, args.run(args)
