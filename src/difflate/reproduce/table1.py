"""Table 1 of Scribano et al., "Denoising Diffusion Models on Model-Based Latent Space" (Algorithms 2023, 16, 501).

The printed PSNRs are those of a squared difference taken in uint8, which wraps around modulo 256: a pixel that is
off by 16 counts as correct. They are given beside the value that reproduces them and the true one.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from difflate.codecs.base import Codec
from difflate.errors import ConfigError
from difflate.evaluate.markdown import cell, markdown_table
from difflate.extras import require
from difflate.media.picture import Picture, as_picture, open_image
from difflate.media.suffixes import SUFFIXES
from difflate.metrics.distortion import bits_per_pixel, psnr
from difflate.metrics.pairs import planes_of_pair

IMAGES = ("baboon", "peppers", "lenna")
"""SIPI 4.2.03, 4.2.07 and 4.2.04 (512x512), found by these file names."""
PRINTED: dict[str, tuple[tuple[float, float], ...]] = {
    "vq-8-8-8": ((28.83, 0.40), (30.75, 0.63), (31.23, 0.67)),
    "pq-32-8-8": ((29.07, 0.60), (31.28, 0.69), (31.80, 0.74)),
    "opq-32-8-8": ((29.12, 0.62), (31.56, 0.72), (32.35, 0.78)),
    "rq-32-8-8": ((29.22, 0.64), (31.97, 0.75), (32.81, 0.81)),
}
"""(PSNR dB, SSIM) as printed, for each of `IMAGES`."""
PROTOCOL = {
    "ssim": "scikit-image structural_similarity: uniform 7x7 window, data range 255, mean over R, G and B",
    "psnr_wrapped": "dB; squared difference in uint8 arithmetic, modulo 256, as the printed values have it",
    "psnr_true": "dB; squared difference in float64",
    "ssim_printed, psnr_printed": "Table 1 of the paper",
    "images": "encoded by the codec to the bytes of a file, which were decoded again",
}


def psnr_wrapped(reference: Any, restored: Any) -> float:
    """PSNR in dB of a squared difference in uint8, which loses multiples of 256; inf if all of it is lost.

    Only good for reproducing numbers that were computed so. Raises VerificationFailed if their sizes differ.
    """
    first, second = planes_of_pair(reference, restored)
    difference = first - second
    # written out, because numpy >= 2 keeps uint8 here by rule and not by accident: 16 * 16 = 0
    squared_error = float(np.multiply(difference, difference, dtype=np.uint8).mean())
    return math.inf if squared_error == 0 else 10 * math.log10(255**2 / squared_error)


def ssim_skimage(reference: Any, restored: Any) -> float:
    """SSIM with scikit-image's default window (uniform 7x7), mean over the channels, data range 255.

    Raises VerificationFailed if their sizes differ, ConfigError if a side is below 7 px.
    """
    first, second = planes_of_pair(reference, restored)
    if min(first.shape[1:]) < 7:
        raise ConfigError(f"an image of {first.shape[2]}x{first.shape[1]} px is below the SSIM window of 7x7 px")
    structural_similarity = require("skimage.metrics", "eval").structural_similarity
    planes = (pixels.transpose(1, 2, 0) for pixels in (first, second))
    return float(structural_similarity(*planes, data_range=255, channel_axis=2))


def table1(
    image_folder: str | Path,
    codec_names: Sequence[str] = tuple(PRINTED),
    *,
    load: Callable[[str], Codec] | None = None,
) -> dict[str, Any]:
    """``{"rows": [...], "protocol": {...}}`` with a row per codec and image, codecs in the outer order.

    A row has ``encoding``, ``image``, ``bytes``, ``bpp``, ``ssim``, ``psnr_wrapped``, ``psnr_true``, ``ssim_printed``
    and ``psnr_printed`` (None for a codec that the paper does not have). Raises ConfigError if the folder does not
    hold the three images, ModelError if a codec's model is missing.
    """
    if load is None:
        from difflate.codecs import loading

        load = loading.load
    pictures = [Picture(open_image(find_image(image_folder, name)).pixels) for name in IMAGES]
    rows = []
    for encoding in codec_names:
        codec = load(encoding)
        printed = PRINTED.get(encoding, ((None, None),) * len(IMAGES))
        for name, picture, (psnr_printed, ssim_printed) in zip(IMAGES, pictures, printed, strict=True):
            data = codec.encode(picture)
            restored = as_picture(codec.decode(data))
            rows.append(
                {
                    "encoding": encoding,
                    "image": name,
                    "bytes": len(data),
                    "bpp": bits_per_pixel(len(data), picture.width, picture.height),
                    "ssim": ssim_skimage(picture, restored),
                    "psnr_wrapped": finite(psnr_wrapped(picture, restored)),
                    "psnr_true": finite(psnr(picture, restored)),
                    "ssim_printed": ssim_printed,
                    "psnr_printed": psnr_printed,
                }
            )
    return {"rows": rows, "protocol": PROTOCOL}


def format_table(result: dict[str, Any]) -> str:
    """``result`` of `table1` as Markdown: per image the PSNR printed, wrapped, true and the SSIM printed, ours."""
    by_encoding: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        by_encoding.setdefault(row["encoding"], []).append(row)
    names = [row["image"] for row in next(iter(by_encoding.values()), [])]
    head = [column for name in names for column in (f"{name}: PSNR printed", "wrapped", "true", "SSIM printed", "ours")]
    columns = (("psnr_printed", 2), ("psnr_wrapped", 2), ("psnr_true", 2), ("ssim_printed", 2), ("ssim", 3))
    lines = [
        [encoding, *(cell(row[key], places) for row in rows for key, places in columns)]
        for encoding, rows in by_encoding.items()
    ]
    return markdown_table(["encoding", *head], lines)


def find_image(folder: str | Path, name: str) -> Path:
    """The image file called ``name`` with any image suffix in ``folder``. Raises ConfigError if there is none."""
    if Path(folder).is_dir():
        for path in sorted(Path(folder).iterdir()):
            if path.stem.lower() == name and path.suffix.lower() in SUFFIXES:
                return path
    raise ConfigError(f"{folder} has no image called {name}; it needs {', '.join(f'{image}.png' for image in IMAGES)}")


def finite(value: float) -> float | None:
    """``value``, or None, which JSON has, for the infinite PSNR of identical images."""
    return value if math.isfinite(value) else None
