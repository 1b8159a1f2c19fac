"""What stands between a network and a sampler: from target to x0, clipping, self-conditioning, guidance."""

from collections.abc import Callable

import torch
from torch import Tensor

from difflate.diffusion.process import Process, expand

Model = Callable[..., Tensor]
"""A function from (x: (B, …), noise condition: (B,)), and x0_prev: (B, …) if self-conditioned, to the target, as x."""


def denoise(
    process: Process,
    model: Model,
    x: Tensor,
    t: Tensor,
    *extra: Tensor,
    clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """(x0, eps) that ``model`` finds in ``x: (B, …)`` at ``t: ()`` or (B,).

    ``extra``: passed on to the model. ``clip``: x0 is kept within ± this, and eps is then what explains x with it.
    """
    logsnr = process.logsnr(t)
    precise = torch.promote_types(x.dtype, torch.float32)
    condition = process.noise_condition(t).to(x.device, precise).expand(len(x))
    y = model(process.network_input(x, logsnr), condition, *extra).to(x.dtype)
    x0, eps = process.split(x, y, logsnr)
    if clip is not None:
        a, b = (expand(s, x) for s in process.scale(logsnr))
        x0 = x0.clamp(-clip, clip)
        eps = (x - a * x0) / b
    return x0, eps


def self_condition(
    process: Process,
    model: Model,
    x: Tensor,
    t: Tensor,
    *,
    probability: float = 0.5,
    clip: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """x0_prev: (B, …) to train a self-conditioned ``model`` with, without gradient (Chen et al. 2023, Algorithm 1).

    With ``probability`` it is the model's own x0 given zeros, else it is zeros; one toss for the whole batch, as the
    extra forward pass is then saved half of the time.
    """
    zeros = torch.zeros_like(x)
    if torch.rand((), generator=generator, dtype=torch.float32).item() >= probability:
        return zeros
    with torch.no_grad():
        x0 = denoise(process, model, x, t, zeros, clip=clip)[0]
    # autocast keeps the weights that it has cast; older versions of torch give those without a graph to the next pass
    torch.clear_autocast_cache()
    return x0


def guide(y_cond: Tensor, y_null: Tensor, w: float | Tensor, rescale: float = 0.0) -> Tensor:
    """(B, …) y_null + w·(y_cond - y_null): classifier-free guidance (Ho & Salimans 2022).

    ``w``: 1 is no guidance, (B,) a weight per item; it acts alike on every target. ``rescale``: φ of Lin et al. 2024,
    Eq. 14 to 16, brings the std of each item back to that of ``y_cond``, in full at 1; acts on the target at hand.
    """
    w = expand(w.to(y_cond), y_cond) if isinstance(w, Tensor) else w
    y = y_null + w * (y_cond - y_null)
    if rescale == 0:
        return y
    std = _item_std(y)
    ratio = torch.where(std > 0, _item_std(y_cond) / std, 1.0)
    return y * expand(rescale * ratio + (1 - rescale), y)


def guided(conditional: Model, unconditional: Model, w: float | Tensor, rescale: float = 0.0) -> Model:
    """A model that is ``conditional`` guided away from ``unconditional``; see `guide`."""
    if isinstance(w, (int, float)) and w == 1:
        return conditional  # half of the work

    def model(x: Tensor, condition: Tensor, *extra: Tensor) -> Tensor:
        return guide(conditional(x, condition, *extra), unconditional(x, condition, *extra), w, rescale)

    return model


def _item_std(y: Tensor) -> Tensor:
    """(B,) standard deviations of ``y: (B, …)``.

    Item by item: one reduction over the batch may add in an order that depends on the batch's size.
    """
    return torch.stack([item.std() for item in y])
