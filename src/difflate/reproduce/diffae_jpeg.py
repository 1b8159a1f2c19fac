"""Table 4 of Rampas, "On Neural Compression using Diffusion Autoencoders" (2024): JPEG at five qualities."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from difflate.codecs.classical import classical_codecs
from difflate.data.items import list_items
from difflate.errors import VerificationFailed
from difflate.evaluate.markdown import cell, markdown_table
from difflate.media.picture import Picture
from difflate.metrics.distortion import compression_ratio
from difflate.metrics.sets import read_images, spread
from difflate.reproduce.pairs import PAIR_PROTOCOL, by_name, measure_sets

PRINTED = {
    50: (15, 2.5695, 0.2141, 6.7152),
    25: (23, 4.3632, 0.2159, 6.6761),
    10: (46, 11.1238, 0.2137, 6.7219),
    5: (93, 24.5988, 0.2091, 6.8156),
    1: (144, 51.9815, 0.2163, 6.6673),
}
"""Quality to compression ratio, FID, mean squared error and PSNR as printed; the last two are of mispaired images."""
PX = 512
"""Side of the images of the printed table."""
MEASURES = ("ms_ssim", "lpips")
"""DISTS, which looks at such images with VGG16 once more, would take as long as all else."""


def table4(images: Sequence[str | Path], px: int = PX, max_images: int | None = None) -> dict[str, Any]:
    """``{"rows": [...], "protocol": {...}}`` with a row per quality.

    The images of the folders ``images``, evenly spaced if there are more than ``max_images``, their short side scaled
    to ``px``, the middle of the other. Raises ConfigError, VerificationFailed if decoded images are not those that were
    encoded.
    """
    items = list_items(images)
    if max_images is not None:
        _, items = spread(items, max_images)
    found = read_images(images[0], items, px)
    originals = by_name(found.items, found.images)
    codec = classical_codecs()["jpeg"]
    sets, ratios = [], []
    for quality in PRINTED:
        files = {name: codec.encode(Picture(pixels), quality=quality) for name, pixels in originals.items()}
        ratios.append(statistics.fmean(compression_ratio(len(data), px, px) for data in files.values()))
        sets.append({name: codec.decode(data).pixels for name, data in files.items()})
    rows = []
    for (quality, printed), ratio, row in zip(
        PRINTED.items(), ratios, measure_sets(originals, sets, MEASURES), strict=True
    ):
        if not row["paired"]:
            raise VerificationFailed(
                f"JPEG at quality {quality}: images are {row['psnr']:.1f} dB from their originals and "
                f"{row['psnr_shifted']:.1f} dB from others; they are mispaired"
            )
        own = dict(zip(("ratio_printed", "fid_printed", "mse_mispaired", "psnr_mispaired"), printed, strict=True))
        rows.append({"quality": quality, "ratio": ratio, **row, **own})
    protocol = {
        "images": f"short side scaled to {px} px, the middle of the other side",
        "ratio": "bytes of 8-bit RGB for each byte of the file, mean over the images; Huffman tables of their own",
        "mse_mispaired, psnr_mispaired": "as printed: those of images that do not belong together",
        "fid_printed": "in features of another network, of other images: compares in its order only",
        **PAIR_PROTOCOL,
    }
    return {"rows": rows, "protocol": protocol}


def format_table4(result: dict[str, Any]) -> str:
    """``result`` of `table4` as Markdown."""
    columns = (
        ("Q", "quality", 0), ("ratio printed", "ratio_printed", 0), ("ratio", "ratio", 1),
        ("FID printed", "fid_printed", 2), ("Fréchet VGG16", "frechet-vgg16", 3), ("LPIPS", "lpips", 3),
        ("MS-SSIM", "ms_ssim", 3), ("PSNR printed, mispaired", "psnr_mispaired", 2),
        ("PSNR shifted pairs", "psnr_shifted", 2), ("PSNR true", "psnr", 2),
    )  # fmt: skip
    lines = [[cell(row[key], places) for _, key, places in columns] for row in result["rows"]]
    return markdown_table([title for title, _, _ in columns], lines)
