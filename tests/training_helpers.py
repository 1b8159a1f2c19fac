"""Images and settings for the tests of training."""

import io
import multiprocessing
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from difflate.diffusion import ProcessConfig
from difflate.nn import UNetConfig
from difflate.train import checkpoint
from difflate.train.output import CHECKPOINTS
from difflate.train.recipes import pixel
from difflate.train.settings import LoopSettings

NETWORK = UNetConfig(widths=(8, 16), blocks=(1, 1), head_width=8)
LOOP = LoopSettings(
    max_steps=12,
    batch=8,
    lr=2e-3,
    warmup_steps=3,
    log_every=2,
    validate_every=6,
    pictures_every=0,
    checkpoint_every=4,
    workers=0,
)
YAML = """
recipe: pixel
out: {out}
images: [{images}]
holdback: 6
image_px: 8
network: {{widths: [8, 16], blocks: [1, 1], head_width: 8}}
training: {{max_steps: 12, batch: 8, lr: 2.0e-3, warmup_steps: 3, log_every: 2, validate_every: 6, pictures_every: 0,
  checkpoint_every: 4, workers: 0}}
"""


def picture(number: int, height: int = 10, width: int = 12) -> np.ndarray:
    """(height, width, 3) uint8: a coloured slope, another for each number."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    plane = rng.uniform(0, 200, 3) + 50 * (rows[..., None] * rng.normal(size=3) + columns[..., None])
    return plane.clip(0, 255).astype(np.uint8)


def write_images(folder: Path, count: int = 30) -> Path:
    """``folder`` with so many PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(picture(number)).save(folder / f"{number:03d}.png")
    return folder


def write_shard(path: Path, numbers: range, broken: tuple[int, ...] = ()) -> Path:
    """A tar archive of PNG members, as WebDataset has them; those in ``broken`` are no images."""
    with tarfile.open(path, "w") as tar:
        for number in numbers:
            file = io.BytesIO()
            Image.fromarray(picture(number)).save(file, "PNG")
            data = b"no image" if number in broken else file.getvalue()
            for suffix, content in ((".png", data), (".json", b"{}")):
                info = tarfile.TarInfo(f"{number:03d}{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def settings(images: Path | list[Path], out: Path, loop: dict[str, Any] | None = None, **others: Any):
    """`PixelTraining` of a network that trains in a second."""
    named = images if isinstance(images, list) else [images]
    values: dict[str, Any] = {"holdback": 6, "image_px": 8, "network": NETWORK, "process": ProcessConfig(), **others}
    return pixel.PixelTraining(
        out=str(out), images=[str(path) for path in named], training=LoopSettings(**{**vars(LOOP), **(loop or {})}),
        **values,
    )  # fmt: skip


def write_yaml(folder: Path, images: Path, out: Path) -> Path:
    """The same settings as a file."""
    path = folder / "tiny.yaml"
    path.write_text(YAML.format(out=out, images=images))
    return path


def newest(out: Path) -> Path:
    """The newest checkpoint of the training in ``out``."""
    path = checkpoint.latest(out / CHECKPOINTS)
    assert path is not None
    return path


def tensors(out: Path) -> dict[str, torch.Tensor]:
    """What it holds."""
    return load_file(newest(out))


def assert_same(a: Path, b: Path, tolerance: float = 0.0) -> None:
    """The trainings in ``a`` and ``b`` are at the same point."""
    ours, theirs = tensors(a), tensors(b)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=tolerance, atol=tolerance, msg=name)


FORKED = multiprocessing.get_context("forkserver")
# with what a first step imports
FORKED.set_forkserver_preload(
    ["difflate.cli.main", "difflate.train.recipes.pixel", "accelerate.state", "torch._dynamo", "torch.distributed",
     "torch.utils.tensorboard", "jsonargparse", "yaml"]
)  # fmt: skip


def forked(target: Callable[..., object], *arguments: object) -> "multiprocessing.process.BaseProcess":
    """A process that calls ``target``, started from one that has imported everything and computed nothing."""
    process = FORKED.Process(target=_as_program, args=(target, *arguments))
    process.start()
    return process


def _as_program(target: Callable[..., object], *arguments: object) -> None:
    multiprocessing.set_start_method("fork", force=True)  # of the workers that it starts
    target(*arguments)
