"""Tasks: turns with optimizers of their own, what is frozen beside them, and the time that a training takes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adversarial_task import Adversary, Painter, train_adversary
from difflate.data.crops import Crops, collate
from difflate.data.items import list_items
from difflate.errors import OutputExists
from difflate.train import checkpoint, clock
from difflate.train.recipes import pixel
from difflate.train.settings import LoopSettings
from training_helpers import LOOP, assert_same, newest, settings, tensors, write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


def test_each_turn_of_a_step_is_a_step_of_its_own_optimizer(images: Path, tmp_path: Path) -> None:
    """Against two steps written out: the painter's against the critic that there is, then the critic's."""
    train_adversary(images, tmp_path, max_steps=2, decay="constant", warmup_steps=0, accumulate=2)
    task, crops = Adversary(LOOP), Crops(list_items([images]), 8)
    painter = torch.optim.Adam(task.model.parameters(), LOOP.lr, betas=(0.5, 0.9))
    critic = torch.optim.Adam(task.critic.parameters(), LOOP.lr, betas=(0.0, 0.9))
    for step in range(2):
        batch = collate([crops[number] for number in range(step * 8, step * 8 + 8)])
        for turn, optimizer in (("loss", painter), ("critic_loss", critic)):
            task.zero_grad()
            task(batch, turn)["loss"].backward()
            optimizer.step()
    held = tensors(tmp_path)
    for name, value in task.state_dict().items():
        torch.testing.assert_close(held[f"objective.{name}"], value, rtol=1e-5, atol=1e-6, msg=name)
    assert int(held["optimizer.0.step"]) == int(held["optimizer-critic_loss.0.step"]) == 2


def test_both_optimizers_go_on_exactly(images: Path, tmp_path: Path) -> None:
    train_adversary(images, tmp_path / "whole", max_steps=6)
    train_adversary(images, tmp_path / "parts", max_steps=3)
    train_adversary(images, tmp_path / "parts", max_steps=6)
    assert_same(tmp_path / "whole", tmp_path / "parts", tolerance=1e-7)


def test_the_model_alone_is_averaged_and_what_is_frozen_is_not_saved(images: Path, tmp_path: Path) -> None:
    task = train_adversary(images, tmp_path, max_steps=4)
    names = tensors(tmp_path).keys()
    assert any(name.startswith("objective.critic.") for name in names)
    assert not any("teacher" in name for name in names)
    average = {name.removeprefix("average.model.") for name in names if name.startswith("average.")}
    assert average == Painter(4).state_dict().keys() == load_file(tmp_path / "model.safetensors").keys()
    assert not any(torch.equal(v, load_file(tmp_path / "model.safetensors")[k])
                   for k, v in task.model.state_dict().items())  # fmt: skip


def test_what_is_frozen_moves_and_is_not_trained() -> None:
    task, teacher = Adversary(LOOP), torch.nn.Linear(3, 3)
    task.freeze(teacher=teacher)
    assert task.teacher is teacher
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in task.parameters()}
    task.to(torch.float64)
    assert teacher.weight.dtype == torch.float64
    assert not task.train().teacher.training
    with pytest.raises(AttributeError, match="nothing"):
        _ = task.nothing


class Time:
    """A clock that only what is done moves on."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time_of_work(monkeypatch: pytest.MonkeyPatch) -> Time:
    """A step takes a second, a validation seven."""
    time, original = Time(), pixel.PixelTask.loss

    def loss(self: pixel.PixelTask, *arguments: Any) -> dict[str, torch.Tensor]:
        time.now += 1 if self.training else 7
        return original(self, *arguments)

    monkeypatch.setattr(pixel.PixelTask, "loss", loss)
    monkeypatch.setattr(clock, "time", time)
    return time


def test_a_time_budget_has_room_for_the_last_validation(images: Path, tmp_path: Path, time_of_work: Time) -> None:
    loop = {"max_steps": 10**6, "max_minutes": 1.0, "validate_every": 20, "decay": "cosine"}
    pixel.RECIPE.run(settings(images, tmp_path, loop))
    assert 45 < time_of_work.now <= 60
    progress, _ = checkpoint.read_head(newest(tmp_path))
    assert progress.seconds == pytest.approx(time_of_work.now, abs=1)
    assert progress.validations[-1][0] == progress.step
    with pytest.raises(OutputExists, match="is trained already"):
        pixel.RECIPE.run(settings(images, tmp_path, loop))
    pixel.RECIPE.run(settings(images, tmp_path, {**loop, "max_minutes": 2.0}))
    assert 105 < time_of_work.now <= 120


def test_the_cosine_ends_with_the_budget(time_of_work: Time) -> None:
    settings, progress = LoopSettings(max_steps=10**6, max_minutes=1.0), checkpoint.Progress()
    ours = clock.Clock(settings, progress, None)
    with ours.measure("validation"):
        time_of_work.now += 9
    shares = []
    while not ours.is_over:
        shares.append(ours.share_done)
        time_of_work.now += 1
        progress.step += 1
        ours.agree(False)
    assert shares[0] == 0
    assert shares[2:] == sorted(shares[2:])
    assert shares[-1] > 0.95
    assert ours.share_done == 1
