"""Random numbers from a generator for the whole batch, or from one per item.

They are float32 and drawn on the generator's device (the CPU, if the result is to be the same on every machine), then
moved. With one generator per item an item's numbers depend on its own generator only, not on the batch around it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from difflate.errors import ConfigError

Generators = torch.Generator | Sequence[torch.Generator] | None
"""One generator for the batch, one for each item, or torch's global state."""


def normal(shape: Sequence[int], generator: Generators = None, device: torch.device | str = "cpu") -> Tensor:
    """``shape``: (B, …) float32 of N(0, 1)."""
    return _draw(torch.randn, shape, generator, device)


def uniform(shape: Sequence[int], generator: Generators = None, device: torch.device | str = "cpu") -> Tensor:
    """``shape``: (B, …) float32 of U[0, 1)."""
    return _draw(torch.rand, shape, generator, device)


def gumbel(shape: Sequence[int], generator: Generators = None, device: torch.device | str = "cpu") -> Tensor:
    """``shape``: (B, …) float32 of Gumbel(0, 1) = -log(-log U)."""
    values = uniform(shape, generator, device)
    return values.clamp_min_(torch.finfo(torch.float32).tiny).log_().neg_().log_().neg_()  # U may be 0


def _draw(
    function: Callable[..., Tensor], shape: Sequence[int], generator: Generators, device: torch.device | str
) -> Tensor:
    if generator is None:
        return function(tuple(shape), device=device, dtype=torch.float32)
    if isinstance(generator, torch.Generator):
        return function(tuple(shape), generator=generator, device=generator.device, dtype=torch.float32).to(device)
    if len(generator) != shape[0]:
        raise ConfigError(f"`generator` (={len(generator)} of them) must be one or as many as items (={shape[0]})")
    return torch.cat([_draw(function, (1, *shape[1:]), item, device) for item in generator])
