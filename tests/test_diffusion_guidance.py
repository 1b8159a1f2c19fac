"""Guidance, self-conditioning and denoising against their closed forms."""

import pytest
import torch

from difflate.diffusion import Cosine, Karras, LinearBeta, Process, denoise, guide, guided, self_condition


def outputs(batch=3):
    return torch.randn(2, batch, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_guidance_is_a_line_through_both_predictions():
    y_cond, y_null = outputs()
    torch.testing.assert_close(guide(y_cond, y_null, 0), y_null)
    torch.testing.assert_close(guide(y_cond, y_null, 1), y_cond)
    torch.testing.assert_close(guide(y_cond, y_null, 3), 3 * y_cond - 2 * y_null)


def test_a_weight_for_each_item():
    y_cond, y_null = outputs()
    together = guide(y_cond, y_null, torch.tensor([0.0, 1.0, 3.0]), rescale=0.5)
    for i, w in enumerate([0.0, 1.0, 3.0]):
        torch.testing.assert_close(together[i : i + 1], guide(y_cond[i : i + 1], y_null[i : i + 1], w, rescale=0.5))


def test_rescale_brings_the_std_of_each_item_back():
    """Lin et al. 2024, Eq. 14 to 16."""
    y_cond, y_null = outputs()
    y = guide(y_cond, y_null, 5.0)
    full = y * (y_cond.std((1, 2, 3)) / y.std((1, 2, 3))).view(-1, 1, 1, 1)
    torch.testing.assert_close(guide(y_cond, y_null, 5.0, rescale=1), full)
    torch.testing.assert_close(full.std((1, 2, 3)), y_cond.std((1, 2, 3)))
    torch.testing.assert_close(guide(y_cond, y_null, 5.0, rescale=0.7), 0.7 * full + 0.3 * y)


def test_rescale_of_a_constant_is_finite():
    assert torch.equal(guide(torch.ones(1, 4), torch.zeros(1, 4), 2.0, rescale=1), torch.full((1, 4), 2.0))


def test_guidance_without_rescale_acts_alike_on_every_target():
    logsnr = torch.tensor([-4.0, 0.0, 4.0], dtype=torch.float64)
    (x0_cond, x0_null), x = outputs(), outputs()[0].flip(0)
    for target in ("x0", "eps", "v", "flow"):
        process = Process(Cosine(), "vp", target)
        a, b = (s.view(-1, 1, 1, 1) for s in process.scale(logsnr))
        ys = [process.target_of(x0, (x - a * x0) / b, logsnr) for x0 in (x0_cond, x0_null)]
        torch.testing.assert_close(process.split(x, guide(*ys, 3.0), logsnr)[0], 3 * x0_cond - 2 * x0_null)


def test_a_guided_model_asks_both_and_passes_everything_on():
    x, condition, x0 = torch.full((2, 4), 2.0), torch.full((2,), 3.0), torch.full((2, 4), 5.0)
    conditional = lambda x, c, x0: x + c.view(-1, 1) + x0  # noqa: E731
    unconditional = lambda x, c, x0: x - x0  # noqa: E731
    assert torch.equal(guided(conditional, unconditional, 2.0)(x, condition, x0), torch.full((2, 4), 23.0))
    w = torch.tensor([0.0, 1.0])
    assert guided(conditional, unconditional, w)(x, condition, x0)[:, 0].tolist() == [-3, 10]
    assert guided(conditional, unconditional, 1.0) is conditional


def test_denoise_gives_the_network_its_input_and_condition():
    process = Process(Karras(), "ve", "v", condition="sigma")
    x, t = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 0.8])
    seen = []

    def network(*given):
        seen.append(given)
        return torch.zeros(2, 4)

    x0, eps = denoise(process, network, x, t)
    sigma = (-Karras()(t) / 2).exp()
    torch.testing.assert_close(seen[0][0], x / (1 + sigma.view(-1, 1) ** 2).sqrt())
    torch.testing.assert_close(seen[0][1], sigma)
    torch.testing.assert_close(x0, x / (1 + sigma.view(-1, 1) ** 2))
    torch.testing.assert_close(x0 + sigma.view(-1, 1) * eps, x)


def test_clipping_keeps_x0_and_eps_together():
    process = Process(Cosine(), "vp", "eps")
    x, t = 4 * torch.randn(2, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 0.8])
    x0, eps = denoise(process, lambda x, t: torch.zeros_like(x), x, t, clip=1.0)
    a, b = (s.view(-1, 1) for s in process.scale(process.logsnr(t)))
    torch.testing.assert_close(x0, (x / a).clamp(-1, 1))
    torch.testing.assert_close(a * x0 + b * eps, x)
    assert not torch.allclose(eps, torch.zeros_like(eps))


def test_denoise_has_gradients():
    process = Process(LinearBeta(), "vp", "v")
    scale = torch.ones((), requires_grad=True)
    x0, _ = denoise(process, lambda x, t: scale * x, torch.ones(1, 4), torch.tensor(0.5))
    x0.sum().backward()
    assert scale.grad is not None


def test_self_conditioning_in_training():
    """Half of the time zeros, else what the model finds given zeros, without gradient."""
    process = Process(Cosine(), "vp", "x0")
    scale = torch.ones((), requires_grad=True)
    x, t = torch.full((2, 4), 3.0), torch.tensor([0.3, 0.8])
    network = lambda x, t, x0: scale * x + x0  # noqa: E731
    generator = torch.Generator().manual_seed(0)
    draws = [self_condition(process, network, x, t, generator=generator) for _ in range(400)]
    assert not any(draw.requires_grad for draw in draws)
    values = torch.stack(draws).mean((1, 2))
    assert values.unique().tolist() == [0, 3]
    assert (values == 3).float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert torch.equal(self_condition(process, network, x, t, probability=0.0), torch.zeros_like(x))
    assert torch.equal(self_condition(process, network, x, t, probability=1.0, clip=1.0), torch.ones_like(x))
