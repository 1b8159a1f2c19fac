"""Makes many pictures of few: what `cats-small` was trained on, of 1717 faces of 128x128 px.

    python examples/vary_faces.py catfaces/ varied/ --size 256
    difflate latents varied/ --codec diffae-small --no-flips -o latents/faces-diffae-256
    difflate train configs/cats-diffae-small.yaml latents=latents/faces-diffae-256

Each picture is there as it is and in eight variations: turned by up to 6 degrees, enlarged by up to a tenth, shifted by
up to 2 px; half of all are mirrored. Those that a training with `holdback: 100` keeps back, evenly spaced in the order
of the names, are those that it would keep back of the originals, unvaried, and no variation of them is among the rest.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from difflate.data.images import list_images
from difflate.data.items import held_back_numbers

HELD_BACK, VARIATIONS = 100, 9
DEGREES, ENLARGED, SHIFT_PX, MARGIN_PX = 6.0, 1.1, 2.0, 16


def main() -> None:
    """Writes the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="folder of squares of one size")
    parser.add_argument("out", type=Path, help="folder to write PNG files to")
    parser.add_argument("--size", type=int, metavar="PX", help="side of what is written (default: that of the images)")
    args = parser.parse_args()
    paths = list_images([args.images])
    chosen = held_back_numbers(len(paths), HELD_BACK)
    held = [path for number, path in enumerate(paths) if number in chosen]
    rest = [path for number, path in enumerate(paths) if number not in chosen]
    rng = np.random.default_rng(0)
    jobs = [(path, number) for number in range(VARIATIONS) for path in rest]
    between = len(jobs) // HELD_BACK  # behind each that is held back
    jobs = [jobs[i] for i in rng.permutation(between * HELD_BACK)]
    args.out.mkdir(parents=True, exist_ok=True)
    written = 0

    def write(image: Image.Image) -> None:
        nonlocal written
        image.save(args.out / f"{written:05d}.png", compress_level=1)
        written += 1

    for place, path in enumerate(held):
        write(scaled(Image.open(path).convert("RGB"), args.size))
        for source, number in jobs[place * between : (place + 1) * between]:
            image = Image.open(source).convert("RGB")
            image = vary(image, rng, args.size) if number else scaled(image, args.size)
            write(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image)
    print(f"{args.out}: {written} images")


def scaled(image: Image.Image, side: int | None) -> Image.Image:
    """``image`` with that ``side``; None: as it is."""
    return image if side in (None, image.width) else image.resize((side, side), Image.Resampling.BICUBIC)


def vary(image: Image.Image, rng: np.random.Generator, side: int | None = None) -> Image.Image:
    """``image`` turned, enlarged and shifted a little; its surroundings are mirrored. ``side`` as of `scaled`."""
    angle, scale = np.deg2rad(rng.uniform(-DEGREES, DEGREES)), 1 / rng.uniform(1, ENLARGED)
    shift = rng.uniform(-SHIFT_PX, SHIFT_PX, 2)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array(image.size) / 2
    side = side or image.width
    turn *= image.width / side
    x, y = middle + shift - turn @ np.full(2, side / 2) + MARGIN_PX
    margins = [(MARGIN_PX, MARGIN_PX), (MARGIN_PX, MARGIN_PX), (0, 0)]
    wide = Image.fromarray(np.pad(np.asarray(image), margins, mode="reflect"))
    places = (turn[0, 0], turn[0, 1], x, turn[1, 0], turn[1, 1], y)
    return wide.transform((side, side), Image.Transform.AFFINE, places, Image.Resampling.BICUBIC)


if __name__ == "__main__":
    main()
