"""Diffusion in two dimensions: two spirals, one a class, learned by a small network and sampled in several ways.

    python examples/toy_diffusion.py            # about half a minute on a CPU; writes out/toy_diffusion.png

Everything that image models do is here: noise, target, loss weight, self-conditioning, samplers, guidance.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from difflate.diffusion import (
    Constant,
    Cosine,
    Model,
    Process,
    Step,
    ddim,
    ddpm,
    dpmpp_2m,
    guided,
    heun,
    self_condition,
)

OUT = Path("out/toy_diffusion.png")
NO_CLASS = 2
"""The label that stands for any class; the network learns it for guidance."""

process = Process(
    Cosine(),  # logSNR(t)
    scaling="vp",  # x = a·x0 + b·eps with a² + b² = 1
    target="v",  # what the network predicts
    condition="logsnr",  # what it is told about the noise
    weighting=Constant("v"),  # how much each noise level counts: here the plain squared error of v
)


def spirals(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(points: (n, 2) within ±1, labels: (n,) 0 or 1)."""
    label = torch.randint(0, 2, (n,), generator=generator)
    radius = 0.15 + 0.8 * torch.rand(n, generator=generator).sqrt()
    angle = 5 * radius + math.pi * label
    points = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    return points + 0.015 * torch.randn(n, 2, generator=generator), label


class Network(nn.Module):
    """(x: (B, 2), logsnr: (B,), x0_prev: (B, 2), label: (B,)) -> target: (B, 2)."""

    frequencies: Tensor

    def __init__(self, width: int = 128):
        super().__init__()
        self.label = nn.Embedding(3, 16)
        self.register_buffer("frequencies", torch.linspace(0.1, 1.5, 8))
        self.layers = nn.Sequential(
            nn.Linear(2 * 8 + 16 + 4 + 2 * 8, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 2),
        )

    def forward(self, x: Tensor, logsnr: Tensor, x0_prev: Tensor, label: Tensor) -> Tensor:
        xs = torch.cat([x, x0_prev], dim=1)
        waves = torch.cat([logsnr[:, None] * self.frequencies, 3 * xs, 6 * xs], dim=1)
        return self.layers(torch.cat([xs, waves.sin(), waves.cos(), self.label(label)], dim=1))


def train(steps: int, generator: torch.Generator) -> tuple[Network, list[float]]:
    """(the trained network, its loss at every step)."""
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        x0, label = spirals(512, generator)
        label[torch.rand(len(label), generator=generator) < 0.2] = NO_CLASS
        t = process.draw_times(len(x0), generator)
        logsnr, eps = process.logsnr(t), torch.randn(x0.shape, generator=generator)
        x = process.noise(x0, eps, logsnr)

        x0_prev = self_condition(process, for_label(network, label), x, t, generator=generator)
        y = network(process.network_input(x, logsnr), process.noise_condition(t), x0_prev, label)
        error = (y - process.target_of(x0, eps, logsnr)).square().mean(1)
        loss = (process.weight(logsnr) * error).mean()

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return network.eval(), losses


def for_label(network: Network, label: Tensor) -> Model:
    """The network as a sampler wants it: its own condition already given."""
    return lambda x, logsnr, x0_prev: network(x, logsnr, x0_prev, label)


def swirl(points: Tensor) -> str:
    """The share of ``points: (n, 2)`` within .06 of a spiral, in percent."""
    curve, _ = spirals(4000, torch.Generator().manual_seed(1))
    return f"{100 * (torch.cdist(points, curve).min(1).values < 0.06).float().mean():.1f} %"


def distance(points: Tensor, others: Tensor) -> float:
    """Sliced Wasserstein distance of two (n, 2), over 64 directions."""
    angle = torch.arange(64) * math.pi / 64
    directions = torch.stack([angle.cos(), angle.sin()])
    return ((points @ directions).sort(0).values - (others @ directions).sort(0).values).abs().mean().item()


def draw(panels: dict[str, Tensor], size: int = 220) -> Image.Image:
    """The points (n, 2) of each panel as dots, side by side."""
    image = Image.new("RGB", (size * len(panels), size + 16), "white")
    canvas = ImageDraw.Draw(image)
    for i, (title, points) in enumerate(panels.items()):
        canvas.text((size * i + 6, 2), title, fill="black")
        for px, py in ((points.clamp(-1.1, 1.1) / 2.2 + 0.5) * size).tolist():
            canvas.point((size * i + px, 16 + py), fill=(30, 60, 160))
    return image


def last(steps: Iterator[Step]) -> Tensor:
    """The end of a sampler's run; each step before it could be shown."""
    *_, step = steps
    return step.x


def main(steps: int = 4000, n: int = 4000, out: Path = OUT) -> dict[str, float]:
    """Trains, samples, prints and draws; returns the distance of every sampler's points to data, 'noise' before."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network, losses = train(steps, generator)
    tenth = max(steps // 10, 1)
    print(f"loss {sum(losses[:tenth]) / tenth:.3f} in the first tenth, {sum(losses[-tenth:]) / tenth:.3f} in the last")

    data, _ = spirals(n, generator)
    noise = process.start((n, 2), generator)  # one start for all: the differences are the samplers'
    any_class = for_label(network, torch.full((n,), NO_CLASS))
    first_class = for_label(network, torch.zeros(n, dtype=torch.long))
    on = {"clip": 1.1, "self_condition": True}
    panels = {
        "data": data,
        "noise": noise,
        "ddpm, 100": last(ddpm(process, any_class, noise, 100, generator=generator, **on)),
        "ddim, 20": last(ddim(process, any_class, noise, 20, **on)),
        "heun, 10 (19)": last(heun(process, any_class, noise, 10, **on)),
        "dpmpp_2m, 20": last(dpmpp_2m(process, any_class, noise, 20, **on)),
        "first class, w = 2": last(ddim(process, guided(first_class, any_class, 2.0), noise, 20, **on)),
    }
    distances = {title: distance(points, data) for title, points in panels.items() if title != "data"}
    print(f"\n{'sampler, steps':20} {'distance':>9} {'on a spiral':>12}")
    for title, points in panels.items():
        print(f"{title:20} {distances.get(title, 0):9.3f} {swirl(points):>12}")
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(panels).save(out)
    print(f"\n{out}")
    return distances


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000, help="of training (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="the picture (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the fastest for a network this small
    main(arguments.steps, out=arguments.out)
