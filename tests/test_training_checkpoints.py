"""Checkpoints: what is in one, those that are damaged, and what a kill leaves between one and the model's folder."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from difflate.errors import ModelError, OutputExists
from difflate.generate import PixelDiffusion
from difflate.train import checkpoint
from difflate.train.output import CHECKPOINTS
from difflate.train.recipes import pixel
from training_helpers import assert_same, newest, settings, tensors, write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    return pixel.RECIPE.run(settings(images, tmp_path_factory.mktemp("whole")))


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_checkpoint_is_named_if_there_is_no_other(share: float, images: Path, tmp_path: Path) -> None:
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 4}))
    cut(newest(tmp_path), share)
    with pytest.raises(ModelError, match=r"step-00000004.*remove it to go on"):
        pixel.RECIPE.run(settings(images, tmp_path))


def test_a_truncated_checkpoint_is_passed_over(
    images: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 8}))
    cut(newest(tmp_path), 0.5)
    pixel.RECIPE.run(settings(images, tmp_path))
    (warning,) = [r.message for r in caplog.records if r.levelname == "WARNING" and "damaged" in r.message]
    assert "step-00000008" in warning
    assert_same(whole, tmp_path)


def test_a_checkpoint_of_other_tensors_is_named(images: Path, tmp_path: Path) -> None:
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 4}))
    with safe_open(str(newest(tmp_path)), "pt") as file:
        metadata = file.metadata()
    save_file({"objective.model.nothing": torch.zeros(3)}, newest(tmp_path), metadata)
    with pytest.raises(ModelError, match="is damaged or of another network"):
        pixel.RECIPE.run(settings(images, tmp_path))


def test_checkpoints_of_earlier_versions_are_gone_on_from(images: Path, whole: Path, tmp_path: Path) -> None:
    """Their names are those of today; of themselves they knew less."""
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 4}))
    path = newest(tmp_path)
    model = PixelDiffusion.from_pretrained(tmp_path).state_dict()
    wanted = {f"{part}.model.{name}" for part in ("objective", "average") for name in model}
    wanted |= {f"optimizer.{n}.{key}" for n in range(len(model)) for key in ("exp_avg", "exp_avg_sq", "step")}
    held = load_file(path)
    assert held.keys() == wanted
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    progress = json.loads(metadata["progress"])
    known = {key: progress[key] for key in ("step", "seconds", "skipped", "validations")}
    save_file(held, path, {**metadata, "progress": json.dumps(known)})
    pixel.RECIPE.run(settings(images, tmp_path))
    assert_same(whole, tmp_path)


def test_without_an_average_the_weights_themselves_are_saved(images: Path, tmp_path: Path) -> None:
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 4, "ema": 0.0}))
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 6, "ema": 0.0}))
    held = tensors(tmp_path)
    assert not any(name.startswith("average.") for name in held)
    for name, value in PixelDiffusion.from_pretrained(tmp_path).state_dict().items():
        assert torch.equal(held[f"objective.model.{name}"], value)


@pytest.mark.parametrize("first_save_fails", [True, False])
def test_a_kill_between_the_last_checkpoint_and_the_model_is_repaired(
    first_save_fails: bool, images: Path, whole: Path, tmp_path: Path, monkeypatch
) -> None:
    def fail(self: PixelDiffusion, *args: object, **options: object) -> None:
        if first_save_fails or checkpoint.latest(tmp_path / CHECKPOINTS).name == "step-00000012.safetensors":
            raise RuntimeError("killed")
        original(self, *args, **options)

    original = PixelDiffusion.save_pretrained
    loop = {"checkpoint_every": 12} if first_save_fails else {}
    monkeypatch.setattr(PixelDiffusion, "save_pretrained", fail)
    with pytest.raises(RuntimeError, match="killed"):
        pixel.RECIPE.run(settings(images, tmp_path, loop), "")
    monkeypatch.setattr(PixelDiffusion, "save_pretrained", original)
    with pytest.raises(OutputExists, match="is trained already"):
        pixel.RECIPE.run(settings(images, tmp_path, loop), "")
    assert (tmp_path / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert "| 12 |" in (tmp_path / "README.md").read_text()
