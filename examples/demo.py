"""Compresses and restores a photograph, puts JPEG and AVIF of the nearest size beside it, and draws the comparison.

Run by `make demo`. Writes out/demo.dfl and out/demo.jpg.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import difflate
from difflate.codecs.base import Codec
from difflate.files import atomic_path, atomic_write
from difflate.media.picture import Picture, open_image, to_array
from difflate.metrics import ms_ssim, psnr

PHOTO = Path(__file__).parent / "kodim23.png"
OUT = Path("out")
ZOOM_BOX = (120, 130, 280, 237)
"""Left, top, right, bottom of the part shown enlarged, in pixels."""
ZOOM = 3


@dataclass
class Result:
    """One codec's file of the photograph, restored."""

    label: str
    data: bytes
    restored: Picture
    encode_s: float
    decode_s: float


def measure(label: str, codec: Codec, picture: Picture, quality: float | None = None) -> Result:
    """Encodes and decodes twice, the first time to warm up."""
    for _ in range(2):
        begin = time.perf_counter()
        data = codec.encode(picture, quality=quality)
        encoded = time.perf_counter()
        restored = codec.decode(data)
        done = time.perf_counter()
    return Result(label, data, restored, encoded - begin, done - encoded)


def nearest_in_size(name: str, picture: Picture, size_bytes: int) -> Result:
    """The file of codec ``name`` whose size comes nearest to ``size_bytes``, by bisection over the quality."""
    codec = difflate.load(name)
    low, high = 1, 95
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if len(codec.encode(picture, quality=middle)) < size_bytes else (low, middle)
    quality = min((low, high), key=lambda q: abs(len(codec.encode(picture, quality=q)) - size_bytes))
    return measure(f"{name} q{quality}", codec, picture, quality)


def draw(picture: Picture, results: list[Result]) -> Image.Image:
    """Original and restored side by side, an enlarged part of each below."""
    panels = [("original", to_array(picture)), *((r.label, to_array(r.restored)) for r in results)]
    height, width = panels[0][1].shape[:2]
    left, top, right, bottom = ZOOM_BOX
    zoomed_w, zoomed_h = (right - left) * ZOOM, (bottom - top) * ZOOM
    cell, title = max(width, zoomed_w) // 2, 26
    page = Image.new("RGB", (cell * len(panels), title + height // 2 + zoomed_h * cell // zoomed_w), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(16)
    for i, (label, pixels) in enumerate(panels):
        image = Image.fromarray(pixels)
        part = image.crop(ZOOM_BOX).resize((cell, zoomed_h * cell // zoomed_w), Image.Resampling.NEAREST)
        framed = image.copy()
        ImageDraw.Draw(framed).rectangle(ZOOM_BOX, outline="white", width=3)
        page.paste(framed.resize((width // 2, height // 2), Image.Resampling.LANCZOS), (cell * i, title))
        page.paste(part, (cell * i, title + height // 2))
        pen.text((cell * i + 6, 3), label, fill="black", font=font)
    return page


def main() -> None:
    picture = open_image(PHOTO)
    codec = difflate.load()
    ours = measure(codec.name, codec, picture)
    OUT.mkdir(exist_ok=True)
    atomic_write(OUT / "demo.dfl", ours.data)
    again = difflate.decode((OUT / "demo.dfl").read_bytes())
    if not np.array_equal(np.asarray(again), to_array(ours.restored)):
        raise SystemExit("the file on disk restores to other pixels")
    results = [ours, *(nearest_in_size(name, picture, len(ours.data)) for name in ("jpeg", "avif"))]
    raw = picture.pixels.size
    print(f"{PHOTO.name}: {picture.width}x{picture.height} px, {raw} bytes of pixels\n")
    print(
        f"{'codec':<12}{'bytes':>9}{'ratio':>8}{'bpp':>8}{'PSNR dB':>10}{'MS-SSIM':>10}{'encode s':>11}{'decode s':>11}"
    )
    for r in results:
        bpp = 8 * len(r.data) / (picture.width * picture.height)
        print(
            f"{r.label:<12}{len(r.data):>10}{raw / len(r.data):>10.1f}{bpp:>10.3f}{psnr(picture, r.restored):>10.2f}"
            f"{ms_ssim(picture, r.restored):>10.4f}{r.encode_s:>10.3f}{r.decode_s:>10.3f}"
        )
    with atomic_path(OUT / "demo.jpg") as temporary:  # a third of a PNG; no step of colour is lost beside theirs
        draw(picture, results).save(temporary, "JPEG", quality=88, subsampling=0, optimize=True)
    print(f"\nwrote {OUT / 'demo.dfl'} and {OUT / 'demo.jpg'}")


if __name__ == "__main__":
    main()
