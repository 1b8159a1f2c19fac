"""Training bundled models further: the configurations fit the models, and do not undo what they have learnt."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coder_helpers import photo
from difflate import registry
from difflate.models.exact import EXACT
from difflate.registry import WEIGHTS
from difflate.train import checkpoint
from difflate.train.config import read_recipe, read_settings
from difflate.train.staged import STAGES
from training_helpers import newest

CONFIGS = Path(__file__).parents[1] / "configs"
QUICK = ["batch=2", "log_every=100", "checkpoint_every=100", "validate_every=100", "workers=0", "max_minutes=null"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pieces of a photograph."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(12):
        pixels = photo(64, 64, 60 + 100 * (number // 4), 180 * (number % 4))
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{number:02d}.png")
    return folder


def train(name: str, images: Path, out: Path, *overrides: str) -> list[dict[str, float]]:
    """What was found on the images held back, before and after."""
    config = CONFIGS / f"{name}.yaml"
    recipe = registry.recipe(read_recipe(config))
    words = [f"images={images}", f"out={out}", "holdback=3", *overrides]
    recipe.run(read_settings(recipe.settings, config, words))
    folder = out / STAGES / "perceptual" if recipe.name == "cdc" else out
    return [values for _, values in checkpoint.read_head(newest(folder))[0].validations]


@pytest.mark.parametrize(
    ("name", "bundled"),
    [
        ("hyperprior-small", "hyperprior-small"),
        ("cdc-small", "cdc-small"),
        ("refiner", "refiner-opq-32-8-8"),
        ("cats", "cats-small"),
    ],
)
def test_a_configuration_has_the_networks_of_the_model_that_it_starts_from(name: str, bundled: str) -> None:
    config = CONFIGS / f"finetune-{name}.yaml"
    settings_class = registry.recipe(read_recipe(config)).settings
    ours = read_settings(settings_class, config, [])
    theirs = read_settings(settings_class, WEIGHTS / bundled / "training.yaml", [])
    named = getattr(ours, "init_from", None) or ours.training.init_from
    assert named == bundled
    keys = ("network", "process", "decoder", "coder", "transform", "hyperprior", "codec", "lmbda_min", "lmbda_max")
    compared = [key for key in keys if hasattr(ours, key)]
    assert len(compared) >= 2
    for key in compared:
        assert plain(getattr(ours, key)) == plain(getattr(theirs, key)), key


def plain(value: Any) -> Any:
    values = {key: plain(v) for key, v in vars(value).items()} if hasattr(value, "__dict__") else value
    return list(values) if isinstance(values, tuple) else values


def test_hyperprior_small_is_no_worse_after_its_first_steps(images: Path, tmp_path: Path) -> None:
    """With the settings of a start from nothing its loss rises from .24 to .76 in as many steps."""
    quick = [f"training.{key}" for key in [*QUICK, "max_steps=8", "warmup_steps=2", "decay=constant"]]
    before, after = train("finetune-hyperprior-small", images, tmp_path, "crop_px=64", *quick)
    assert after["loss"] < before["loss"] + 0.002


def test_cdc_small_starts_and_keeps_its_coder(images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    stage = "stages.perceptual"
    quick = [f"{stage}.crop_px=32", f"{stage}.rho=0", *(f"{stage}.training.{key}" for key in [*QUICK, "max_steps=1"])]
    before, after = train("finetune-cdc-small", images, tmp_path, *quick)
    assert after["loss"] == pytest.approx(before["loss"], rel=0.02)
    assert after["one_step_psnr_db"] > after["psnr_db"] - 0.2  # it is the trained decoder that it starts from
    assert (tmp_path / EXACT).read_bytes() == (WEIGHTS / "hyperprior-small" / EXACT).read_bytes()
    assert any(record.message.startswith("perceptual: step 1 of 1: loss ") for record in caplog.records)
    assert any(record.message.startswith("perceptual: step 1: on held-back images ") for record in caplog.records)
