"""Writes the test set of pictures that are no photographs: 20 kinds, one PNG of 512x384 of each.

python examples/odd_pictures.py odd/

They are made of nothing but their numbers, and are the same everywhere, but for the letters: those follow from the
versions of Pillow and of matplotlib, which has most of the fonts. No training sees one of them.
"""

import argparse
from pathlib import Path

from PIL import Image

from difflate.data import made
from difflate.files import atomic_path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in made.odd_pictures():
        with atomic_path(folder / f"{name}.png") as temporary:
            Image.fromarray(pixels.transpose(1, 2, 0)).save(temporary, "PNG")
    print(f"{folder}: {len(made.ODD)} pictures")


if __name__ == "__main__":
    main()
