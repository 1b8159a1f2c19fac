"""What the tests of the command line share: an image, what a folder holds, a file that only declares things."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from difflate.format import container
from difflate.limits import Limits
from difflate.registry import WEIGHTS

VQ = "eopq-32-8-8"
"""A codec with one quality, and with what vq codecs alone have."""
Run = Callable[..., tuple[int, bytes, str]]


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 24)) -> Image.Image:
    rows, columns = np.mgrid[: size[1], : size[0]]
    samples = np.stack([128 + 100 * np.sin(rows / 9 + c + columns / (7 + c)) for c in range(4)], axis=2)
    image = Image.fromarray(samples.astype(np.uint8))
    return image.convert("RGB").convert("P") if mode == "P" else image.convert(mode)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def crafted(**changes: object) -> bytes:
    """A .dfl file with right checksums that need not hold what it declares."""
    model_id = bytes.fromhex(json.loads((WEIGHTS / VQ / "config.json").read_text())["fingerprint"])[:4]
    values = dict(
        codec=1, model_id=model_id, width=40, height=24, grey=False, symbols_crc=0, sections=((1, bytes(90)),)
    )
    return container.write_dfl(container.DflFile(**(values | changes)), Limits(pixels=None))  # pyright: ignore[reportArgumentType]
