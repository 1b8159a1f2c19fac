"""Makes a short clip of a photograph: a camera that pans, comes nearer and is held by hand.

python examples/made_clip.py examples/kodim23.png -o examples/parrots.mp4
"""

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from difflate.media.clip import Clip, Frame
from difflate.media.picture import open_image, to_array
from difflate.media.video import write_clip

WIDTH, HEIGHT, FRAMES, RATE = 384, 256, 48, Fraction(24)
_SHAKE_PX = 2.0


def frames_of(photograph: np.ndarray) -> Iterator[Frame]:
    """The frames of ``photograph: (H, W, 3)`` uint8, at least 1.6 times as large as one of them."""
    image = Image.fromarray(photograph)
    rng = np.random.default_rng(1)
    shake = np.cumsum(rng.normal(size=(FRAMES, 2)), axis=0)
    shake = _SHAKE_PX * (shake - shake.mean(0)) / np.abs(shake).max()
    for number in range(FRAMES):
        part = (1 - np.cos(np.pi * number / (FRAMES - 1))) / 2  # slowly in, slowly out
        scale = 1.6 - 0.6 * part
        wide, tall = WIDTH * scale, HEIGHT * scale
        left, top = (np.array([image.width - wide, image.height - tall]) * [0.1 + 0.6 * part, 0.3]) + shake[number]
        left, top = min(max(left, 0), image.width - wide), min(max(top, 0), image.height - tall)
        box = (left, top, left + wide, top + tall)
        frame = image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box)
        yield Frame(np.asarray(frame).transpose(2, 0, 1), number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photograph", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    photograph = to_array(open_image(args.photograph))
    clip = Clip(WIDTH, HEIGHT, 3, RATE, 1 / RATE, list(frames_of(photograph)))
    for note in write_clip(clip, args.output, crf=20):
        print(note)


if __name__ == "__main__":
    main()
