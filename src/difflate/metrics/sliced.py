"""The sliced Wasserstein distance between two sets of images, at every level of their Laplacian pyramids.

Karras et al. 2018, *Progressive Growing of GANs*, section 5: small patches of the two sets should be distributed
alike at every scale. docs/metrics.md has the protocol and what can be compared with what.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from difflate.errors import ConfigError
from difflate.seeds import Stream, check_seed, torch_generator

PATCH_PX = 7
"""Side of a descriptor; the smallest image that has one."""
PATCHES = 128
"""Descriptors of an image at a level."""
DIRECTIONS = 512
LOWEST_PX = 16
"""No level has a shorter side, unless the images have."""
SCALE = 1e3
"""Factor of the values, as in the paper's tables."""

_KERNEL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
"""Burt and Adelson 1983, with a = 3/8."""
_BATCH_PX = 2**21
"""Pixels that are filtered at once."""
_PROJECTED_BYTES = 2**26
"""Projections of one set that are held at once: some directions at a time."""
_DESCRIPTOR_BYTES = 2**30
"""Descriptors of one set and level that are held: more than these (14 000 images) are made anew for each pass."""


def sliced_wasserstein(a: Tensor, b: Tensor, seed: int = 0) -> dict[str, float]:
    """{"32": …, "16": …, "mean": …}: 1000 times the distance at each level, by its short side in px, and their mean.

    ``a: (N, 3, H, W)``, ``b: (M, 3, H, W)`` uint8, on one device. 0 for identical sets, otherwise above 0 even between
    two sets from one source: the fewer images, the more. N and M may differ: the distance between two distributions
    of different numbers of values is exact, none is left out. Image n of both sets is looked at in the same places,
    which follow from ``seed`` as the directions do.
    Raises ConfigError for other tensors and for images with a side below 7 px.
    """
    _check(a, b, seed)
    sizes = level_sizes(*a.shape[2:])
    values = {str(min(sizes[level])): SCALE * _level_distance(a, b, level, sizes, seed) for level in range(len(sizes))}
    return {**values, "mean": sum(values.values()) / len(values)}


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """The (height, width) of the levels of an image: itself, then halves, rounded up, as long as both sides keep 16 px.

    An image with a side below 31 px has one level. Raises ConfigError for a side below 7 px.
    """
    if min(height, width) < PATCH_PX:
        raise ConfigError(f"images of {width}x{height} px are smaller than a patch of {PATCH_PX}x{PATCH_PX} px")
    sizes = [(height, width)]
    while min(height, width) > 2 * LOWEST_PX - 2:
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes


def _check(a: Tensor, b: Tensor, seed: int) -> None:
    for name, images in (("a", a), ("b", b)):
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3 or not len(images):
            raise ConfigError(f"{name} is {images.dtype} {tuple(images.shape)}; it must be (N, 3, H, W) uint8, N >= 1")
    if a.shape[2:] != b.shape[2:]:
        raise ConfigError(
            f"the images of a are {tuple(a.shape[2:])}, those of b {tuple(b.shape[2:])}; scale one of them"
        )
    check_seed(seed)


def _level_distance(a: Tensor, b: Tensor, level: int, sizes: list[tuple[int, int]], seed: int) -> float:
    """The mean over the directions of the distance between the two sets' projections."""
    key, most = min(sizes[level]), max(len(a), len(b))
    places = torch_generator(seed, Stream.SLICED_SPOTS, key)
    spots = [torch.randint(side - PATCH_PX + 1, (most, PATCHES), generator=places) for side in sizes[level]]
    spots = torch.stack(spots).to(a.device)  # (2, N, PATCHES): row and column of each patch's corner
    generator = torch_generator(seed, Stream.SLICED_DIRECTIONS, key)
    directions = torch.randn(DIRECTIONS, 3 * PATCH_PX**2, generator=generator, dtype=torch.float32)
    directions = F.normalize(directions, dim=1).to(a.device)
    first, second = (_Descriptors(images, level, level == len(sizes) - 1, spots) for images in (a, b))
    steps = None if len(a) == len(b) else quantile_steps(len(a) * PATCHES, len(b) * PATCHES, a.device)
    distances = [
        wasserstein(first.project(some), second.project(some), steps)
        for some in directions.split(max(1, _PROJECTED_BYTES // (4 * PATCHES * most)))
    ]
    return float(torch.cat(distances).mean())


class _Descriptors:
    """The patches of a set of images at a level, normalised by its own mean and standard deviation of each colour."""

    def __init__(self, images: Tensor, level: int, last: bool, spots: Tensor):
        """``images: (N, 3, H, W)`` uint8, ``spots: (2, N or more, PATCHES)``."""
        self.images, self.level, self.last, self.spots = images, level, last, spots[:, : len(images)]
        values = len(images) * PATCHES * PATCH_PX**2  # of each colour
        self.held = [] if 3 * 4 * values <= _DESCRIPTOR_BYTES else None
        sums = torch.zeros(2, 3, dtype=torch.float64, device=images.device)
        for patches in self._patches():
            exact = patches.double()
            sums += torch.stack([exact.sum((0, 2)), exact.square().sum((0, 2))])
            if self.held is not None:
                self.held.append(patches)
        mean, square = sums / values
        variance = square - mean**2
        # what rounding leaves in a set of flat images must not be blown up to a variance of 1
        std = torch.where(variance <= 1e-9 * square, 1.0, variance.clamp(min=0).sqrt())
        self.mean, self.std = mean[:, None].float(), std[:, None].float()  # (3, 1)

    def project(self, directions: Tensor) -> Tensor:
        """(K, N * PATCHES) float32, in ``directions: (K, 147)``."""
        batches = self._patches() if self.held is None else self.held
        return torch.cat([directions @ ((patches - self.mean) / self.std).flatten(1).T for patches in batches], dim=1)

    def _patches(self) -> Iterator[Tensor]:
        """(B * PATCHES, 3, 49) float32, of some images at a time."""
        count = max(1, _BATCH_PX // self.images[0, 0].numel())
        batches = zip(self.images.split(count), self.spots.split(count, dim=1), strict=True)
        for images, (rows, columns) in batches:
            plane = pyramid_level(images.float(), self.level, self.last)
            windows = plane.unfold(2, PATCH_PX, 1).unfold(3, PATCH_PX, 1)  # (B, 3, H - 6, W - 6, 7, 7), no copy
            patches = windows[torch.arange(len(images), device=images.device)[:, None], :, rows, columns]
            yield patches.flatten(0, 1).flatten(2)


def pyramid_level(images: Tensor, level: int, last: bool) -> Tensor:
    """(B, 3, h, w): a level of the Laplacian pyramid of ``images: (B, 3, H, W)``.

    What the next, smaller level lacks; of the ``last`` level all there is.
    """
    for _ in range(level):
        images = _blur(images)[:, :, ::2, ::2]
    if last:
        return images
    spread = torch.zeros_like(images)
    spread[:, :, ::2, ::2] = _blur(images)[:, :, ::2, ::2]
    return images - 4 * _blur(spread)


def _blur(images: Tensor) -> Tensor:
    """``images: (B, 3, H, W)`` filtered in both directions, mirrored at the borders.

    Sums in place of a convolution: on a GPU that would round to 10 bits (TF32).
    """
    height, width = images.shape[2:]
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    rows = sum(weight * padded[:, :, i : i + height] for i, weight in enumerate(_KERNEL))
    assert isinstance(rows, Tensor)
    columns = sum(weight * rows[:, :, :, i : i + width] for i, weight in enumerate(_KERNEL))
    assert isinstance(columns, Tensor)
    return columns


def quantile_steps(n: int, m: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Where the quantile functions of n and of m values are both constant: which value of each, and for how long.

    (K,) int64, (K,) int64, (K,) float64 that sums to 1; K is n + m less the edges that both have.
    """
    edges = [torch.arange(1, own + 1, device=device) * other for own, other in ((n, m), (m, n))]
    ends = torch.cat(edges).unique()  # sorted; in units of 1 / (n * m)
    starts = F.pad(ends[:-1], (1, 0))
    return starts // m, starts // n, (ends - starts).double() / (n * m)


def wasserstein(x: Tensor, y: Tensor, steps: tuple[Tensor, Tensor, Tensor] | None = None) -> Tensor:
    """(K,) float64: the Wasserstein-1 distances between the rows of ``x: (K, n)`` and of ``y: (K, m)``.

    The area between the quantile functions. ``steps``: the `quantile_steps` of n and m, not needed if n = m.
    """
    x, y = _sort(x), _sort(y)
    if x.shape == y.shape:
        return x.sub_(y).abs_().mean(1, dtype=torch.float64)
    of_x, of_y, widths = quantile_steps(x.shape[1], y.shape[1], x.device) if steps is None else steps
    return (x[:, of_x] - y[:, of_y]).abs_().double() @ widths


def _sort(values: Tensor) -> Tensor:
    """``values: (K, n)``, copied, each row in rising order."""
    if values.device.type == "cpu":
        # a tenth of the time of torch's, which also makes the order
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(dim=1).values
