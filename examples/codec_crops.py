"""Draws parts of photographs as several codecs restore them at nearly the same size of file, side by side.

python examples/codec_crops.py kodak/kodim05.png kodak/kodim23.png --bpp 0.3 -o crops.jpg

A codec whose smallest file is larger than asked for is shown with that one, and a line says so. So does one whose
largest file is smaller. A codec of one quality is shown with its only file, and one that is named with a quality with
the file of that quality.

python examples/codec_crops.py kodak/kodim03.png --whole --bpp 0.045 --codecs avif cdc-small diffae-small -o low.jpg
python examples/codec_crops.py kodak/kodim03.png --codecs jpeg:20 jpeg+restore=1:20 -o restored.jpg
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import difflate
from difflate.codecs.base import Codec
from difflate.codecs.rate_search import encode_within
from difflate.errors import ConfigError
from difflate.evaluate.options import load_with_options
from difflate.evaluate.settings import parse_codecs
from difflate.files import atomic_path
from difflate.media.picture import Picture, open_image, to_array
from difflate.metrics import psnr

CODECS = ("jpeg", "avif", "hyperprior-small", "cdc-small")
CROP_PX, ZOOM = (192, 128), 2


def busiest(picture: Picture) -> tuple[int, int]:
    """Left and top of the part with the most contrast, in pixels."""
    luma = picture.pixels.mean(axis=0)
    contrast = np.abs(np.diff(luma, axis=0))[:, 1:] + np.abs(np.diff(luma, axis=1))[1:]
    total = np.pad(contrast.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    width, height = CROP_PX
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(left), int(top)


def nearest_within(codec: Codec, picture: Picture, max_bytes: int, image: str) -> bytes:
    """The file of the best quality within ``max_bytes``; the smallest one, with a line that says so, if all are larger;
    of a codec of one quality its only file."""
    if codec.quality_range is None:
        return codec.encode(picture)
    try:
        coded = encode_within(codec, max_bytes, lambda quality: codec.encode(picture, quality=quality))
    except ConfigError as error:
        data = codec.encode(picture, quality=codec.quality_range[0])
        print(f"{image}: {error}. Its smallest file is shown", file=sys.stderr)
        return data
    if coded.short:
        print(f"{image}: {codec.name} gives {len(coded.data)} bytes at most, of {max_bytes} allowed", file=sys.stderr)
    return coded.data


def row(path: Path, bpp: float, codecs: Sequence[str], whole: bool) -> Image.Image:
    """The same part of one image in all codecs, twice as large; or the ``whole`` image, half as large."""
    picture = Picture(open_image(path).pixels)
    if not whole and (picture.width < CROP_PX[0] or picture.height < CROP_PX[1]):
        raise SystemExit(f"{path}: must have at least {CROP_PX[0]}x{CROP_PX[1]} px")
    left, top = (0, 0) if whole else busiest(picture)
    allowed = int(bpp * picture.width * picture.height / 8)
    panels = [(path.stem, picture)]
    for name in codecs:
        (setting,) = parse_codecs(name, difflate.load)
        codec = load_with_options(setting.codec, difflate.load)
        if ":" in name:
            data = codec.encode(picture, quality=setting.quality)
        else:
            data = nearest_within(codec, picture, allowed, path.name)
        restored = codec.decode(data)
        rate = 8 * len(data) / (picture.width * picture.height)
        panels.append((f"{name}  {rate:.3f} bpp  {psnr(picture, restored):.1f} dB", restored))
    part_px = (picture.width, picture.height) if whole else CROP_PX
    width, height = (side // ZOOM if whole else side * ZOOM for side in part_px)
    filter = Image.Resampling.LANCZOS if whole else Image.Resampling.NEAREST
    page = Image.new("RGB", (width * len(panels), height + 22), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for i, (label, shown) in enumerate(panels):
        part = Image.fromarray(to_array(shown)).crop((left, top, left + part_px[0], top + part_px[1]))
        page.paste(part.resize((width, height), filter), (i * width, 22))
        pen.text((i * width + 4, 2), label, fill="black", font=font)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--bpp", type=float, default=0.3)
    parser.add_argument("--codecs", nargs="+", default=CODECS, metavar="CODEC", help="as in `difflate eval`")
    parser.add_argument("--whole", action="store_true", help="the whole image at half of its size, not a part of it")
    parser.add_argument("-o", "--output", type=Path, default=Path("crops.jpg"), help="a JPEG file")
    arguments = parser.parse_args()
    if arguments.output.suffix.lower() not in (".jpg", ".jpeg"):
        parser.error(f"-o (={arguments.output}) must end in .jpg; it is a JPEG file")
    rows = [row(path, arguments.bpp, arguments.codecs, arguments.whole) for path in arguments.images]
    page = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), "white")
    top = 0
    for part in rows:
        page.paste(part, (0, top))
        top += part.height
    with atomic_path(arguments.output) as temporary:
        page.save(temporary, "JPEG", quality=88, subsampling=0, optimize=True)
    print(arguments.output)


if __name__ == "__main__":
    main()
