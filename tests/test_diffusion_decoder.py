import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError, ModelError
from difflate.models.diffusion_decoder import DecoderConfig, DiffusionDecoder, fit_network
from difflate.nn import UNetConfig
from difflate.nn.entropy_network import HyperpriorConfig
from difflate.nn.transforms import TransformConfig
from difflate.nn.unet import multiply_adds, parameters
from difflate.train.config import read_settings
from difflate.train.draws import Draws
from difflate.train.recipes.cdc import CdcTraining, build_model

TRANSFORM = TransformConfig("dct", 24, (8, 8, 8), (1, 1, 1))
HYPERPRIOR = HyperpriorConfig(4, 8, 8)
NETWORK = UNetConfig(widths=(8, 8, 8), blocks=(1, 1, 1), patch=4)
V = ProcessConfig("cosine", target="v", condition="t")
CONFIGS = Path(__file__).parents[1] / "configs"
X, EPS = (read_settings(CdcTraining, CONFIGS / f"cdc-{name}-param.yaml", []).process for name in ("x", "eps"))
QUALITIES = torch.tensor([0.2, 0.9])


def tiny(
    process: ProcessConfig = V, network: UNetConfig = NETWORK, one_rate: bool = False, **decoder
) -> DiffusionDecoder:
    torch.manual_seed(0)
    config = DecoderConfig(**{"context_widths": (0, 0, 8), **decoder})
    high = 0.0006 if one_rate else 0.08
    return DiffusionDecoder(TRANSFORM, HYPERPRIOR, 0.0006, high, config, network, process).eval()


def wild(model: DiffusionDecoder, scale: float = 3.0) -> DiffusionDecoder:
    """``model`` with a network that gives large values that have nothing to do with the image."""
    torch.nn.init.normal_(model.unet.exit.weight, std=scale)
    return model


def latents(count: int = 2, height: int = 3, width: int = 2) -> Tensor:
    return torch.randn(count, 24, height, width, generator=torch.Generator().manual_seed(1)).mul(4).round()


def noise_like(images: Tensor) -> Tensor:
    return torch.randn(images.shape, generator=torch.Generator().manual_seed(2))


def block_rms(images: Tensor) -> Tensor:
    """(B, h, w) over blocks of 16x16 px."""
    return images.unflatten(2, (-1, 16)).unflatten(4, (-1, 16)).square().mean((1, 3, 5)).sqrt()


def shipped(name: str) -> DiffusionDecoder:
    """The model of a configuration, without its weights."""
    with torch.device("meta"):
        return build_model(read_settings(CdcTraining, CONFIGS / f"cdc-{name}.yaml", []))


def test_the_small_one_is_small() -> None:
    model = shipped("small")
    count = parameters(model.unet) + parameters(model.context)
    assert 4.5e6 < count < 5.5e6
    assert multiply_adds(model.network, 512, 768) < 26e9
    assert not any(kind != "none" for kind in model.network.attention or ())  # tiles agree with the whole


@pytest.mark.parametrize(("name", "target", "steps"), [("x-param", "x0", 65), ("eps-param", "eps", 200)])
def test_those_of_the_paper(name: str, target: str, steps: int) -> None:
    model = shipped(name)
    assert parameters(model.unet) == pytest.approx(40e6, rel=0.02)
    assert (model.process.target, model.decoder.steps) == (target, steps)
    features = model.context(torch.empty(1, 256, 4, 4, device="meta"))
    shapes = {level: tuple(features[level].shape[1:]) for level in sorted(features)}
    assert shapes == {0: (64, 64, 64), 1: (64, 32, 32), 2: (128, 16, 16), 3: (192, 8, 8)}
    assert model.network.vector_channels == 0


def test_conditions_of_the_small_one() -> None:
    conditions = tiny().conditions(latents(), QUALITIES)
    assert conditions.synthesis.shape == (2, 3, 48, 32)
    shapes = [None if cond is None else tuple(cond.shape) for cond in conditions.spatial]
    assert shapes == [(2, 48, 12, 8), None, (2, 8, 3, 2)]
    assert conditions.vector is not None
    assert conditions.vector.shape == (2, 4)


def test_residual_std_is_a_power_of_lambda() -> None:
    model = tiny()
    quality = torch.linspace(0, 1, 5)
    expected = 0.066 * (model.coder.lmbda(quality) / 0.0067) ** -0.24
    assert torch.allclose(model.residual_std(quality), expected)


@pytest.mark.parametrize("residual", [True, False])
def test_x0_and_images_are_inverse(residual: bool) -> None:
    model = tiny(residual=residual)
    conditions = model.conditions(latents(), QUALITIES)
    images = noise_like(conditions.synthesis)
    x0 = model.to_x0(images, conditions)
    assert torch.allclose(model.to_images(x0, conditions), images, atol=1e-6)
    if residual:
        assert torch.allclose(x0 * conditions.std[:, None, None, None], images - conditions.synthesis, atol=1e-6)


def test_residual_in_luma_and_chroma() -> None:
    """Of grey it has no chroma; noise in it has less colour than luma."""
    model = tiny(residual_chroma=0.4)
    conditions = model.conditions(latents(), QUALITIES)
    images = noise_like(conditions.synthesis)
    assert torch.allclose(model.to_images(model.to_x0(images, conditions), conditions), images, atol=1e-5)
    std = conditions.std[:, None, None, None]
    x0 = model.to_x0(conditions.synthesis + 0.3 * std, conditions)
    assert torch.allclose(x0[:, 0], torch.tensor(0.3), atol=1e-5)
    assert torch.allclose(x0[:, 1:], torch.tensor(0.0), atol=1e-5)
    blue = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    x0 = model.to_x0(conditions.synthesis + blue * std, conditions)
    assert torch.allclose(x0[:, 2], torch.tensor(0.5 / 0.4), atol=1e-5)
    noise = noise_like(images)
    made = (model.to_images(noise, conditions) - conditions.synthesis) / std
    grey = made.mean(1, keepdim=True).expand_as(made)
    assert (made - grey).square().mean() < 0.5 * (noise - noise.mean(1, keepdim=True)).square().mean()


@pytest.mark.parametrize("decoder", [{}, {"residual": False}, {"max_refinement": 0.25}])
def test_a_bad_network_costs_at_most_the_bound(decoder: dict) -> None:
    model = wild(tiny(**decoder))
    conditions = model.conditions(latents(), QUALITIES)
    refined = model.refine(conditions, 2, noise_like(conditions.synthesis))
    limit = model.decoder.max_refinement * conditions.std[:, None, None]
    reached = block_rms(refined - conditions.synthesis)
    assert (reached <= limit * 1.0001).all()
    assert (reached > 0.9 * limit).any()  # it was needed
    original = conditions.synthesis + 0.1 * noise_like(conditions.synthesis).flip(2)
    before, after = (block_rms(image - original) for image in (conditions.synthesis, refined))
    assert (after <= before + limit * 1.0001).all()


def test_what_is_no_number_refines_nothing() -> None:
    model = tiny()
    torch.nn.init.constant_(model.unet.exit.weight, float("nan"))
    conditions = model.conditions(latents(), QUALITIES)
    assert torch.equal(model.refine(conditions, 1, noise_like(conditions.synthesis)), conditions.synthesis)


def test_a_refinement_below_the_bound_is_left_as_it_is() -> None:
    networks = [wild(tiny(max_refinement=most), 0.003) for most in (1.0, 0.0)]
    conditions = networks[0].conditions(latents(), QUALITIES)
    zeros = torch.zeros_like(conditions.synthesis)
    bounded, free = (model.refine(conditions, 1, zeros) for model in networks)
    assert not torch.equal(free, conditions.synthesis)
    assert torch.allclose(bounded, free, atol=1e-6)


def test_without_a_bound_nothing_is_held_back() -> None:
    model = wild(tiny(max_refinement=0.0))
    conditions = model.conditions(latents(), QUALITIES)
    refined = model.refine(conditions, 1, noise_like(conditions.synthesis))
    assert block_rms(refined - conditions.synthesis).max() > 5 * conditions.std.max()


def test_no_steps_and_an_untrained_network_give_the_synthesis() -> None:
    model = tiny()
    conditions = model.conditions(latents(), QUALITIES)
    assert torch.equal(model.refine(conditions, 0, noise_like(conditions.synthesis)), conditions.synthesis)
    again = model.refine(conditions, 3, torch.zeros_like(conditions.synthesis))
    assert torch.equal(again, conditions.synthesis)


@pytest.mark.parametrize("process", [V, X, EPS])
@pytest.mark.parametrize("steps", [1, 2, 65])
def test_any_number_of_steps(process: ProcessConfig, steps: int) -> None:
    model = wild(tiny(process), 0.1)
    conditions = model.conditions(latents(1, 1, 1), QUALITIES[:1])
    refined = model.refine(conditions, steps, 0.8 * noise_like(conditions.synthesis))
    assert refined.isfinite().all()
    assert not torch.equal(refined, conditions.synthesis)


def test_the_same_noise_gives_the_same_image_in_any_batch() -> None:
    model = wild(tiny(), 0.1)
    conditions = model.conditions(latents(), QUALITIES)
    noise = noise_like(conditions.synthesis)
    both = model.refine(conditions, 3, noise)
    assert torch.equal(both, model.refine(conditions, 3, noise))
    for i in range(2):
        alone = model.refine(model.conditions(latents()[i : i + 1], QUALITIES[i : i + 1]), 3, noise[i : i + 1])
        assert torch.allclose(alone, both[i : i + 1], atol=1e-5)
    other = model.refine(conditions, 3, noise.flip(0))
    assert not torch.allclose(both, other, atol=1e-3)


def test_a_self_conditioned_network_and_one_rate() -> None:
    network = dataclasses.replace(NETWORK, self_condition=True)
    model = wild(tiny(network=network, one_rate=True), 0.1)
    conditions = model.conditions(latents(), torch.zeros(2))
    assert conditions.vector is None
    assert model.refine(conditions, 2, noise_like(conditions.synthesis)).isfinite().all()


def test_the_folder_holds_the_model(tmp_path) -> None:
    model = wild(tiny(steps=3, gamma=0.5), 0.1)
    model.save_pretrained(tmp_path)
    loaded = DiffusionDecoder.from_pretrained(tmp_path)
    assert loaded.config_dict() == DiffusionDecoder.from_pretrained(tmp_path).config_dict()
    assert (loaded.decoder.steps, loaded.decoder.gamma, loaded.coder_hyperprior) == (3, 0.5, HYPERPRIOR)
    conditions, theirs = (m.conditions(latents(), QUALITIES) for m in (model, loaded))
    noise = noise_like(conditions.synthesis)
    assert torch.equal(model.refine(conditions, 2, noise), loaded.refine(theirs, 2, noise))
    tensors = (m.coder.exact_coder.exact_tensors() for m in (model, loaded))
    ours, exact = tensors
    assert all((ours[key] == exact[key]).all() for key in ours)
    (tmp_path / "exact.safetensors").unlink()
    with pytest.raises(ModelError, match="exact"):
        DiffusionDecoder.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("network", "decoder", "message"),
    [
        (NETWORK, {"context_widths": (8, 8)}, "`context_widths`"),
        (NETWORK, {"context_widths": (8, 0, 8)}, "no 0 between"),
        (
            dataclasses.replace(NETWORK, widths=(8,) * 4, blocks=(1,) * 4),
            {"context_widths": (0, 0, 8, 8)},
            "below 1/16",
        ),
        (dataclasses.replace(NETWORK, patch=3), {}, "`patch`"),
        (dataclasses.replace(NETWORK, in_channels=1), {}, "`in_channels`"),
        (dataclasses.replace(NETWORK, cond_channels=(1, 0, 0)), {}, "`cond_channels`"),
        (dataclasses.replace(NETWORK, noise_scale=25.0), {}, "`noise_scale`"),
    ],
)
def test_what_does_not_fit_is_named(network: UNetConfig, decoder: dict, message: str) -> None:
    config = DecoderConfig(**{"context_widths": (0, 0, 8), **decoder})
    with pytest.raises(ConfigError, match=message):
        fit_network(network, config, V, 16)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_refinement": -1.0}, "`max_refinement`"),
        ({"context_widths": (-1,)}, "`context_widths`"),
        ({"steps": -1}, "`steps`"),
        ({"gamma": 9.0}, "`gamma`"),
    ],
)
def test_settings_of_the_decoder_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DecoderConfig(**settings)


def test_fitting_twice_changes_nothing() -> None:
    once = fit_network(NETWORK, DecoderConfig(context_widths=(0, 0, 8)), V, 16)
    assert fit_network(once, DecoderConfig(context_widths=(0, 0, 8)), V, 16) == once


def test_steps_and_noise_are_checked() -> None:
    model = tiny()
    conditions = model.conditions(latents(), QUALITIES)
    with pytest.raises(ConfigError, match="`steps`"):
        model.refine(conditions, -1, torch.zeros_like(conditions.synthesis))
    with pytest.raises(ConfigError, match="`noise`"):
        model.refine(conditions, 1, torch.zeros(1, 3, 16, 16))


def test_levels_are_spread_and_independent_of_the_noise_level() -> None:
    together = []
    for step in range(200):
        draws = Draws(0, torch.arange(8 * step, 8 * step + 8), 8)
        levels = draws.spread()
        assert (levels.sort().values.diff() - 0.125).abs().max() < 1e-5
        together.append(torch.stack([levels, draws.uniform()]))
        part = Draws(0, draws.numbers[3:5], 8).spread()
        assert torch.equal(part, levels[3:5])
    correlation = torch.corrcoef(torch.cat(together, dim=1))[0, 1]
    assert abs(float(correlation)) < 0.08


@pytest.mark.parametrize("max_refinement", [0.0, 0.5])
@pytest.mark.parametrize("chroma", [None, 0.4])
def test_the_answer_that_is_trained_is_what_one_step_decodes(max_refinement: float, chroma: float | None) -> None:
    model = wild(tiny(max_refinement=max_refinement, residual_chroma=chroma), 0.3)
    conditions = model.conditions(latents(), QUALITIES)
    noise = 0.9 * noise_like(conditions.synthesis)
    trained = model.to_images(model.answer(noise, conditions), conditions)
    assert torch.allclose(trained, model.refine(conditions, 1, noise), atol=1e-4)
