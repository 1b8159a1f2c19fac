"""Consistency distillation (Song et al. 2023, "Consistency Models"; Song & Dhariwal 2023, "Improved Techniques").

The consistency function f(x, t) is where the probability-flow ODE through x at time t ends, clean. It does not change
along the ODE, so a student learns it from pairs of neighbours: a noisy x at t, and what one DDIM step of a teacher
makes of it at the next smaller time r. What the averaged student says of the latter, the student should say of the
former:

    f(x_t, t)  ≈  f_averaged(DDIM of the teacher from t to r, r),        f(x, 0) = x

The last equation keeps f from being a constant. f is the x0 that a model predicts, and a network needs nothing new for
it: for the targets v, eps and flow x0 is c_skip·x + c_out·y, and where the noise b vanishes c_skip → 1 and c_out → 0.
At logSNR 15, where the schedule cosine ends, c_out is -5.5e-4 under vp, of an output of about 1 a tenth of a level
of 8 bits: whatever the network says, f is the identity. The target x0 has no such skip. What anchors every target is
that the last time of a grid is 0: there f is x by definition, and x is where the teacher's last step ends.

For data N(μ, s²) all is known: f(x, t) = μ + s·(x - a·μ)/√(a²s² + b²).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from difflate.diffusion.checks import check_positive
from difflate.diffusion.guidance import Model, denoise, self_condition
from difflate.diffusion.process import Process, expand

HUBER_C = 0.00054
"""c of the pseudo-Huber metric, as a share of √D for D numbers (Song & Dhariwal 2023, 3.3)."""


@dataclass(frozen=True)
class Pair:
    """What a student says, and what it should say."""

    found: Tensor
    """(B, …) x0 of the student, with its gradient."""
    wanted: Tensor
    """(B, …) x0 without one."""


def pseudo_huber(x: Tensor, y: Tensor, c: float = HUBER_C) -> Tensor:
    """(B,) √(mean (x - y)² + c²) - c of ``x``, ``y``: (B, …) (Song & Dhariwal 2023, 3.3, over √D).

    Far from 0 it grows like the distance, so that a few items cannot rule a step as with squares; near 0 it is smooth.
    """
    check_positive(c=c)
    return ((x - y).square().flatten(1).mean(1) + c**2).sqrt() - c


def ddim_step(
    process: Process, model: Model, x: Tensor, t: Tensor, r: Tensor, *extra: Tensor, clip: float | None = None
) -> tuple[Tensor, Tensor]:
    """(x at ``r``, the x0 that it went by) of ``x: (B, …)`` at ``t``: one step of DDIM (Song et al. 2021, η = 0).

    That of `ddim`, with a time for each item, (B,) float32, and with gradients. 0 is clean. ``extra`` and ``clip`` as
    `denoise` takes them.
    """
    x0, eps = denoise(process, model, x, t, *extra, clip=clip)
    logsnr = torch.where(r == 0, torch.inf, process.logsnr(r))  # clean, also where the schedule stops a little short
    a, b = (expand(s, x) for s in process.scale(logsnr))
    return a * x0 + b * eps, x0


def consistency(process: Process, model: Model, x: Tensor, t: Tensor, clip: float | None = None) -> Tensor:
    """f: (B, …) of ``x: (B, …)`` at ``t: (B,)``: the x0 of ``model``, and x itself at time 0. ``clip``: kept within ±
    this."""
    x0 = denoise(process, model, x, t, clip=clip)[0]
    return torch.where(expand(t, x) == 0, x, x0)


def consistency_pair(
    process: Process,
    student: Model,
    averaged: Model,
    teacher: Model,
    x: Tensor,
    t: Tensor,
    r: Tensor,
    *,
    clip: float | None = None,
    self_conditioned: bool = False,
) -> Pair:
    """f of ``student`` at ``t``, and of ``averaged`` where ``teacher`` goes at ``r`` (Song et al. 2023, Algorithm 2).

    ``x: (B, …)`` noisy at ``t``; ``t``, ``r``: (B,) neighbours of a grid, 0 ≤ r < t. ``clip``: what is wanted is kept
    within ± this. ``self_conditioned``: the teacher is also given its own x0.
    """
    with torch.no_grad():
        extra = (self_condition(process, teacher, x, t, probability=1.0, clip=clip),) if self_conditioned else ()
        there, _ = ddim_step(process, teacher, x, t, r, *extra, clip=clip)
        wanted = consistency(process, averaged, there, r, clip)
    return Pair(consistency(process, student, x, t), wanted)
