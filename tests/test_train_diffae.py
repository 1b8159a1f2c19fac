"""Recipe `diffae`: stages that build on each other, the context model behind them, and what a GPU can record."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from diffae_helpers import SHAPE, tiny
from difflate.cli.main import main
from difflate.codecs.diffae import DiffaeCodec
from difflate.data.crops import Batch
from difflate.entropy.context import exp_table
from difflate.errors import ConfigError, OutputExists
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder, LatentDecoderConfig
from difflate.nn.unet import parameters
from difflate.train import perceptual_loss
from difflate.train.adversary import AdversarySettings
from difflate.train.config import read_settings
from difflate.train.diffae_task import DiffaeTask
from difflate.train.draws import Draws
from difflate.train.index_context import ContextSettings
from difflate.train.recipes.diffae import RECIPE, DiffaeTraining
from difflate.train.recorded import RecordedDraws
from difflate.train.settings import LoopSettings
from difflate.train.stages import AutoencodingStage
from training_helpers import assert_same, picture, write_images

CONFIGS = Path(__file__).parents[1] / "configs"
LOOP = LoopSettings(
    max_steps=6, batch=4, lr=1e-3, warmup_steps=2, decay="constant", log_every=2, validate_every=3, pictures_every=0,
    checkpoint_every=3, workers=0,
)  # fmt: skip
JOINT = AutoencodingStage("joint", crop_px=32, training=LOOP)
ADVERSARY = AdversarySettings(start_step=0, widths=(4, 4))
ONE_STEP = AutoencodingStage("one_step", crop_px=32, joint=False, one_step=True, adversary=ADVERSARY, training=LOOP)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 14)


def settings(images: Path, out: Path, *stages: AutoencodingStage, **others: Any) -> DiffaeTraining:
    """Of a model that trains in a second."""
    values = {"context": ContextSettings(views=20, view_px=64, steps=3), **SHAPE, **others}
    return DiffaeTraining(
        out=str(out), images=[str(images)], holdback=4, stages=list(stages or (JOINT, ONE_STEP)), **values
    )


def batch(count: int = 4, device: str = "cpu") -> Batch:
    pixels = torch.stack([torch.from_numpy(picture(n, 32, 32)).permute(2, 0, 1) for n in range(count)])
    numbers = torch.arange(count)
    return Batch(pixels.to(device), numbers.to(device), numbers.to(device), [])


@pytest.fixture
def bright_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distance without weights to fetch, in the place of LPIPS."""

    class Distance(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return (x - y).square().flatten(1).mean(1)

    monkeypatch.setattr(perceptual_loss, "load_lpips", lambda nets: Distance())


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    large = tmp_path_factory.mktemp("large")
    for path in write_images(large / "images", 6).iterdir():
        Image.fromarray(picture(int(path.stem), 70, 90)).save(path)
    out = large / "model"
    RECIPE.run(settings(large / "images", out), "the command")
    return out


def test_stages_build_on_each_other(trained: Path) -> None:
    model = DiffusionAutoencoder.from_pretrained(trained)
    first = DiffusionAutoencoder.from_pretrained(trained / "stages" / "joint")
    second = DiffusionAutoencoder.from_pretrained(trained / "stages" / "one_step")
    for one, other, alike in (
        (model, second, True), (first.autoencoder, second.autoencoder, True), (first.unet, second.unet, False)
    ):  # fmt: skip
        theirs = other.state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items()) is alike


def test_the_context_model_is_fitted_and_told_of(trained: Path) -> None:
    model = DiffusionAutoencoder.from_pretrained(trained)
    assert model.autoencoder.context.tensors["trunk.weight"].any()
    assert (model.autoencoder.context.tensors["exp"] == exp_table()).all()
    card = (trained / "README.md").read_text()
    assert "8 at the fixed rate" in card  # 3 bits of 5 values, 3 of 8, 2 of 3
    assert "of 120 codes used" in card
    assert isinstance(DiffaeCodec.load(trained), DiffaeCodec)


def test_what_is_finished_is_not_repeated(trained: Path) -> None:
    found = read_settings(DiffaeTraining, trained / "training.yaml", [])
    written = (trained / "config.json").stat().st_mtime_ns
    with pytest.raises(OutputExists, match="trained already"):
        RECIPE.run(found, "")
    assert (trained / "config.json").stat().st_mtime_ns == written
    # killed before the whole was written: the context model is fitted, nothing else
    fingerprint = DiffusionAutoencoder.from_pretrained(trained).autoencoder.fingerprint
    (trained / "config.json").unlink()
    with pytest.raises(OutputExists, match="trained already"):
        RECIPE.run(found, "")
    assert DiffusionAutoencoder.from_pretrained(trained).autoencoder.fingerprint == fingerprint


def test_exact_resume(images: Path, tmp_path: Path) -> None:
    context = ContextSettings(views=8, view_px=64, steps=0)
    with pytest.raises(ConfigError, match="large enough"):  # the pictures are smaller than a few sites
        RECIPE.run(settings(images, tmp_path / "small", JOINT, context=context), "")
    halves = dataclasses.replace(JOINT, training=dataclasses.replace(LOOP, max_steps=3))
    for stage in (halves, JOINT):
        with pytest.raises(ConfigError):
            RECIPE.run(settings(images, tmp_path / "halves", stage, context=context), "")
    assert_same(tmp_path / "small" / "stages" / "joint", tmp_path / "halves" / "stages" / "joint")


@pytest.mark.parametrize("one_step", [False, True])
def test_the_loss_falls(one_step: bool, bright_lpips: None) -> None:
    model = tiny()
    stage = AutoencodingStage(
        "a", crop_px=32, one_step=one_step, rho=0.5, head_rho=0.5, adversary=ADVERSARY if one_step else None,
        training=dataclasses.replace(LOOP, lr=3e-3),
    )  # fmt: skip
    task = DiffaeTask(model, stage)
    optimizers = {turn: task.optimizer(turn) for turn in task.turns}
    trained = {turn: task.trained(turn) for turn in task.turns}
    with torch.no_grad():
        before = float(task.eval()(batch())["loss"])
    task.train()
    for step in range(40):
        numbers = torch.arange(4) + 4 * step
        for turn, optimizer in optimizers.items():
            for others in trained.values():
                for parameter in others:
                    parameter.requires_grad_(False)
            for parameter in trained[turn]:
                parameter.requires_grad_(True)
            optimizer.zero_grad()
            task(batch(), turn, Draws(0, numbers, 4))["loss"].backward()
            optimizer.step()
    with torch.no_grad():
        after = task.eval()(batch())
    assert float(after["loss"]) < 0.8 * before
    assert after["head_psnr_db"] > 12
    assert {"lpips", "decoded_lpips", "psnr_db", "entropy_bits", "codes_used"} <= after.keys()


def test_every_part_learns(bright_lpips: None) -> None:
    task = DiffaeTask(tiny(), AutoencodingStage("a", crop_px=32, rho=0.5, training=LOOP)).train()
    task.dropped = 0.5
    task(batch())["loss"].backward()
    model = task.model
    parts = (model.autoencoder.encode.entrance.weight, model.autoencoder.decode.entrance.weight, model.hidden,
             model.unet.entrance.weight)  # fmt: skip
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in parts)


def test_a_frozen_autoencoder_stays(bright_lpips: None) -> None:
    task = DiffaeTask(tiny(), dataclasses.replace(ONE_STEP, adversary=None)).train()
    task(batch())["loss"].backward()
    assert all(parameter.grad is None for parameter in task.model.autoencoder.parameters())
    assert not task.model.autoencoder.training


def test_the_encoder_sees_smaller_images() -> None:
    stage = AutoencodingStage("a", crop_px=32, least_input=0.5, training=LOOP)
    task = DiffaeTask(tiny(), stage).train()
    sizes = {
        tuple(task._seen(batch().images(task.device), Draws(0, torch.arange(4) + 4 * step, 4)).shape[2:])
        for step in range(20)
    }
    assert sizes == {(16, 16), (24, 24), (32, 32)}
    assert task(batch())["loss"].isfinite()
    assert task.eval()._seen(batch().images(task.device), task.draws_of(batch())).shape[2:] == (32, 32)
    with pytest.raises(ConfigError, match="cannot record inputs of random sizes"):
        dataclasses.replace(stage, training=dataclasses.replace(LOOP, cuda_graph=True))


@pytest.mark.parametrize("one_step", [False, True])
def test_a_step_asks_the_cpu_for_nothing(one_step: bool, bright_lpips: None) -> None:
    """What a CUDA graph records: on the meta device any number that is read, or that came from the CPU, is an error."""
    stage = AutoencodingStage("a", crop_px=32, one_step=one_step, rho=0.5, training=LOOP)
    task = DiffaeTask(tiny(), stage).to("meta").train()
    held: dict = {}
    draws = RecordedDraws(0, torch.arange(4), 4, held, torch.device("meta"))
    for _ in range(2):
        values = task(batch(device="meta"), "loss", draws)
        values["loss"].backward()
    assert {value.device.type for value in values.values()} == {"meta"}
    assert {name for name, *_ in held} == ({"shift"} if one_step else {"shift", "uniform", "drop_mask"})


def test_recorded_draws_are_brought_up_to_date() -> None:
    held: dict = {}
    for step in range(3):
        numbers = torch.arange(64) + 64 * step
        draws = RecordedDraws(0, numbers, 64, held, torch.device("cpu"))
        draws.refresh()
        for probability in (0.25, 0.5):
            assert torch.equal(draws.drop_mask(probability), Draws(0, numbers, 64).drop_mask(probability))
        assert torch.equal(draws.uniform(), Draws(0, numbers, 64).uniform())
    assert len(held) == 3


@pytest.mark.parametrize(
    ("name", "millions"), [("diffae-small", (1.77, 0.78, 4.86)), ("diffae-smoke", (0.05, 0.05, 0.1))]
)
def test_presets(name: str, millions: tuple[float, float, float]) -> None:
    found = read_settings(DiffaeTraining, CONFIGS / f"{name}.yaml", [])
    with torch.device("meta"):
        model = found.build_model()
    counts = [parameters(part) / 1e6 for part in (model.autoencoder.encode, model.autoencoder.decode, model.unet)]
    assert counts == pytest.approx(millions, rel=0.5 if name == "diffae-smoke" else 0.01)
    if name == "diffae-small":  # with int8 weights and context model within 8 MiB
        assert parameters(model) < 7.6e6
        assert model.stride_px == 16
        assert sum(model.autoencoder.plane_bits) == 15
    assert RECIPE.cost is not None
    assert "million parameters of the encoder" in RECIPE.cost(found)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bottleneck.levels=[8,1]", "levels"),
        ("bottleneck.levels=eight", "levels"),
        ("stages.joint.crop_px=100", "crop_px"),
        ("stages.joint.joint=false", "never trained"),
        ("stages.joint.rho=2", "rho"),
        ("stages.joint.least_input=0", "least_input"),
        ("stages.joint.adversary={weight: 1}", "one_step"),
        ("stages.joint.head=-1", "head"),
        ("decoder.guidance=2", "hiding"),
        ("decoder.first_stage=nowhere", "nowhere"),
        ("context.steps=-1", "context.steps"),
        ("process.times=often", "times"),
    ],
)
def test_settings_that_cannot_be_are_told(override: str, message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["train", str(CONFIGS / "diffae-small.yaml"), "out=/nowhere/at/all", override]) != 0
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_weights_to_start_from(trained: Path, images: Path, tmp_path: Path) -> None:
    """Without a step: the same weights, and the same context model where none is fitted."""
    stage = dataclasses.replace(JOINT, training=dataclasses.replace(LOOP, max_steps=0))
    again = settings(
        trained.parent / "images", tmp_path / "again", stage, init_from=str(trained),
        context=ContextSettings(views=8, view_px=64, steps=0),
    )  # fmt: skip
    model = DiffusionAutoencoder.from_pretrained(RECIPE.run(again, ""))
    before = DiffusionAutoencoder.from_pretrained(trained)
    assert model.autoencoder.fingerprint == before.autoencoder.fingerprint
    assert all(torch.equal(value, before.state_dict()[key]) for key, value in model.state_dict().items())


def test_dropping_is_the_models_setting() -> None:
    stage = AutoencodingStage("a", crop_px=32, training=LOOP)
    never = DiffaeTask(tiny(decoder=LatentDecoderConfig(dropped=0.0)), stage)
    assert not never.dropped
    assert not any(parameter is never.model.hidden for parameter in never.trained("loss"))
    assert math.isclose(DiffaeTask(tiny(), stage).dropped, 0.05)
