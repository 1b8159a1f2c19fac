"""What generation in the model-based latent space depends on (Scribano et al. 2023): one variant a call, and a table.

    python examples/latent_ablations.py ordered --images cats/ --out runs/ablations
    python examples/latent_ablations.py unordered --images cats/ --codebook-images mcm/ --out runs/ablations
    python examples/latent_ablations.py eopq --images cats/ --out runs/ablations
    python examples/latent_ablations.py rq --images cats/ --out runs/ablations
    python examples/latent_ablations.py categorical --images cats/ --out runs/ablations
    python examples/latent_ablations.py categorical-ce --images cats/ --out runs/ablations
    python examples/latent_ablations.py codec --images cats/ --out runs/ablations
    python examples/latent_ablations.py noise --images cats/ --out runs/ablations
    python examples/latent_ablations.py table --out runs/ablations

A variant runs the commands that it prints: latents, training, samples, distance to held-back images. A call that was
interrupted goes on where it was. `codec` measures what no generator can beat, `noise` what wrong indices cost.
"""

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

HOLDBACK, SAMPLES, SHOWN = 500, 500, 8
NOISE = (0, 0.01, 0.03, 0.1, 0.3)
CONTINUOUS, CATEGORICAL = "configs/cats-latent-small.yaml", "configs/cats-categorical-small.yaml"


@dataclass(frozen=True)
class Variant:
    """A training, and the ways to sample from it."""

    about: str
    config: str
    codec: str
    draws: dict[str, list[str]]
    """What a row of the table is called, and the options of `difflate sample`."""
    train: tuple[str, ...] = ()
    """Further settings of the training."""


_ROUNDED, _SOFT, _REFINED = ["--softness", "0"], ["--softness", "0.03"], ["--refine"]
_PLAIN = {"": _ROUNDED, "softness .03": _SOFT}
VARIANTS = {
    "ordered": Variant(
        "OPQ, ordered codebooks, continuous", CONTINUOUS, "opq-32-8-8",
        {"": _ROUNDED, "refined": [*_ROUNDED, *_REFINED], "softness .03, refined": [*_SOFT, *_REFINED]},
    ),
    "unordered": Variant("OPQ, codebooks in the order of k-means, continuous", CONTINUOUS, "unordered", _PLAIN),
    "eopq": Variant(
        "EOPQ, ordered codebooks, continuous", CONTINUOUS, "eopq-32-8-8",
        {**_PLAIN, "softness .03, refined": [*_SOFT, *_REFINED]},
    ),
    "rq": Variant("RQ, ordered codebooks, continuous", CONTINUOUS, "rq-32-8-8", _PLAIN),
    "categorical": Variant(
        "OPQ, ordered codebooks, categorical, Eq. 24", CATEGORICAL, "opq-32-8-8",
        {f"γ = {g}": ["--temperature", g] for g in ("0", "0.5", "1", "2.2")}
        | {"γ = 1, refined": ["--temperature", "1", *_REFINED]},
    ),
    "categorical-ce": Variant(
        "the same with cross-entropy alone", CATEGORICAL, "opq-32-8-8",
        {f"γ = {g}": ["--temperature", g] for g in ("0.5", "1")},
        ("categorical.image=0", "categorical.eps=0", "categorical.cross_entropy=1"),
    ),
}  # fmt: skip


def main() -> None:
    """Parses the command line, runs one variant or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=[*VARIANTS, "codec", "noise", "table"])
    parser.add_argument("--images", type=Path, help="a folder of cats of 128x128 px")
    parser.add_argument("--codebook-images", type=Path, help="the images that the codebooks of OPQ are trained on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000, help="of each training (default: %(default)s)")
    args = parser.parse_args()
    if args.variant == "table":
        print(_table(args.out))
        return
    if args.images is None:
        parser.error("--images is missing")
    if args.variant in ("codec", "noise"):
        (_codec_rows if args.variant == "codec" else _noise_rows)(args)
        return
    if args.variant == "unordered" and args.codebook_images is None:
        parser.error("--codebook-images is missing: the unordered codebooks are trained first")
    _run(args, VARIANTS[args.variant])


def _run(args: argparse.Namespace, variant: Variant) -> None:
    codec = _unordered(args) if variant.codec == "unordered" else variant.codec
    latents, model = args.out / "latents" / variant.codec, args.out / args.variant / "model"
    if not list(latents.glob("*.safetensors")):
        _difflate("latents", args.images, "--codec", codec, "-o", f"{latents}/")
    _difflate(
        "train", variant.config, f"latents={latents}", f"codec={codec}", f"holdback={HOLDBACK}", f"out={model}",
        f"training.max_steps={args.steps}", "training.max_minutes=null", *variant.train, done=6,
    )  # fmt: skip
    for number, (name, options) in enumerate(variant.draws.items()):
        folder = args.out / args.variant / f"samples-{number}"
        words = ["sample", model, "-n", SAMPLES, "--codec", codec, *options]
        _difflate(*words, "-o", f"{folder}/", "--force")
        _difflate(*["sample", model, "-n", SHOWN, *words[4:]], "--grid", SHOWN, "-o", f"{folder}.png", "--force")
        _measure(args, _label(variant, name), folder, f"{folder}.png")


def _label(variant: Variant, draw: str) -> str:
    return f"{variant.about}, {draw}" if draw else variant.about


def _unordered(args: argparse.Namespace) -> Path:
    """The codec of the same codebooks in the order of k-means; its context model is not needed here."""
    folder = args.out / "opq-32-8-8-unordered"
    if not (folder / "config.json").exists():
        _difflate(
            "train", "configs/opq-32-8-8.yaml", f"images={args.codebook_images}",
            f"context_images={args.codebook_images}", "ordered=false", "context_steps=1", "context_views=1",
            f"out={folder}",
        )  # fmt: skip
    return folder


def _codec_rows(args: argparse.Namespace) -> None:
    """What no generator of these latents can do better than: real images, restored by the codec."""
    import difflate
    from difflate.generate.grid import image_grid, save_png
    from difflate.models.latent_space import latent_space

    real = _real(args, held_back=False)
    sets = [("real", "other real images", real)]
    for name in ("opq-32-8-8", "eopq-32-8-8", "rq-32-8-8"):
        space = latent_space(difflate.load(name))
        sets.append((name, f"the same, D(E(x)) of {name}", space.from_latent(space.to_latent(real))))
    for name, about, images in sets:
        folder = args.out / "codec" / name
        for number, image in enumerate(images):
            save_png(image, folder / f"{number:06d}.png")
        save_png(image_grid(images[:SHOWN], SHOWN), args.out / "codec" / f"{name}.png")
        _measure(args, about, folder, args.out / "codec" / f"{name}.png")


def _noise_rows(args: argparse.Namespace) -> None:
    """Prints the PSNR of D(E(x) + noise) of the held-back images, by the noise on indices scaled to [-1, 1]."""
    import torch

    import difflate
    from difflate.diffusion import IndexSpace
    from difflate.models.latent_space import latent_space

    real = _real(args, held_back=True)
    unordered = args.out / "opq-32-8-8-unordered"
    folders = [unordered] if (unordered / "config.json").exists() else []
    print("| codec | " + " | ".join(f"σ = {sigma:g}" for sigma in NOISE) + " |\n|---|" + "--:|" * len(NOISE))
    for name in ("opq-32-8-8", "eopq-32-8-8", "rq-32-8-8", *folders):
        space = latent_space(difflate.load(name))
        places = IndexSpace(tuple(space.sizes))
        z = places.scale(space.to_latent(real))
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
        psnrs_db = []
        for sigma in NOISE:
            restored = space.from_latent(places.indices(z + sigma * noise))
            mse = (restored.float() - real.float()).square().flatten(1).mean(1)
            psnrs_db.append(float((20 * torch.log10(torch.tensor(255.0)) - 10 * mse.log10()).mean()))
        print(f"| {Path(name).name} | " + " | ".join(f"{value:.2f}" for value in psnrs_db) + " |")


def _real(args: argparse.Namespace, held_back: bool) -> "Tensor":
    """(500, 3, 128, 128) uint8: the images that generators are not trained on, or as many others."""
    import torch

    from difflate.data.crops import Crops
    from difflate.data.items import hold_back, list_items

    others, held = hold_back(list_items([args.images]), HOLDBACK)
    items = held if held_back else hold_back(others, SAMPLES)[1]
    return torch.stack([Crops([item], 128, short_side=128, augment=False).read(0)[0] for item in items])


def _measure(args: argparse.Namespace, about: str, folder: Path, grid: str | Path) -> None:
    measured = json.loads(
        _difflate("distance", folder, args.images, "--size", "128", "--holdback", HOLDBACK, "--json", read=True)
    )
    path = args.out / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    steps = None if args.variant == "codec" else args.steps
    results[about] = {"swd": measured["swd"], "grid": str(grid), "steps": steps}
    path.write_text(json.dumps(results, indent=2) + "\n")


def _table(out: Path) -> str:
    """The table; grids.jpg has the first samples of each training in it, in that order."""
    from PIL import Image

    rows = json.loads((out / "results.json").read_text())
    order = [_label(variant, name) for variant in VARIANTS.values() for name in variant.draws]
    results = {about: rows[about] for about in sorted(rows, key=lambda a: order.index(a) if a in order else -1)}
    grids = [Image.open(row["grid"]) for row in results.values() if row["steps"] is not None]
    if not grids:
        raise SystemExit(f"{out}: no variant has been trained yet")
    pitch = grids[0].height + 2
    picture = Image.new("RGB", (grids[0].width, pitch * len(grids) - 2))
    for number, grid in enumerate(grids):
        picture.paste(grid, (0, number * pitch))
    picture.save(out / "grids.jpg", quality=65, optimize=True, progressive=True)
    sizes = list(next(iter(results.values()))["swd"])
    heads = ["mean" if size == "mean" else f"{size} px" for size in sizes]
    lines = ["| images | steps | " + " | ".join(heads) + " |", "|---|--:|" + "--:|" * len(sizes)]
    for about, row in results.items():
        steps = "" if row["steps"] is None else row["steps"]
        lines.append(f"| {about} | {steps} | " + " | ".join(f"{row['swd'][k]:.1f}" for k in sizes) + " |")
    return "\n".join(lines)


def _difflate(*words: object, done: int = 0, read: bool = False) -> str:
    """Runs a command; ``done``: an exit code that says that there is nothing left to do."""
    command = [sys.executable, "-m", "difflate", *map(str, words)]
    print("$ difflate", shlex.join(command[3:]), flush=True)
    process = subprocess.run(command, stdout=subprocess.PIPE if read else None, text=True, check=False)
    if process.returncode not in (0, done):
        raise SystemExit(process.returncode)
    return process.stdout


if __name__ == "__main__":
    main()
