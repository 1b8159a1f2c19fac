"""Recipe `diffae-video`: it learns from clips, starts from a model of images, resumes exactly, fits its context."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import difflate
from diffae_helpers import SHAPE, tiny
from difflate.data.crops import Batch
from difflate.errors import ConfigError
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder
from difflate.models.video_diffusion_autoencoder import VideoDiffusionAutoencoder
from difflate.nn.folding import FoldingConfig
from difflate.nn.unet import parameters
from difflate.train import perceptual_loss
from difflate.train.adversary import AdversarySettings
from difflate.train.config import read_settings
from difflate.train.draws import Draws
from difflate.train.index_context import ContextSettings
from difflate.train.recipes.diffae_video import RECIPE, DiffaeVideoTask, DiffaeVideoTraining
from difflate.train.recorded import RecordedDraws
from difflate.train.settings import LoopSettings
from difflate.train.stages import ClipStage
from difflate.train.start import take_fitting
from training_helpers import assert_same, picture, write_images

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIGS = Path(__file__).parents[1] / "configs"
LOOP = LoopSettings(
    max_steps=4, batch=2, lr=1e-3, warmup_steps=1, decay="constant", log_every=2, validate_every=4, pictures_every=0,
    checkpoint_every=2, workers=0,
)  # fmt: skip
STAGE = ClipStage("clips", crop_px=32, frames=4, one_step=True, flicker=0.5, training=LOOP)
VIDEO: dict[str, Any] = {
    **SHAPE,
    "folding": FoldingConfig(2, "fold", 6, 8),
    "network": dataclasses.replace(SHAPE["network"], temporal="conv"),
}


def model_of() -> VideoDiffusionAutoencoder:
    torch.manual_seed(0)
    model = VideoDiffusionAutoencoder(**VIDEO)
    torch.nn.init.normal_(model.unet.exit.weight, std=0.1)
    return model


def settings(images: Path, out: Path, *stages: ClipStage, **others: Any) -> DiffaeVideoTraining:
    values = {"context": ContextSettings(views=2, view_px=64, steps=2), **VIDEO, **others}
    return DiffaeVideoTraining(
        out=str(out), images=[str(images)], holdback=2, stages=list(stages or (STAGE,)), **values
    )


def batch(count: int = 2, device: str = "cpu") -> Batch:
    """Slopes that slide."""
    images = [torch.from_numpy(picture(n, 32, 40)).permute(2, 0, 1) for n in range(count)]
    pixels = torch.stack([torch.stack([x[:, :, 2 * t : 2 * t + 32] for t in range(4)], dim=1) for x in images])
    numbers = torch.arange(count)
    return Batch(pixels.to(device), numbers.to(device), numbers.to(device), [])


@pytest.fixture
def bright_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A distance without weights to fetch, in the place of LPIPS."""

    class Distance(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            assert x.ndim == 4
            return (x - y).square().flatten(1).mean(1)

    monkeypatch.setattr(perceptual_loss, "load_lpips", lambda nets: Distance())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 8)


@pytest.mark.parametrize("one_step", [False, True])
def test_the_loss_falls(one_step: bool, bright_lpips: None) -> None:
    adversary = AdversarySettings(start_step=0, widths=(4, 4)) if one_step else None
    loop = dataclasses.replace(LOOP, lr=3e-3)
    stage = dataclasses.replace(STAGE, one_step=one_step, rho=0.5, adversary=adversary, training=loop)
    task = DiffaeVideoTask(model_of(), stage)
    optimizer, trained = task.optimizer("loss"), task.trained("loss")
    with torch.no_grad():
        before = float(task.eval()(batch())["loss"])
    task.train()
    for step in range(30):
        optimizer.zero_grad()
        task(batch(), "loss", Draws(0, torch.arange(2) + 2 * step, 2))["loss"].backward()
        assert step or all(p.grad is not None for p in trained if p is not task.model.hidden)
        optimizer.step()
        if task.adversary is not None:
            task.critic_loss(batch(), Draws(0, torch.arange(2), 2))
    with torch.no_grad():
        after = task.eval()(batch())
    assert float(after["loss"]) < 0.8 * before
    assert {"lpips", "decoded_lpips", "psnr_db", "entropy_bits", "codes_used"} <= after.keys()


def test_what_flickers_costs() -> None:
    quiet, images = DiffaeVideoTask(model_of(), STAGE), batch().images(torch.device("cpu"))
    constant = images + 0.1
    flickering = images + 0.1 * torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None, None]
    assert torch.allclose(torch.as_tensor(quiet._asked_along_time(constant, images)), torch.zeros(2), atol=1e-6)
    assert torch.allclose(torch.as_tensor(quiet._asked_along_time(flickering, images)), torch.full((2,), 0.1))


def test_a_step_asks_the_cpu_for_nothing(bright_lpips: None) -> None:
    task = DiffaeVideoTask(model_of(), dataclasses.replace(STAGE, rho=0.5)).to("meta").train()
    draws = RecordedDraws(0, torch.arange(2), 2, {}, torch.device("meta"))
    for _ in range(2):
        values = task(batch(device="meta"), "loss", draws)
        values["loss"].backward()
    assert {value.device.type for value in values.values()} == {"meta"}


def test_a_training_makes_a_codec_of_clips_and_resumes_exactly(images: Path, tmp_path: Path) -> None:
    RECIPE.run(settings(images, tmp_path / "whole"), "the command")
    half = dataclasses.replace(STAGE, training=dataclasses.replace(LOOP, max_steps=2))
    for stage in (half, STAGE):
        RECIPE.run(settings(images, tmp_path / "halves", stage), "the command")
    assert_same(tmp_path / "whole" / "stages" / "clips", tmp_path / "halves" / "stages" / "clips")
    codec = difflate.load(tmp_path / "whole")
    assert codec.kind.name == "diffae-video"
    context = codec.model.autoencoder.context
    assert context.looks_back
    assert context.tensors["past.weight"].any()
    assert "8 at the fixed rate" in (tmp_path / "whole" / "README.md").read_text()


def test_a_model_of_images_is_what_it_starts_from(tmp_path: Path) -> None:
    tiny().save_pretrained(tmp_path / "image")
    source = DiffusionAutoencoder.from_pretrained(tmp_path / "image")
    model = model_of()
    take_fitting(model, DiffusionAutoencoder, str(tmp_path / "image"), "init_image")
    ours, theirs = model.unet.state_dict(), source.unet.state_dict()
    assert torch.equal(ours["up.1.blocks.0.conv_out.weight"], theirs["up.1.blocks.0.conv_out.weight"])
    wide = "down.0.blocks.0.conv_in.weight"  # sees more channels of z here
    shared = theirs[wide].shape[1]
    assert torch.equal(ours[wide][:, :shared], theirs[wide])
    assert not ours[wide][:, shared:].any()
    with pytest.raises(ConfigError, match="no such folder"):
        take_fitting(model, DiffusionAutoencoder, str(tmp_path / "none"), "init_image")


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"stages": [dataclasses.replace(STAGE, frames=3)]}, "multiple of folding.ratio"),
        ({"init_from": "a", "init_image": "b"}, "both given"),
        ({"network": SHAPE["network"]}, "temporal"),
    ],
)
def test_settings_that_do_not_fit(others: dict[str, Any], message: str, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(settings(images, tmp_path), **others)


def test_the_bundled_configuration() -> None:
    found = read_settings(DiffaeVideoTraining, CONFIGS / "diffae-video-small.yaml", [])
    with torch.device("meta"):
        model = found.build_model()
    assert parameters(model) < 10.5e6  # 8 bits each: with the context model within 12 MiB
    assert (model.stride_px, model.autoencoder.folding.ratio) == (16, 4)
    assert RECIPE.cost is not None
    assert "billion multiply-adds" in RECIPE.cost(found)
