"""Writes golden files of a model next to itself: once, when it is released, never to mend a test.

python tests/golden/make.py NAME…
python tests/golden/make.py --clip NAME…
"""

import hashlib
import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

import difflate
from difflate.format.container import read_dfl
from difflate.format.stream import read_clip_file
from difflate.media.clip import Clip, Frame
from difflate.media.picture import Picture, open_image, to_pil

HERE = Path(__file__).parent
EXPECTED = HERE / "expected.json"


def pictures() -> dict[str, Picture]:
    """Parts of a photograph: odd sizes, grey with alpha and metadata, one pixel."""
    photo = open_image(HERE.parents[1] / "examples" / "kodim23.png").pixels[:, 80:147, 190:291]
    ramp = np.linspace(0, 255, 40 * 33).astype(np.uint8).reshape(40, 33)
    return {
        "photo": Picture(photo),
        "grey-alpha": Picture(
            photo[1:2, :40, :33], ramp, exif=b"II*\0\x08\0\0\0\0\0", icc=b"not a profile", xmp=b"<x/>"
        ),
        "pixel": Picture(photo[:, :1, :1]),
    }


def clip() -> Clip:
    """Parts of a photograph, grey, at variable times that do not begin at 0, with what stands for sound."""
    photo = open_image(HERE.parents[1] / "examples" / "kodim23.png").pixels[1:2]
    frames = [Frame(photo[:, 80 + n : 113 + n, 190 + 2 * n : 231 + 2 * n], time) for n, time in enumerate((-7, 0, 9))]
    return Clip(41, 33, 1, Fraction(30000, 1001), Fraction(1, 90000), frames, b"sound")


def write_clips(names: list[str]) -> None:
    """Adds the file of `clip` of each codec to those that are there; its .png has the frames one below the other."""
    expected = json.loads(EXPECTED.read_text())
    for name in names:
        codec = difflate.load(name)
        data = codec.encode_clip(clip())  # type: ignore[attr-defined]
        (HERE / f"v1-{name}-clip.dfl").write_bytes(data)
        frames = [frame.pixels[0] for frame in difflate.decode_clip(data).frames]
        Image.fromarray(np.concatenate(frames)).save(HERE / f"v1-{name}-clip.png", optimize=True)
        latents = codec.read_latents(read_clip_file(data))  # type: ignore[attr-defined]
        symbols = b"".join(latent.symbols() for latent, _ in latents)
        expected[f"v1-{name}-clip.dfl"] = {
            "codec": name,
            "symbols_sha256": hashlib.sha256(symbols).hexdigest(),
            "times": [-7, 0, 9],
        }
    EXPECTED.write_text(json.dumps(expected, indent=1) + "\n")


def main(names: list[str]) -> None:
    """Adds the files of ``names`` to those that are there."""
    expected = json.loads(EXPECTED.read_text())
    for name in names:
        codec = difflate.load(name)
        for label, picture in pictures().items():
            for fixed in (False, True) if name.endswith("-8-8") else (False,):
                if label != "photo" and (fixed or name in ("vq-8-8-8", "pq-32-8-8", "opq-32-8-8", "rq-32-8-8")):
                    continue
                data = codec.encode(picture, **({"fixed_rate": True} if fixed else {}))
                stem = f"v1-{name}-{label}{'-fixed' if fixed else ''}"
                (HERE / f"{stem}.dfl").write_bytes(data)
                latent = codec.read_latent(read_dfl(data))  # type: ignore[attr-defined]
                grid = latent.q if hasattr(latent, "q") else latent.grid
                Image.fromarray(np.asarray(to_pil(codec.decode(data)))).save(HERE / f"{stem}.png", optimize=True)
                expected[f"{stem}.dfl"] = {
                    "codec": name,
                    "symbols_sha256": hashlib.sha256(latent.symbols()).hexdigest(),
                    "shape": list(grid.shape),
                }
    EXPECTED.write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    write_clips(sys.argv[2:]) if sys.argv[1] == "--clip" else main(sys.argv[1:])
