"""CompressAI's `bmshj2018_hyperprior`, for `benchmarks.codecs`. Runs where CompressAI is, without Difflate.

Its transforms get the weights in the .npz file, its own hyperprior seeded ones, scaled so that the Gaussian of each
channel is as wide as the file says. Reads questions from stdin, one a line, and answers each with a number: "bytes",
the length of its streams; "nonzero", the share of the symbols that are not 0; or the seconds of one round of "encode"
(uint8 pixels in, bytes out: its `compress`) or "decode" (the reverse: its `decompress`).
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from compressai.zoo import bmshj2018_hyperprior

QUALITY = 4
"""One of those with N = 128, M = 192."""
SPREAD = 0.1
"""Spread of the scales over the sites of a channel, from the random layer before them."""


class Codec:
    """The model with its image."""

    def __init__(self, file: str):
        work = np.load(file)
        torch.set_num_threads(int(work["threads"]))
        torch.manual_seed(0)
        self.pixels = work["pixels"]
        self.model = bmshj2018_hyperprior(QUALITY, pretrained=False).eval()
        self._fill(work)
        self.model.update()
        self.data = self.encode()
        self.nonzero = self._nonzero_share()

    def _fill(self, work: np.lib.npyio.NpzFile) -> None:
        for name in work.files:
            if "." not in name:
                continue
            value = torch.from_numpy(work[name])
            half, number, part = name.split(".")
            layer = {"analysis": self.model.g_a, "synthesis": self.model.g_s}[half][int(number)]
            if part in ("beta", "gamma"):
                value = getattr(layer, f"{part}_reparam").init(value)
            with torch.no_grad():
                getattr(layer, part).copy_(value)
        scales = torch.from_numpy(work["scales"])
        last = self.model.h_s[4]
        with torch.no_grad():
            last.weight *= SPREAD * scales[:, None, None, None]
            last.bias.copy_(scales)
            # it clamps to [0, 1], where the weights are those for [-1, 1]
            self.model.g_s[6].weight /= 2
            self.model.g_s[6].bias.copy_((self.model.g_s[6].bias + 1) / 2)

    def images(self) -> torch.Tensor:
        return torch.from_numpy(self.pixels)[None].float() / 127.5 - 1

    @torch.no_grad()
    def encode(self) -> dict:
        return self.model.compress(self.images())

    @torch.no_grad()
    def decode(self) -> np.ndarray:
        image = self.model.decompress(self.data["strings"], self.data["shape"])["x_hat"]
        return (image[0] * 255).round().to(torch.uint8).numpy()

    @torch.no_grad()
    def _nonzero_share(self) -> float:
        """The share of the symbols that are not 0, after comparing what is read with what was written."""
        read: list[torch.Tensor] = []
        hook = self.model.g_s.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        self.decode()
        hook.remove()
        y = self.model.g_a(self.images())
        if not torch.equal(read[0], y.round()):
            raise SystemExit("CompressAI does not read back what it wrote")
        z = self.model.entropy_bottleneck.decompress(self.data["strings"][1], self.data["shape"])
        symbols = torch.cat([read[0].flatten(), z.flatten()])
        return float((symbols != 0).float().mean())

    def bytes(self) -> int:
        return sum(len(strings[0]) for strings in self.data["strings"])


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    codec = Codec(sys.argv[1])
    for line in sys.stdin:
        question = line.strip()
        if question == "bytes":
            answer: float = codec.bytes()
        elif question == "nonzero":
            answer = codec.nonzero
        else:
            answer = seconds(getattr(codec, question))
        print(answer, flush=True)


if __name__ == "__main__":
    main()
