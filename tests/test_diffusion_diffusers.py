"""Step by step with the schedulers of diffusers, on the same model outputs and the same noise.

Step n of diffusers, 0 … 999, is t = (n + 1)/1000 here, and its step -1, clean, is t = 0. Its table of ᾱ is float32;
where it is replaced by the exact one, the steps agree to the precision of the state.
"""

import pytest
import torch

from difflate.diffusion import LinearBeta, Process, ddim, ddpm, dpmpp_2m
from lazy import Lazy

diffusers = Lazy("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:.*:FutureWarning", "ignore:.*:DeprecationWarning")

PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
OPTIONS = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 2e-2, "beta_schedule": "linear"}


def model(x, t):
    """Any smooth function of both."""
    return (0.8 * x + 3 * t.view(-1, 1, 1, 1)).sin() + 0.1 * x


def noise(dtype=torch.float32):
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)


def exact(scheduler):
    """With ᾱ in float64."""
    steps = torch.arange(1, 1001, dtype=torch.float64) / 1000
    ours = LinearBeta()(steps).sigmoid()
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), ours, rtol=2e-5, atol=0)
    scheduler.alphas_cumprod = ours
    return scheduler


def reference(scheduler, steps, x, **options):
    """(grid of our times, diffusers' states)."""
    scheduler.set_timesteps(steps)
    states = []
    for n in scheduler.timesteps:
        y = model(x, torch.full((2,), (n.item() + 1) / 1000, dtype=x.dtype))
        x = scheduler.step(y, n.item(), x, **options).prev_sample
        states.append(x)
    return [(n.item() + 1) / 1000 for n in scheduler.timesteps] + [0.0], states


def compare(ours, states, tolerance=2e-6):
    """``tolerance``: of the largest value, which without clipping reaches hundreds for an eps-model this wrong."""
    ours = list(ours)
    atol = tolerance * max(state.abs().max().item() for state in states)
    assert len(ours) == len(states)
    for step, state in zip(ours, states, strict=True):
        torch.testing.assert_close(step.x, state, rtol=0, atol=atol)


@pytest.mark.parametrize("target", PREDICTIONS)
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("steps", [25, 1000])
def test_ddpm(target, clip, steps):
    scheduler = exact(
        diffusers.DDPMScheduler(**OPTIONS, prediction_type=PREDICTIONS[target], clip_sample=clip is not None)
    )
    grid, states = reference(scheduler, steps, noise(), generator=torch.Generator().manual_seed(1))
    process = Process(LinearBeta(), "vp", target)
    ours = ddpm(process, model, noise(), grid, clip=clip, generator=torch.Generator().manual_seed(1))
    compare(ours, states)


@pytest.mark.parametrize("target", PREDICTIONS)
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(target, clip, eta):
    scheduler = exact(
        diffusers.DDIMScheduler(**OPTIONS, prediction_type=PREDICTIONS[target], clip_sample=clip is not None)
    )
    process, steps = Process(LinearBeta(), "vp", target), 20
    grid, states = reference(
        scheduler, steps, noise(), eta=eta, generator=torch.Generator().manual_seed(1), use_clipped_model_output=True
    )
    ours = ddim(process, model, noise(), grid, eta=eta, clip=clip, generator=torch.Generator().manual_seed(1))
    compare(ours, states)
    if eta == 0:  # no noise, whose drawing depends on the dtype
        grid, states = reference(scheduler, steps, noise(torch.float64), use_clipped_model_output=True)
        compare(ddim(process, model, noise(torch.float64), grid, clip=clip), states, tolerance=1e-13)


@pytest.mark.parametrize("target", PREDICTIONS)
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
def test_dpmpp_2m(target, spacing):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        **OPTIONS,
        prediction_type=PREDICTIONS[target],
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        solver_order=2,
        final_sigmas_type="zero",
        timestep_spacing=spacing,
    )
    grid, states = reference(scheduler, 20, noise())
    compare(dpmpp_2m(Process(LinearBeta(), "vp", target), model, noise(), grid), states)
