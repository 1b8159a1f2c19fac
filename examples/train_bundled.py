"""Trains the bundled neural models one after the other, within a time budget, on whatever device there is.

    python examples/train_bundled.py --data data/ --minutes 600
    python examples/train_bundled.py --data data/ --minutes 10 --only hyperprior-small cdc-small   # on a fast GPU

``--data`` holds the folders that the configurations name: photos/, imagenet/ and bsds/ of photographs for the codecs,
cats/ and catfaces/ of squares of 128 px for the generator. Each model has its share of the minutes. What is trained
already is left as it is, and what was interrupted goes on, so a second call with more minutes continues the first.
The weights of LPIPS must be in torch's cache (docs/metrics.md). What comes out are folders in ``--out``, for --codec
and `difflate sample`; `examples/convert_weights.py` makes them as light as the bundled ones.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

VARY = Path(__file__).resolve().with_name("vary_faces.py")
CONFIGS = Path(__file__).resolve().parent.parent / "configs"
PHOTOGRAPHS = ("photos", "imagenet", "bsds")
CATS, FACES = "cats", "catfaces"
SIZE = ["--size", "256"]


@dataclass(frozen=True)
class Part:
    """A training, or a stage of one."""

    config: str
    share: float
    """Of the minutes, if all models are trained."""
    prefix: str
    """Of the keys of its loop."""
    records: bool = True
    """Whether its steps can be recorded as CUDA graphs."""


MODELS = {
    "hyperprior-small": [Part("hyperprior-small", 0.45, "training")],
    "cdc-small": [
        Part("cdc-small", 0.07, "stages.diffusion.training"),
        Part("cdc-small", 0.1, "stages.perceptual.training"),
        Part("cdc-small", 0.03, "stages.nearer.training"),
        Part("cdc-small", 0.1, "stages.adversarial.training"),
    ],
    "diffae-small": [
        Part("diffae-small", 0.1, "stages.joint.training"),
        Part("diffae-small", 0.2, "stages.one_step.training"),
    ],
    "refiner-opq-32-8-8": [Part("refiner-opq-32-8-8", 0.03, "training", records=False)],
    "refiner-eopq-32-8-8": [Part("refiner-opq-32-8-8", 0.02, "training", records=False)],
    "cats-whole": [Part("cats-diffae-small", 0.07, "training")],
    "cats-small": [Part("cats-diffae-small", 0.13, "training")],
}


def main() -> None:
    """Runs `difflate train` for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the folders of images")
    parser.add_argument("--minutes", type=float, required=True, help="of training in all; starting up comes on top")
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS), help="these models alone")
    parser.add_argument("--out", type=Path, default=Path("runs/bundled"), help="folder of the models' folders")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of all of them")
    args = parser.parse_args()
    import torch

    on_gpu = torch.cuda.is_available()
    whole = sum(part.share for name in args.only for part in MODELS[name])
    failed = []
    for name in (name for name in MODELS if name in args.only):
        parts = MODELS[name]
        settings = [f"out={args.out / name}", *_data(name, args), *args.set]
        for part in parts:
            settings.append(f"{part.prefix}.max_minutes={args.minutes * part.share / whole:.4f}")
            if on_gpu:
                settings += [f"{part.prefix}.workers=8", f"{part.prefix}.cuda_graph={str(part.records).lower()}"]
        if on_gpu and not name.startswith("cats"):
            settings.append("in_memory=true")
        command = [sys.executable, "-m", "difflate", "train", str(CONFIGS / f"{parts[0].config}.yaml"), *settings]
        print(" ".join(command[2:]), flush=True)
        code = subprocess.run(command, check=False).returncode
        if code == 130:
            raise SystemExit(code)
        if code and not (args.out / name / "config.json").exists():
            failed.append(name)
    if failed:
        raise SystemExit(f"not trained: {', '.join(failed)}; see above")


def _data(name: str, args: argparse.Namespace) -> list[str]:
    """The settings that say what a model is trained on."""
    if name == "cats-whole":
        latents = args.out / "latents-cats"
        _write_latents(args.data / CATS, latents, *SIZE)
        return [f"latents=[{latents}]"]
    if name == "cats-small":
        latents, varied, whole = (args.out / folder for folder in ("latents-catfaces", "catfaces-varied", "cats-whole"))
        if not latents.exists() and not varied.exists():
            subprocess.run([sys.executable, str(VARY), str(args.data / FACES), str(varied), *SIZE], check=True)
        _write_latents(varied, latents)
        return [f"latents=[{latents}]", *([f"training.init_from={whole}"] if whole.exists() else [])]
    images = [f"images=[{','.join(str(args.data / folder) for folder in PHOTOGRAPHS)}]"]
    if name == "cdc-small":
        coder = args.out / "hyperprior-small"
        return [*images, f"coder_from={coder if coder.exists() else 'hyperprior-small'}"]
    return [*images, f"codec={name.removeprefix('refiner-')}"] if name.startswith("refiner-") else images


def _write_latents(images: Path, latents: Path, *options: str) -> None:
    if not latents.exists():
        command = ["latents", str(images), "--codec", "diffae-small", "--no-flips", *options, "-o", str(latents)]
        subprocess.run([sys.executable, "-m", "difflate", *command], check=True)


if __name__ == "__main__":
    main()
