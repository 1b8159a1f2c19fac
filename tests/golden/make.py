"""Writes golden files of a model next to itself: once, when it is released, never to mend a test.

python tests/golden/make.py NAME…
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import difflate
from difflate.format.container import read_dfl
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
    main(sys.argv[1:])
