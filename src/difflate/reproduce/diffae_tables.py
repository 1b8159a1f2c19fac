"""Tables 1 to 3 of Rampas, "On Neural Compression using Diffusion Autoencoders" (2024), with small models.

The printed Fréchet distances are of models of 156 to 280 million parameters at 512 px, in other features, and the
printed errors of mispaired images: values do not compare with ours, only what is better than what.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from difflate.evaluate.markdown import cell, markdown_table
from difflate.reproduce.diffae_models import CHANNELS, STRIDE_PX, VARIANTS, VQGAN, Scale, held_back, restored, trained
from difflate.reproduce.pairs import PAIR_PROTOCOL, measure_sets

STEPS = 30
"""N of the thesis' sampling."""


@dataclass(frozen=True)
class Line:
    """A line of a table: a model of ours, and what is printed of the thesis'."""

    model: str
    """Of `VARIANTS`, or `VQGAN`."""
    title: str
    printed: tuple[float, float, float] | None
    """FID, mean squared error and PSNR."""
    steps: int = STEPS


def _line(name: str, printed: tuple[float, float, float] | None) -> Line:
    return Line(name, VARIANTS[name].title, printed)


_DEFAULT = (10.3849, 0.1939, 7.1434)
TABLES: Mapping[str, tuple[Line, ...]] = {
    "diffae-table1": (
        _line("x0", (13.9484, 0.2101, 6.7951)),
        _line("eps", (10.6094, 0.2165, 6.6640)),
        _line("v", (15.9652, 0.2034, 6.9365)),
        _line("x0-min-snr", _DEFAULT),
        _line("eps-p2", (12.0880, 0.2182, 6.6299)),
        _line("v-sech", (15.6047, 0.1805, 7.4541)),
    ),
    "diffae-table2": (
        _line("lite0", _DEFAULT),
        _line("lite0-random", (57.0914, 0.2025, 6.9480)),
        Line("x0-min-snr", "conv encoder", None),
        _line("larger", (10.3027, 0.2039, 6.9223)),
    ),
    "diffae-table3": (
        Line(VQGAN, "VQGAN", (22.2873, 0.1981, 7.0526), steps=1),
        Line("x0-min-snr", "x0, min-SNR, N = 1", (38.8347, 0.2488, 6.0537), steps=1),
        Line("x0-min-snr", "x0, min-SNR, N = 10", (8.8687, 0.1984, 7.0446), steps=10),
        Line("x0-min-snr", "x0, min-SNR, N = 30", (8.8549, 0.1948, 7.1213), steps=30),
    ),
}
"""By the names of the commands. Table 2 of the thesis has EfficientNetV2-S, pretrained and random, and V2-L, whose
line is here that of a larger encoder of our own."""


def table(name: str, scale: Scale, progress: bool = False) -> dict[str, Any]:
    """``{"rows": [...], "protocol": {...}}`` of a table of `TABLES`; what is not trained yet is trained first.

    Raises ConfigError, and what trainings raise.
    """
    lines = TABLES[name]
    models = {line.model: trained(line.model, scale, progress) for line in lines}
    originals = held_back(scale)
    sets = [restored(models[line.model].model, originals, line.steps, scale.guidance) for line in lines]
    rows = [
        {
            "model": line.title,
            **models[line.model].row,
            "N": line.steps,
            **row,
            **dict(zip(("fid_printed", "mse_mispaired", "psnr_mispaired"), line.printed or (None,) * 3, strict=True)),
        }
        for line, row in zip(lines, measure_sets(originals, sets), strict=True)
    ]
    return {"rows": rows, "protocol": protocol(scale)}


def protocol(scale: Scale) -> dict[str, str]:
    """How models were trained and measured."""
    ratio = STRIDE_PX**2 * 3 * 8 // (16 * CHANNELS)
    return {
        "training": f"crops of {scale.px} px of {', '.join(map(str, scale.images))}; {scale.holdback} images, evenly "
        "spaced, held back; batches of 8; AdamW, 1e-3, cosine decay; average of the weights; seed 0",
        "latent": f"{CHANNELS} numbers every {STRIDE_PX} px, continuous, normalised: a ratio of {ratio} at 16 bits a "
        "number, as the thesis counts; measured in steps of .25, as files hold it. VQGAN: one of 1024 codewords",
        "diffusion": "in pixels; cosine schedule, variance preserving, uniform times, encoder trained by its loss "
        "alone; DDIM, not DDPM, from noise of each image's number; of the middles of the held-back images",
        "guidance": f"w = {scale.guidance:g}; the thesis has 3",
        "VQGAN": "same encoder; mean absolute error, LPIPS with AlexNet, an adversary from "
        f"step {scale.adversary_step} on",
        "fid_printed": "of other models and images, in other features: compares in its order only",
        "mse_mispaired, psnr_mispaired": "as printed: those of images that do not belong together",
        **PAIR_PROTOCOL,
    }


def format_rows(result: dict[str, Any]) -> str:
    """``result`` of `table` as Markdown, with a line for each row whose images are mispaired, or of nothing."""
    columns: Sequence[tuple[str, str, int]] = (
        ("M weights", "parameters_m", 2), ("steps", "steps", 0), ("minutes", "minutes", 1), ("N", "N", 0),
        ("FID printed", "fid_printed", 2), ("Fréchet VGG16", "frechet-vgg16", 1), ("SWD", "swd", 1),
        ("LPIPS", "lpips", 3), ("DISTS", "dists", 3), ("SSIM", "ssim", 3), ("MS-SSIM", "ms_ssim", 3),
        ("PSNR printed, mispaired", "psnr_mispaired", 2), ("PSNR shifted pairs", "psnr_shifted", 2),
        ("PSNR true", "psnr", 2),
    )  # fmt: skip
    rows = result["rows"]
    columns = [column for column in columns if any(row[column[1]] is not None for row in rows)]
    lines = [[row["model"], *(cell(row[key], places) for _, key, places in columns)] for row in rows]
    text = markdown_table(["model", *(title for title, _, _ in columns)], lines)
    return text + "".join(
        f"\n{row['model']}: restored images are no nearer to their originals than to others (PSNR "
        f"{row['psnr']:.2f} and {row['psnr_shifted']:.2f} dB); they are mispaired, or have nothing of them.\n"
        for row in rows
        if not row["paired"]
    )
