"""What sliced Wasserstein distances between sets of real and of harmed images are: the tables of docs/metrics.md.

python examples/set_distances.py cats/
"""

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor

from difflate.data.crops import Crops
from difflate.data.items import hold_back, list_items
from difflate.metrics.sliced import sliced_wasserstein

SIDE_PX = 32
COUNTS = (125, 250, 500, 1000, 2000, 3750)
HELD_BACK = 500


def main(folder: str) -> None:
    """Prints both tables."""
    items = list_items([folder])
    rest, held = ([*read(part)] for part in hold_back(items, HELD_BACK))
    reference, others = torch.stack(held), torch.stack(rest[:HELD_BACK])
    images = torch.stack([*rest, *held])[torch.randperm(len(items), generator=torch.Generator().manual_seed(0))]
    print("| images of each set | 32 px | 16 px | mean |\n|--:|--:|--:|--:|")
    for count in COUNTS:
        if 2 * count <= len(images):
            row(str(count), images[:count], images[count : 2 * count])
    print("\n| | 32 px | 16 px | mean |\n|:--|--:|--:|--:|")
    row("real", others, reference)
    row("real, noise of σ = 5 added", to_uint8(others + 5 * torch.randn(others.shape)), reference)
    small = F.interpolate(others.float(), scale_factor=0.5, mode="bilinear", antialias=True)
    row("real, made of 16 px", to_uint8(F.interpolate(small, scale_factor=2, mode="bilinear")), reference)
    row("real, blurred with σ = 1 px", to_uint8(blur(others)), reference)
    row("uniform noise", torch.randint(0, 256, others.shape, dtype=torch.uint8), reference)


def read(items: list) -> list[Tensor]:
    """(3, 32, 32) uint8 of each."""
    crops = Crops(items, SIDE_PX, short_side=SIDE_PX, augment=False)
    return [crops.read(number)[0] for number in range(len(items))]


def to_uint8(x: Tensor) -> Tensor:
    """Rounded and clipped."""
    return x.round().clamp(0, 255).to(torch.uint8)


def blur(x: Tensor) -> Tensor:
    """``x: (N, 3, H, W)`` filtered with a Gaussian of σ = 1 px, mirrored at the borders."""
    line = torch.exp(-(torch.arange(-3.0, 4.0) ** 2) / 2)
    kernel = (line[:, None] * line / line.sum() ** 2).expand(3, 1, 7, 7)
    return F.conv2d(F.pad(x.float(), (3, 3, 3, 3), mode="reflect"), kernel, groups=3)


def row(name: str, a: Tensor, b: Tensor) -> None:
    """Prints one row."""
    print(f"| {name} | " + " | ".join(f"{value:.1f}" for value in sliced_wasserstein(a, b).values()) + " |", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="images, some thousands of them")
    main(parser.parse_args().folder)
