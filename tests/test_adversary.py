"""Adversaries: the discriminator, the losses of both turns, what reaches the model, and exact resume."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from adversarial_task import SETTINGS, Painting, paint
from difflate.data.crops import Batch
from difflate.errors import ConfigError
from difflate.nn.discriminator import PatchDiscriminator
from difflate.nn.unet import parameters
from difflate.train.adversary import CRITIC, Adversary, AdversarySettings
from difflate.train.draws import Draws
from difflate.train.stages import DiffusionStage
from training_helpers import LOOP, assert_same, tensors, write_images


def draws(step: int = 0) -> Draws:
    return Draws(0, torch.arange(4 * step, 4 * step + 4), 4)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# The discriminator


def test_the_discriminator_sees_single_pixels_and_patches_of_56() -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator((4, 4, 4, 4), cond_channels=2)
    images = noise(1, 3, 96, 96).requires_grad_()
    found = network(images, noise(1, 2, 96, 96, seed=1))
    assert found.shape == (1, 1, 12, 12)
    found[0, 0, 6, 6].backward()
    assert images.grad is not None
    seen = images.grad.abs().sum((0, 1)) > 0
    assert seen.any(1).sum() == seen.any(0).sum() == 56
    assert PatchDiscriminator((4, 4))(noise(2, 3, 7, 5)).shape == (2, 1, 3, 2)
    assert parameters(PatchDiscriminator(cond_channels=3)) < 3e6


def largest(weight: Tensor) -> float:
    return torch.linalg.matrix_norm(weight.detach().flatten(1), ord=2).item()


def test_the_largest_singular_values_stay_1() -> None:
    torch.manual_seed(0)
    adversary = Adversary(SETTINGS)
    optimizer = adversary.optimizer(1e-2)
    before = {name: value.clone() for name, value in adversary.state_dict().items()}
    adversary.train()
    adversary.discriminator(noise(2, 3, 8, 8))
    assert all(torch.equal(before[name], value) for name, value in adversary.state_dict().items())
    for step in range(20):
        optimizer.zero_grad()
        adversary.told(noise(2, 3, 8, 8, seed=step), -noise(2, 3, 8, 8, seed=step)).backward()
        optimizer.step()
    weights: list[Any] = [m.weight for m in adversary.discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert [largest(weight) for weight in weights] == pytest.approx([1] * 4, abs=0.03)
    assert not all(torch.equal(before[name], value) for name, value in adversary.state_dict().items())


def test_wrong_widths_and_weights_are_told() -> None:
    with pytest.raises(ConfigError, match="widths"):
        AdversarySettings(widths=[])
    with pytest.raises(ConfigError, match=r"weight \(=0\)"):
        AdversarySettings(weight=0)
    with pytest.raises(ConfigError, match="start_step"):
        AdversarySettings(start_step=-1)
    with pytest.raises(ConfigError, match="one_step"):
        DiffusionStage("stage", adversary=AdversarySettings())
    for nets in ([], ["vgg", "vgg"]):
        with pytest.raises(ConfigError, match="lpips"):
            DiffusionStage("stage", lpips=nets)  # pyright: ignore[reportArgumentType]


# The losses


class Brightness(nn.Module):
    """A discriminator without weights: the mean of each image, times a factor."""

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        return 3 * images.mean((1, 2, 3), keepdim=True)


def bright(settings: AdversarySettings = SETTINGS) -> Adversary:
    adversary = Adversary(settings)
    adversary.discriminator = Brightness()  # type: ignore[assignment]
    return adversary


def level(*values: float) -> Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, 4, 4)


def test_the_hinge_in_closed_form() -> None:
    adversary = bright()
    # of originals max(0, 1 - 3x), of what is made max(0, 1 + 3x)
    found = adversary.told(level(0.1, -0.5), level(0.5, 0.2))
    assert found.item() == pytest.approx((0 + 0.4) / 2 + (1.3 + 0) / 2)
    made = level(0.1, -0.5).clone().requires_grad_()
    loss = adversary.deceive(made, level(0.5, 0.2))
    assert loss.item() == 0
    loss.backward()
    torch.testing.assert_close(made.grad, torch.full_like(made, -3 / (2 * 48)))
    assert adversary.critic_loss().item() == pytest.approx(found.item())


def test_what_was_kept_first_is_judged_first() -> None:
    adversary = bright()
    for value in (0.1, 0.2):
        adversary.deceive(level(value), level(0.3))
    found = [adversary.critic_loss().item() for _ in range(2)]
    assert found == pytest.approx([0.1 + 1.3, 0.1 + 1.6])


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_the_adversary_s_gradient_has_its_share_for_each_image(weight: float) -> None:
    torch.manual_seed(0)
    adversary = Adversary(AdversarySettings(weight, 0, (4, 6)))
    made, originals = noise(4, 3, 8, 8).requires_grad_(), noise(4, 3, 8, 8, seed=1)
    own, judged = adversary.split(made, draws())
    scale = torch.tensor([1.0, 10.0, 0.1, 0.0])[:, None, None, None]
    (((own - originals).square() * scale).mean() + adversary.deceive(judged, originals)).backward()
    (ours,) = torch.autograd.grad(((made - originals).square() * scale).mean(), made)
    (theirs,) = torch.autograd.grad(-adversary.discriminator(made).mean(), made)
    factors = weight * ours.flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)
    torch.testing.assert_close(made.grad, ours + factors[:, None, None, None] * theirs)
    assert made.grad is not None
    assert not made.grad[3].any()


def test_an_adversary_without_a_slope_gives_nothing() -> None:
    made = noise(2, 3, 4, 4).requires_grad_()
    own, judged = bright().split(made, draws())
    (own.sum() + 0 * judged.sum()).backward()
    torch.testing.assert_close(made.grad, torch.ones_like(made))


def test_the_model_learns_from_it_from_the_start_step_on() -> None:
    def gradient(step: int) -> Tensor:
        made = torch.zeros(4, 3, 4, 4, requires_grad=True)
        adversary = bright(AdversarySettings(1.0, 3, (4,)))
        own, judged = adversary.split(made, draws(step))
        (own.sum() + adversary.deceive(judged, level(0, 0, 0, 0))).backward()
        assert made.grad is not None
        return made.grad

    assert all((gradient(step) == 1).all() for step in range(3))
    assert all((gradient(step).abs() < 1e-6).all() for step in (3, 4))  # the two oppose each other


# A training


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


def test_the_adversary_moves_what_is_made_to_the_originals(images: Path, tmp_path: Path) -> None:
    """Images are black or white: the mean of squared errors wants grey, the adversary never sees that."""
    settings = AdversarySettings(weight=2.0, start_step=5, widths=(8, 8))
    common = {"max_steps": 50, "validate_every": 50, "checkpoint_every": 50, "lr": 2e-2, "warmup_steps": 0, "ema": 0}
    plain = paint(images, tmp_path / "plain", None, **common).model.pattern
    moved = paint(images, tmp_path / "moved", settings, **common).model.pattern
    assert moved.abs().mean() > plain.abs().mean() + 0.3


def test_both_turns_go_on_exactly_and_in_parts(images: Path, tmp_path: Path) -> None:
    paint(images, tmp_path / "whole", max_steps=6)
    paint(images, tmp_path / "stopped", max_steps=3)
    paint(images, tmp_path / "stopped", max_steps=6)
    assert_same(tmp_path / "whole", tmp_path / "stopped")
    paint(images, tmp_path / "parts", max_steps=6, accumulate=4)
    assert_same(tmp_path / "whole", tmp_path / "parts", tolerance=1e-5)


def test_the_model_s_folder_has_no_discriminator(images: Path, tmp_path: Path) -> None:
    task = paint(images, tmp_path, max_steps=2)
    assert load_file(tmp_path / "model.safetensors").keys() == {"pattern"}
    held = tensors(tmp_path)
    assert {name for name in held if name.startswith("average.")} == {"average.model.pattern"}
    assert {f"objective.{name}" for name in task.state_dict()} <= held.keys()
    assert any("discriminator" in name for name in held)


def test_each_turn_has_its_own_parameters(images: Path) -> None:
    task = Painting(LOOP, SETTINGS).train()
    ours, theirs = task.trained("loss"), task.trained(CRITIC)
    assert [id(p) for p in ours] == [id(p) for p in task.model.parameters()]
    assert task.adversary is not None
    assert {id(p) for p in theirs} == {id(p) for p in task.adversary.parameters()}
    pixels = torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    batch = Batch(pixels, torch.arange(4), torch.full((4,), -1), [])
    task(batch)["loss"].backward()
    assert all(p.grad is not None for p in ours)
    task.zero_grad()
    task(batch, CRITIC)["loss"].backward()
    assert all(p.grad is None for p in ours)
    assert all(p.grad is not None for p in theirs)
    assert Painting(LOOP, None).turns == ("loss",)
