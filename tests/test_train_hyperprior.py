"""The recipe `hyperprior`: it learns, resumes to the bit, and what it writes is a codec."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import difflate
from coder_helpers import HYPERPRIOR, as_images, one_rate_model, photo, tiny_model, tiny_transform
from difflate.cli.main import main
from difflate.codecs.hyperprior import HyperpriorCodec
from difflate.errors import ConfigError
from difflate.media.picture import Picture
from difflate.models.exact import EXACT
from difflate.models.transform_coder import TransformModel
from difflate.train import checkpoint
from difflate.train.config import read_settings
from difflate.train.loop import CHECKPOINTS
from difflate.train.recipes.hyperprior import RECIPE, HyperpriorTraining, RateDistortion, cost
from difflate.train.settings import LoopSettings

run = RECIPE.run
LOOP = {
    "max_steps": 6, "batch": 4, "lr": 2e-3, "warmup_steps": 2, "log_every": 2, "validate_every": 3,
    "pictures_every": 0, "checkpoint_every": 2, "workers": 0,
}  # fmt: skip
YAML = """
recipe: hyperprior
out: {out}
images: [{images}]
holdback: 3
crop_px: 32
rate_ramp_steps: 4
transform: {{latent_channels: 24, widths: [8, 8, 16], blocks: [1, 1, 1]}}
hyperprior: {{channels: 8, width: 16, features: 16}}
training: {{max_steps: 6, batch: 4, lr: 2.0e-3, warmup_steps: 2, log_every: 2, validate_every: 3, pictures_every: 0,
  checkpoint_every: 2, workers: 0}}
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pieces of a photograph."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(12):
        pixels = photo(56, 64, 60 + 100 * (number // 4), 190 * (number % 4))
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{number:02d}.png")
    return folder


def settings(images: Path, out: Path, loop: dict[str, Any] | None = None, **others: Any) -> HyperpriorTraining:
    values = {"holdback": 3, "crop_px": 32, "rate_ramp_steps": 4, "transform": tiny_transform(), **others}
    values.setdefault("hyperprior", HYPERPRIOR)
    return HyperpriorTraining(
        out=str(out), images=[str(images)], training=LoopSettings(**{**LOOP, **(loop or {})}), **values
    )


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    return run(settings(images, tmp_path_factory.mktemp("whole") / "model"), "the command", progress=False)


@pytest.fixture
def config(images: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(YAML.format(out=tmp_path / "out", images=images))
    return path


def validations(out: Path) -> list[dict[str, float]]:
    newest = checkpoint.latest(out / CHECKPOINTS)
    assert newest is not None
    return [values for _, values in checkpoint.read_head(newest)[0].validations]


def tensors(out: Path) -> dict[str, torch.Tensor]:
    newest = checkpoint.latest(out / CHECKPOINTS)
    assert newest is not None
    return load_file(newest)


def test_the_loss_of_images_held_back_falls(images: Path, tmp_path: Path) -> None:
    loop = {"max_steps": 30, "validate_every": 10}
    out = run(settings(images, tmp_path, loop, transform=tiny_transform("gdn")), "", progress=False)
    found = validations(out)
    assert found[-1]["loss"] < 0.7 * found[0]["loss"]
    assert found[-1]["psnr_db"] > found[0]["psnr_db"] + 2
    assert set(found[-1]) == {"loss", "bpp", "psnr_db"}
    newest = checkpoint.latest(out / CHECKPOINTS)
    assert newest is not None
    assert newest.name == "step-00000030.safetensors"


def test_resume_is_exact_between_checkpoints(images: Path, whole: Path, tmp_path: Path) -> None:
    for steps in (2, 5, 6):
        run(settings(images, tmp_path, {"max_steps": steps}), "", progress=False)
    ours = tensors(tmp_path)
    for name, value in tensors(whole).items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6 if "average" in name else 0, msg=name)


def test_the_folder_holds_integers_of_the_averaged_weights(whole: Path) -> None:
    codec = difflate.load(whole)
    assert isinstance(codec, HyperpriorCodec)
    assert (whole / EXACT).is_file()
    found = codec.model.entropy.fixed_point()
    for name, value in found.items():
        np.testing.assert_array_equal(codec.coder.exact.tensors[name], value)
    config = json.loads((whole / "config.json").read_text())
    assert (config["kind"], config["fingerprint"]) == ("hyperprior", codec.fingerprint.hex())
    assert config["transform"]["latent_channels"] == 24
    assert "`the command`" in (whole / "README.md").read_text()


def test_the_card_says_how_a_codec_is_used(whole: Path) -> None:
    card = (whole / "README.md").read_text()
    assert "difflate compress" in card
    assert "difflate sample" not in card


def test_one_rate_without_a_hyperprior_trains_and_compresses(images: Path, tmp_path: Path) -> None:
    made = settings(images, tmp_path, hyperprior=None, lmbda_min=0.01, lmbda_max=0.01)
    codec = difflate.load(run(made, "", progress=False))
    assert codec.quality_range is None
    picture = Picture(photo(40, 50, 100, 100))
    assert codec.decode(codec.encode(picture)).pixels.shape == (3, 40, 50)
    with pytest.raises(ConfigError):
        codec.encode(picture, quality=50)


@pytest.mark.parametrize("kind", ["gdn", "residual"])
def test_other_transforms_train(kind, images: Path, tmp_path: Path) -> None:
    made = settings(images, tmp_path, {"max_steps": 2}, transform=tiny_transform(kind))
    codec = difflate.load(run(made, "", progress=False))
    assert codec.model.transform.kind == kind


def test_a_latent_in_groups_trains_and_compresses(images: Path, tmp_path: Path) -> None:
    hyperprior = dataclasses.replace(HYPERPRIOR, groups=(1, 2, 5))
    run(settings(images, tmp_path, {"max_steps": 2}, hyperprior=hyperprior), "", progress=False)
    codec = difflate.load(tmp_path)
    assert [group.size for group in codec.coder.exact.groups] == [3, 6, 15]
    picture = Picture(photo(40, 50))
    assert codec.decode(codec.encode(picture)).pixels.shape == picture.pixels.shape


def test_bits_rise_to_their_full_price() -> None:
    task = RateDistortion(tiny_model(), LoopSettings(batch=4), rate_ramp_steps=10)
    numbers = torch.arange(48)
    price = task.train()._price(numbers)
    steps = price.reshape(12, 4)
    assert torch.equal(steps, steps[:, :1].expand(-1, 4))  # of a step all the same
    expected = [0.01 + 0.99 * (min(step + 1, 10) / 10) ** 2 for step in range(12)]
    np.testing.assert_allclose(steps[:, 0].numpy(), expected, rtol=1e-5)
    assert task.eval()._price(numbers).tolist() == [1.0] * 48
    without = RateDistortion(tiny_model(), LoopSettings(batch=4)).train()
    assert without._price(numbers).tolist() == [1.0] * 48
    half = RateDistortion(tiny_model(), LoopSettings(batch=4), rate_ramp_steps=10, price=0.5)
    np.testing.assert_allclose(half.train()._price(numbers).numpy(), price.numpy() / 2)


class One:
    """A batch of two crops, the fifth and sixth of a training."""

    numbers = torch.tensor([5, 6])

    def images(self, device: torch.device) -> torch.Tensor:
        return as_images(photo(32, 32, 100, 100)).expand(2, -1, -1, -1)


def test_the_loss_follows_from_the_numbers_of_the_images() -> None:
    task = RateDistortion(tiny_model(), LoopSettings(batch=2, seed=3)).train()
    first, second = task(One()), task(One())
    assert torch.equal(first["loss"], second["loss"])
    other = One()
    other.numbers = torch.tensor([7, 8])
    assert not torch.equal(first["loss"], task(other)["loss"])
    first["loss"].backward()
    for name in ("gain", "inverse_gain", "entropy.level_rungs", "entropy.near_values.weight", "analysis.linear.weight"):
        gradient = task.model.get_parameter(name).grad
        assert gradient is not None
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0


def test_the_loss_of_one_rate_is_rate_and_distortion() -> None:
    """Where λ is what the loss is normed at, it is R + λ·D as it stands in the papers."""
    model = one_rate_model()
    model.lmbda_min = model.lmbda_max = 0.0067
    found = RateDistortion(model, LoopSettings(batch=2, seed=3)).eval()(One())
    mse = 255**2 / 10 ** (found["psnr_db"] / 10)
    torch.testing.assert_close(found["loss"], found["bpp"] + 0.0067 * mse, rtol=0.02, atol=0)


def test_the_command_trains_and_its_folder_is_a_codec(config: Path, images: Path, tmp_path: Path, capsys) -> None:
    assert main(["train", str(config), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "rate_ramp_steps: 4" in shown
    assert re.search(r"# 0\.2 million parameters", shown)
    assert not (tmp_path / "out").exists()
    assert main(["train", str(config), "training.max_steps=2"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out")
    assert "max_steps: 2" in (tmp_path / "out" / "training.yaml").read_text()
    model, file, restored = (str(tmp_path / name) for name in ("out", "00.dfl", "00.png"))
    assert main(["compress", str(images / "00.png"), "-o", file, "--codec", model, "-q", "30"]) == 0
    assert main(["verify", file, "--codec", model]) == 0
    assert main(["info", file]) == 0
    assert main(["decompress", file, "-o", restored, "--codec", model]) == 0
    assert "latent" in capsys.readouterr().out
    with Image.open(restored) as image:
        assert image.size == (64, 56)
    assert main(["sample", model, "-o", str(tmp_path / "x.png")]) in (2, 4)


def test_the_cost_allocates_nothing(images: Path, tmp_path: Path) -> None:
    made = settings(images, tmp_path, transform=tiny_transform("residual"))
    assert re.fullmatch(r"0\.\d million parameters", cost(made))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("crop_px=0", r"crop_px \(=0\) must be at least 1"),
        ("rate_ramp_steps=-1", r"rate_ramp_steps \(=-1\)"),
        ("lmbda_min=1", r"lmbda_min` \(=1.0\) must be above 0 and not above `lmbda_max`"),
        ("lmbda_min=-1", "lmbda_min"),
        ("hyperprior=null", "must be equal without `hyperprior`"),
        ("hyperprior.channels=0", r"channels` \(=0\)"),
        ("transform.kind=fft", "kind"),
        ("transform.widths=[8,8]", "must have 3 entries"),
        ("transform.blocks=[1,1,-1]", "blocks"),
        ("transform.depth=3", "transform.depth"),
        ("holdback=12", r"holdback \(=12\)"),
        ("images=nowhere", "nowhere: no such file or folder"),
        ("training.batch=0", r"batch \(=0\)"),
    ],
)
def test_a_wrong_key_is_named(override: str, message: str, config: Path, tmp_path: Path, capsys) -> None:
    assert main(["train", str(config), override]) == 2
    errors = capsys.readouterr().err
    assert re.search(message, errors), errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_training_goes_on_from_the_bundled_weights() -> None:
    """Of the name alone, with the settings of its configuration."""
    from difflate.registry import WEIGHTS
    from difflate.store.hub import model_folder

    assert model_folder("hyperprior-small") == WEIGHTS / "hyperprior-small"
    bundled = TransformModel.from_pretrained(WEIGHTS / "hyperprior-small")
    ours = read_settings(
        HyperpriorTraining, Path(__file__).parent.parent / "configs" / "hyperprior-small.yaml", []
    ).model()
    ours.load_state_dict(bundled.state_dict())
