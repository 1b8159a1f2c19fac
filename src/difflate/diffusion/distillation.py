"""Direct distillation: one or two steps that end where a teacher's many do, from the same noise.

DDIM without fresh noise is a function of what it starts from (Song et al. 2021), so a student can learn that function
itself (Luhman & Luhman 2021; with a perceptual loss beside the error, SSDD, Vallaeys et al. 2025). It costs the
teacher's steps for each example, where `difflate.diffusion.consistency` costs one or two.
"""

import torch
from torch import Tensor

from difflate.diffusion.consistency import Pair, ddim_step
from difflate.diffusion.guidance import Model
from difflate.diffusion.process import Process
from difflate.diffusion.samplers import ddim, times


def few_steps(process: Process, model: Model, x: Tensor, steps: int, clip: float | None = None) -> Tensor:
    """x0: (B, …) after ``steps`` steps of `ddim` from ``x: (B, …)`` at time 1, with gradients through all of them.

    ``clip``: as for `ddim`, but for the last step, whose x0 would have no gradient beyond ± this.
    """
    grid = torch.tensor(times(steps), dtype=torch.float32, device=x.device)
    for index in range(steps):
        t, r = (grid[i].expand(len(x)) for i in (index, index + 1))
        x, _ = ddim_step(process, model, x, t, r, clip=None if index == steps - 1 else clip)
    return x


def distillation_pair(
    process: Process,
    student: Model,
    teacher: Model,
    x: Tensor,
    *,
    steps: int,
    teacher_steps: int,
    clip: float | None = None,
    self_conditioned: bool = False,
) -> Pair:
    """Where ``steps`` of ``student`` and ``teacher_steps`` of ``teacher`` end from ``x: (B, …)``, noise at time 1.

    ``clip``, and ``self_conditioned`` of the teacher, as `ddim` takes them. Raises ConfigError as `ddim`.
    """
    *_, last = ddim(process, teacher, x, teacher_steps, clip=clip, self_condition=self_conditioned)
    return Pair(few_steps(process, student, x, steps, clip), last.x)
