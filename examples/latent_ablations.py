"""What generation in the model-based latent space depends on (Scribano et al. 2023): one variant a call, and a table.

    python examples/latent_ablations.py ordered --images cats/ --refiner runs/refiner --out runs/ablations
    python examples/latent_ablations.py unordered --images cats/ --codebook-images mcm/ --out runs/ablations
    python examples/latent_ablations.py rq --images cats/ --out runs/ablations
    python examples/latent_ablations.py categorical --images cats/ --out runs/ablations
    python examples/latent_ablations.py codec --images cats/ --out runs/ablations
    python examples/latent_ablations.py table --out runs/ablations

A variant runs the commands that it prints: latents, training, samples, distance to held-back images. A call that was
interrupted goes on where it was.
"""

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HOLDBACK, SAMPLES, SHOWN = 500, 500, 8
REFINED = "+ refiner"
"""A row that needs --refiner."""
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


_PLAIN = {"": []}
VARIANTS = {
    "ordered": Variant(
        "OPQ, ordered codebooks, continuous", CONTINUOUS, "opq-32-8-8", {"": [], REFINED: []}
    ),
    "unordered": Variant("OPQ, codebooks in the order of k-means, continuous", CONTINUOUS, "unordered", _PLAIN),
    "rq": Variant("RQ, ordered codebooks, continuous", CONTINUOUS, "rq-32-8-8", _PLAIN),
    "categorical": Variant(
        "OPQ, ordered codebooks, categorical, Eq. 24", CATEGORICAL, "opq-32-8-8",
        {f"γ = {g}": ["--temperature", g, "--steps", "100"] for g in ("0", "0.5", "1", "2.2")},
    ),
    "categorical-ce": Variant(
        "the same with cross-entropy alone", CATEGORICAL, "opq-32-8-8",
        {f"γ = {g}": ["--temperature", g, "--steps", "100"] for g in ("0.5", "1")},
        ("categorical.image=0", "categorical.eps=0", "categorical.cross_entropy=1"),
    ),
}  # fmt: skip


def main() -> None:
    """Parses the command line, runs one variant or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=[*VARIANTS, "codec", "table"])
    parser.add_argument("--images", type=Path, help="a folder of cats of 128x128 px")
    parser.add_argument("--codebook-images", type=Path, help="the images that the codebooks of OPQ are trained on")
    parser.add_argument("--refiner", type=Path, help="of OPQ's images, for the variant ordered")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000, help="of each training (default: %(default)s)")
    args = parser.parse_args()
    if args.variant == "table":
        print(_table(args.out))
        return
    if args.images is None:
        parser.error("--images is missing")
    if args.variant == "codec":
        _codec_rows(args)
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
        if name == REFINED:
            if args.refiner is None:
                print(f"{variant.about} {REFINED}: left out; it needs --refiner FOLDER")
                continue
            options = ["--refiner", str(args.refiner)]
        folder = args.out / args.variant / f"samples-{number}"
        words = ["sample", model, "-n", SAMPLES, "--codec", codec, *options]
        _difflate(*words, "-o", f"{folder}/", "--force")
        _difflate(*["sample", model, "-n", SHOWN, *words[4:]], "--grid", SHOWN, "-o", f"{folder}.png", "--force")
        _measure(args, f"{variant.about}{', ' if name else ''}{name}", folder, f"{folder}.png")


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
    import torch

    import difflate
    from difflate.data.crops import Crops
    from difflate.data.items import hold_back, list_items
    from difflate.grid import image_grid, save_png

    others, _ = hold_back(list_items([args.images]), HOLDBACK)
    _, chosen = hold_back(others, SAMPLES)
    codec = difflate.load("opq-32-8-8")
    real = torch.stack([Crops([item], 128, short_side=128, augment=False).read(0)[0] for item in chosen])
    restored = torch.cat([codec.from_latent(codec.to_latent(images)) for images in real.split(50)])  # type: ignore
    for name, about, images in (("real", "other real images", real), ("codec", "the same, D(E(x)) of OPQ", restored)):
        folder = args.out / name / "samples"
        for number, image in enumerate(images):
            save_png(image, folder / f"{number:06d}.png")
        save_png(image_grid(images[:SHOWN], SHOWN), args.out / name / "samples.png")
        _measure(args, about, folder, args.out / name / "samples.png")


def _measure(args: argparse.Namespace, about: str, folder: Path, grid: str | Path) -> None:
    found = json.loads(
        _difflate("distance", folder, args.images, "--size", "128", "--holdback", HOLDBACK, "--json", read=True)
    )
    path = args.out / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    steps = None if args.variant == "codec" else args.steps
    results[about] = {"swd": found["swd"], "grid": str(grid), "steps": steps}
    path.write_text(json.dumps(results, indent=2) + "\n")


def _table(out: Path) -> str:
    results = json.loads((out / "results.json").read_text())
    levels = list(next(iter(results.values()))["swd"])
    heads = ["mean" if level == "mean" else f"{level} px" for level in levels]
    lines = ["| images | steps | " + " | ".join(heads) + " |", "|---|--:|" + "--:|" * len(levels)]
    for about, row in results.items():
        steps = "" if row["steps"] is None else row["steps"]
        lines.append(f"| {about} | {steps} | " + " | ".join(f"{row['swd'][k]:.1f}" for k in levels) + " |")
    return "\n".join(lines)


def _difflate(*words: object, done: int = 0, read: bool = False) -> str:
    """Runs a command; ``done``: an exit code that says that there is nothing left to do."""
    command = [sys.executable, "-m", "difflate", *map(str, words)]
    print("$ difflate", shlex.join(command[3:]), flush=True)
    found = subprocess.run(command, stdout=subprocess.PIPE if read else None, text=True, check=False)
    if found.returncode not in (0, done):
        raise SystemExit(found.returncode)
    return found.stdout


if __name__ == "__main__":
    main()
