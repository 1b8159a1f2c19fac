"""Context coding of the indices of a 768 x 512 image."""

import numpy as np
import torch
from PIL import Image

from benchmarks.timing import Fact, Results, Timings, stopwatch
from difflate.codecs.vq import VqCodec
from difflate.entropy import SymbolReader, SymbolWriter

WIDTH_PX, HEIGHT_PX = 768, 512
AIM_S = 0.25


def run(codec: VqCodec, image: Image.Image, rounds: int) -> Results:
    """Seconds and bits per patch for ``image``, cropped to 768 x 512."""
    pixels = np.array(image.convert("RGB").crop((0, 0, WIDTH_PX, HEIGHT_PX)))
    model = codec.space.context
    grid = codec.to_latent(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].numpy()

    def encode() -> bytes:
        writer = SymbolWriter()
        model.encode(grid, writer)
        return writer.finish()

    def decode() -> np.ndarray:
        return model.decode(*grid.shape[1:], SymbolReader(data))

    data = encode()
    if not np.array_equal(decode(), grid):
        raise SystemExit("context coding does not read back what it wrote")
    timings = Timings({"encode": stopwatch(encode), "decode": stopwatch(decode)}, rounds)
    seconds = (timings.ms("encode") + timings.ms("decode")) / 1e3
    patches = grid.shape[1] * grid.shape[2]
    return Results(
        [],
        [
            Fact("context coding of 768 x 512, encode + decode, s", seconds, f"< {AIM_S}", seconds < AIM_S),
            Fact("context coding, bits per patch", 8 * len(data) / patches),
            Fact("fixed rate, bits per patch", float(sum(model.plane_bits))),
        ],
    )
