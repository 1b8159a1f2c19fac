"""`python -m benchmarks`: all ratios in one run, as Markdown on stdout and as JSON in out/benchmarks.json."""

import argparse
import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

IMAGE = Path(__file__).parent.parent / "examples" / "kodim23.png"
PACKAGES = (
    "difflate",
    "torch",
    "numpy",
    "pillow",
    "constriction",
    "faiss-cpu",
    "denoising-diffusion-pytorch",
    "diffusers",
)


def main() -> None:
    """Parses the command line, measures and writes."""
    arguments = _parser().parse_args()
    if not arguments.image.is_file():
        raise SystemExit(f"image ({arguments.image}) is not there; name one of at least 768 x 512 with --image")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # numpy's matrices read them when it is imported
        os.environ[name] = str(arguments.threads)
    machine = _machine(arguments.threads)
    results = _measure(arguments)
    from benchmarks.timing import markdown

    print(markdown(results))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"machine": machine, **asdict(results)}, indent=2) + "\n", "utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--model", default="opq-32-8-8", metavar="FOLDER", help="vq model: name or folder")
    parser.add_argument("--image", type=Path, default=IMAGE, help="at least 768 x 512 pixels")
    parser.add_argument(
        "--photos", type=Path, default=IMAGE.parent, metavar="FOLDER", help="photographs for a large one; part large"
    )
    parser.add_argument("--compressai", metavar="PYTHON", help="Python of an environment that has CompressAI")
    parser.add_argument("--device", default="cpu", help="cpu, cuda …; part batches")
    parser.add_argument("--threads", type=int, default=_cores(), help="default: all cores")
    parser.add_argument("--rounds", type=int, default=41, help="interleaved rounds that the medians are taken over")
    parser.add_argument("--only", choices=PARTS, metavar="PART", help=f"measure only one of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks.json"), help="JSON file to write")
    return parser


def _measure(arguments: argparse.Namespace):
    import torch

    from benchmarks.timing import Results

    torch.set_num_threads(arguments.threads)
    parts = [run(arguments) for name, run in PARTS.items() if arguments.only in (None, name)]
    return Results([row for part in parts for row in part.rows], [fact for part in parts for fact in part.facts])


def _transform(arguments: argparse.Namespace):
    import faiss

    from benchmarks import transform

    faiss.omp_set_num_threads(arguments.threads)
    return transform.run(*_codec_and_image(arguments), arguments.rounds)


def _context(arguments: argparse.Namespace):
    from benchmarks import context

    return context.run(*_codec_and_image(arguments), arguments.rounds)


def _entropy(arguments: argparse.Namespace):
    from benchmarks import entropy

    return entropy.run(arguments.rounds, arguments.compressai)


def _networks(arguments: argparse.Namespace):
    from benchmarks import networks

    return networks.run(arguments.rounds)


def _latent(arguments: argparse.Namespace):
    from benchmarks import latent

    return latent.run(arguments.rounds)


def _codecs(arguments: argparse.Namespace):
    import numpy as np

    from benchmarks import codecs, context

    image = _image(arguments).convert("RGB").crop((0, 0, context.WIDTH_PX, context.HEIGHT_PX))
    pixels = np.ascontiguousarray(np.array(image).transpose(2, 0, 1))
    return codecs.run(pixels, arguments.rounds, arguments.threads, arguments.compressai)


def _commands(arguments: argparse.Namespace):
    from benchmarks import commands

    return commands.run(arguments.image, arguments.rounds)


def _large(arguments: argparse.Namespace):
    from benchmarks import large

    return large.run(arguments.photos, arguments.rounds)


def _batches(arguments: argparse.Namespace):
    from benchmarks import batches

    return batches.run(_image(arguments), arguments.rounds, arguments.device)


PARTS = {
    "transform": _transform,
    "context": _context,
    "entropy": _entropy,
    "networks": _networks,
    "codecs": _codecs,
    "latent": _latent,
    "commands": _commands,
    "large": _large,
    "batches": _batches,
}


def _codec_and_image(arguments: argparse.Namespace):
    import difflate
    from difflate.codecs.vq import VqCodec

    codec = difflate.load(arguments.model)
    if not isinstance(codec, VqCodec):
        raise SystemExit(f"model ({arguments.model}) must be one of the vq codec")
    return codec, _image(arguments)


def _image(arguments: argparse.Namespace):
    from PIL import Image

    from benchmarks import context

    with Image.open(arguments.image) as image:
        image.load()
    if image.width < context.WIDTH_PX or image.height < context.HEIGHT_PX:
        raise SystemExit(f"image ({image.width} x {image.height}) must have at least 768 x 512 pixels")
    return image


def _machine(threads: int) -> dict[str, object]:
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"architecture": platform.machine(), "cores": _cores(), "threads": threads, "packages": packages}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
