"""The diffusion process as pure maths on tensors: no image, no network, no file.

Conventions, here and everywhere else in Difflate:

- images are (B, C, H, W) in [-1, 1], video (B, C, T, H, W); everything here takes (B, …) of any shape;
- time t in [0, 1] is continuous, t = 0 is clean, t = 1 is noise; samplers run from 1 to 0;
- l = logSNR(t) falls with time, and everything else is a function of it: x = a·x0 + b·eps with l = 2·log(a/b);
- ``t`` and ``logsnr`` are tensors, one value for all items () or one each (B,);
- a model is a function of (x, noise condition) that returns the target, x0, eps, v or flow.

A `Process` is five choices (Rampas 2024, 2.4): schedule, scaling, target, noise condition, loss weight. A sampler is a
generator that yields a `Step` after each of its steps. Here data from N(3, 0.5²), whose best model is known:

>>> import torch
>>> process = Process(Cosine(), scaling="vp", target="x0", condition="logsnr")
>>> def model(x, l):
...     a, b = (s.view(-1, 1) for s in process.scale(l))
...     return 3 + 0.25 * a / (0.25 * a**2 + b**2) * (x - 3 * a)
>>> x = process.start((10_000, 1), torch.Generator().manual_seed(0))
>>> *_, last = ddim(process, model, x, steps=50)
>>> round(last.x.mean().item(), 1), round(last.x.std().item(), 1)
(3.0, 0.5)
"""

from difflate.diffusion.categorical import IndexSpace, eps_z, expected_codewords, gumbel_softmax, sampled_x0
from difflate.diffusion.config import ProcessConfig
from difflate.diffusion.consistency import Pair, consistency, consistency_pair, ddim_step, pseudo_huber
from difflate.diffusion.distillation import distillation_pair, few_steps
from difflate.diffusion.draws import Generators, gumbel, normal
from difflate.diffusion.guidance import Model, denoise, guide, guided, self_condition
from difflate.diffusion.process import Condition, Process, Scaling, expand
from difflate.diffusion.samplers import SAMPLERS, Sampler, Step, ddim, ddpm, dpmpp_2m, euler, heun, times
from difflate.diffusion.schedules import SCHEDULES, Cosine, Flow, Karras, LinearBeta, Schedule, Shifted
from difflate.diffusion.weighting import EDM, P2, WEIGHTS, Constant, MinSNR, Sech, Target, Truncated, Weight, factor

__all__ = [
    "EDM",
    "P2",
    "SAMPLERS",
    "SCHEDULES",
    "WEIGHTS",
    "Condition",
    "Constant",
    "Cosine",
    "Flow",
    "Generators",
    "IndexSpace",
    "Karras",
    "LinearBeta",
    "MinSNR",
    "Model",
    "Pair",
    "Process",
    "ProcessConfig",
    "Sampler",
    "Scaling",
    "Schedule",
    "Sech",
    "Shifted",
    "Step",
    "Target",
    "Truncated",
    "Weight",
    "consistency",
    "consistency_pair",
    "ddim",
    "ddim_step",
    "ddpm",
    "denoise",
    "distillation_pair",
    "dpmpp_2m",
    "eps_z",
    "euler",
    "expand",
    "expected_codewords",
    "factor",
    "few_steps",
    "guide",
    "guided",
    "gumbel",
    "gumbel_softmax",
    "heun",
    "normal",
    "pseudo_huber",
    "sampled_x0",
    "self_condition",
    "times",
]
