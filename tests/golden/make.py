"""Writes golden files of the current format version next to itself: once for a released version, never to mend a test.

python tests/golden/make.py
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

import difflate
from difflate.container import read_dfl
from difflate.pixels import Picture, open_image, to_pil

HERE = Path(__file__).parent
NAMES = ("vq-8-8-8", "pq-32-8-8", "opq-32-8-8", "rq-32-8-8", "eopq-32-8-8")


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


def main() -> None:
    expected = {}
    for name in NAMES:
        codec = difflate.load(name)
        for label, picture in pictures().items():
            for fixed in (False, True):
                if label != "photo" and (fixed or name != "eopq-32-8-8"):
                    continue
                data = codec.encode(picture, fixed_rate=fixed)  # type: ignore[call-arg]
                stem = f"v1-{name}-{label}{'-fixed' if fixed else ''}"
                (HERE / f"{stem}.dfl").write_bytes(data)
                latent = codec.read_latent(read_dfl(data))  # type: ignore[attr-defined]
                image = to_pil(codec.decode(data))
                Image.fromarray(np.asarray(image)).save(HERE / f"{stem}.png", optimize=True)
                expected[f"{stem}.dfl"] = {
                    "codec": name,
                    "symbols_sha256": hashlib.sha256(latent.astype("<u2").tobytes()).hexdigest(),
                    "shape": list(latent.shape),
                }
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
