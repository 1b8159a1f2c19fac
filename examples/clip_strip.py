"""Draws frames of a clip as several codecs restore them: a row for each, with its rate.

python examples/clip_strip.py clip.mp4 --codecs avc:48 diffae-small diffae-video-small -o strip.jpg
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from difflate.codecs.base import ClipCodec
from difflate.evaluate.options import load_with_options
from difflate.evaluate.settings import load_codec, parse_codecs
from difflate.files import atomic_path
from difflate.media.clip import Clip, Frame
from difflate.media.picture import Picture
from difflate.media.video import open_clip
from difflate.metrics import psnr

_LABEL_PX, _GAP_PX = 18, 4


def row(frames: Sequence[Frame], shown: Sequence[int], label: str, scale: float) -> Image.Image:
    """Some of ``frames`` side by side below their label."""
    images = [Image.fromarray(np.ascontiguousarray(frames[n].pixels.transpose(1, 2, 0))) for n in shown]
    size = round(images[0].width * scale), round(images[0].height * scale)
    images = [image.resize(size, Image.Resampling.LANCZOS) for image in images]
    out = Image.new("RGB", (len(images) * (size[0] + _GAP_PX) - _GAP_PX, size[1] + _LABEL_PX), "white")
    ImageDraw.Draw(out).text((2, 2), label, fill="black", font=ImageFont.load_default(12))
    for place, image in enumerate(images):
        out.paste(image, (place * (size[0] + _GAP_PX), _LABEL_PX))
    return out


def rows(clip: Clip, codecs: str, shown: Sequence[int], scale: float) -> list[Image.Image]:
    """The original and each setting of ``codecs``."""
    original = list(clip.frames)
    found = [row(original, shown, "original", scale)]
    for setting in parse_codecs(codecs, load_codec):
        codec = load_with_options(setting.codec, load_codec)
        assert isinstance(codec, ClipCodec)
        data = codec.encode_clip(clip, quality=setting.quality)
        restored = list(codec.decode_clip(data).frames)
        db = np.mean([psnr(Picture(a.pixels), Picture(b.pixels)) for a, b in zip(original, restored, strict=True)])
        bpp = 8 * len(data) / (clip.width * clip.height * len(original))
        kbps = 8 * len(data) * float(clip.rate) / len(original) / 1000
        label = f"{setting}   {bpp:.3f} bpp, {kbps:.0f} kbit/s, PSNR {db:.1f} dB"
        print(label, flush=True)
        found.append(row(restored, shown, label, scale))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--codecs", nargs="+", required=True, help="as for `difflate eval`")
    parser.add_argument("--frames", type=int, default=24, help="of the clip that are coded")
    parser.add_argument("--shown", nargs="+", type=int, default=[3, 10, 17], help="their numbers")
    parser.add_argument("--scale", type=float, default=0.7)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    clip = open_clip(args.clip)
    clip = replace(clip, frames=tuple(islice(clip.frames, args.frames)))
    drawn = rows(clip, ",".join(args.codecs), args.shown, args.scale)
    out = Image.new("RGB", (drawn[0].width, sum(image.height + _GAP_PX for image in drawn)), "white")
    top = 0
    for image in drawn:
        out.paste(image, (0, top))
        top += image.height + _GAP_PX
    with atomic_path(args.output) as temporary:
        out.save(temporary, format="JPEG" if args.output.suffix == ".jpg" else "PNG", quality=88)


if __name__ == "__main__":
    main()
