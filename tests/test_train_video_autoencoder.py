"""Recipe `video-autoencoder`: it learns from clips, resumes exactly, and writes a codec and a first stage."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import difflate
from clip_helpers import moving
from difflate import registry
from difflate.data.crops import Batch
from difflate.errors import ConfigError
from difflate.models.first_stage import first_stage
from difflate.models.video_autoencoder import VideoAutoencoder
from difflate.nn import PRESETS
from difflate.nn.unet import parameters
from difflate.registry import latent_ratios
from difflate.train import perceptual_loss
from difflate.train.adversary import AdversarySettings
from difflate.train.autoencoder_task import AutoencoderTask, ClipReconstructionStage
from difflate.train.config import read_settings
from difflate.train.draws import Draws
from difflate.train.index_context import ContextSettings
from difflate.train.recipes import diffae_video
from difflate.train.recipes.video_autoencoder import RECIPE, VideoAutoencoderTraining
from difflate.train.settings import LoopSettings
from training_helpers import assert_same, picture, write_images
from video_autoencoder_helpers import SHAPE, tiny

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIGS = Path(__file__).parents[1] / "configs"
LOOP = LoopSettings(
    max_steps=4, batch=2, lr=3e-3, warmup_steps=1, decay="constant", log_every=2, validate_every=4, pictures_every=4,
    checkpoint_every=2, workers=0,
)  # fmt: skip
ADVERSARY = AdversarySettings(start_step=0, widths=(4, 4))
STAGE = ClipReconstructionStage("clips", crop_px=32, frames=4, adversary=ADVERSARY, training=LOOP)


def settings(images: Path, out: Path, stage: ClipReconstructionStage = STAGE) -> VideoAutoencoderTraining:
    return VideoAutoencoderTraining(
        out=str(out), images=[str(images)], holdback=2, stages=[stage],
        context=ContextSettings(views=2, view_px=64, steps=2), **SHAPE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 6)


def test_the_loss_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    class Distance(nn.Module):
        """Without weights to fetch."""

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            assert x.ndim == 4
            return (x - y).square().flatten(1).mean(1)

    monkeypatch.setattr(perceptual_loss, "load_lpips", lambda nets: Distance())
    slopes = [torch.from_numpy(picture(n, 32, 40)).permute(2, 0, 1) for n in range(2)]
    pixels = torch.stack([torch.stack([x[:, :, 2 * t : 2 * t + 32] for t in range(4)], dim=1) for x in slopes])
    batch = Batch(pixels, torch.arange(2), torch.arange(2), [])
    task = AutoencoderTask(tiny().train(), dataclasses.replace(STAGE, perceptual=0.5), pixels[:1])
    optimizer, trained = task.optimizer("loss"), task.trained("loss")
    with torch.no_grad():
        before = float(task.eval()(batch)["loss"])
    task.train()
    for step in range(30):
        optimizer.zero_grad()
        draws = Draws(0, torch.arange(2) + 2 * step, 2)
        task(batch, "loss", draws)["loss"].backward()
        assert step or all(p.grad is not None for p in trained)
        optimizer.step()
        task.critic_loss(batch, draws)
    with torch.no_grad():
        after = task.eval()(batch)
    assert float(after["loss"]) < 0.8 * before
    assert {"lpips", "psnr_db", "critic_loss"} <= after.keys()
    shown = task.pictures()
    assert shown is not None
    assert shown.shape == (2 * 4, 3, 32, 32)


def test_a_training_makes_a_codec_and_a_first_stage_and_resumes_exactly(images: Path, tmp_path: Path) -> None:
    RECIPE.run(settings(images, tmp_path / "whole"), "the command")
    half = dataclasses.replace(STAGE, training=dataclasses.replace(LOOP, max_steps=2))
    for stage in (half, STAGE):
        RECIPE.run(settings(images, tmp_path / "halves", stage), "the command")
    assert_same(tmp_path / "whole" / "stages" / "clips", tmp_path / "halves" / "stages" / "clips")
    codec: Any = difflate.load(tmp_path / "whole")
    assert codec.kind.name == "video-autoencoder"
    assert len(tuple(codec.decode_clip(codec.encode_clip(moving(3))).frames)) == 3
    assert codec.model.context.tensors["past.weight"].any()
    assert "5 at the fixed rate" in (tmp_path / "whole" / "README.md").read_text()
    stage = first_stage(str(tmp_path / "whole"), clips=True)
    assert (stage.frames, stage.channels) == (2, 3)
    assert stage.scale == pytest.approx(1 / float(VideoAutoencoder.from_pretrained(tmp_path / "whole").std))
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert latent_ratios(config)["fixed_rate"] == 24 * 16 * 2 / 5


@pytest.mark.parametrize(
    ("changes", "message"), [({"frames": 3}, "multiple of folding.ratio"), ({"crop_px": 30}, "crop_px")]
)
def test_settings_that_do_not_fit(changes: dict[str, Any], message: str, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(images, tmp_path, dataclasses.replace(STAGE, **changes))


@pytest.mark.parametrize(("name", "millions"), [("f4", (1.53, 2.12)), ("smoke", (0.06, 0.07))])
def test_its_configurations(name: str, millions: tuple[float, float]) -> None:
    found = read_settings(VideoAutoencoderTraining, CONFIGS / f"video-autoencoder-{name}.yaml", [])
    assert RECIPE.cost is not None
    said = RECIPE.cost(found).split()
    assert (float(said[0]), float(said[said.index("of", said.index("bottleneck")) - 1])) == pytest.approx(millions)
    assert " ".join(said).endswith("a site every 4 px, for 2 frames")


@pytest.mark.parametrize(("size", "ratio", "millions"), [("734m", 2, 735.2), ("1.3b", 4, 1311.8)])
def test_the_configurations_of_the_thesis(size: str, ratio: int, millions: float, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    tiny(kind="vae", channels=4).save_pretrained(tmp_path / "stage")
    words = ["images=somewhere", f"decoder.first_stage={tmp_path / 'stage'}", f"folding.ratio={ratio}"]
    found = read_settings(diffae_video.DiffaeVideoTraining, CONFIGS / f"diffae-video-{size}.yaml", words)
    with torch.device("meta"):
        model = found.build_model()
    preset = PRESETS[f"diffae-video-{size}"]
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(preset).items()}
    assert vars(model.network) == {**plain, "noise_scale": 1000.0}
    assert round(parameters(model.unet) / 1e6, 1) == millions
    assert found.encoder.kind == "efficientnet-v2-s"
    latent = {"stride_px": model.stride_px, "channels": model.autoencoder.channels, "frames": model.folding.ratio}
    assert latent_ratios({"latent": latent})["numbers_16_bits"] == 96 * ratio  # Rampas 2024, 3.4.1
    assert {(stage.frames, stage.training.batch, stage.training.lr) for stage in found.stages} == {(16, 128, 1e-4)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["video-autoencoder", "diffae-video"])
def test_a_training_that_shows_that_everything_works(name: str, images: Path, tmp_path: Path) -> None:
    """The smoke configurations as they are."""
    recipe = registry.recipe(name)
    words = [f"images={images}", f"out={tmp_path / 'out'}", "holdback=2"]
    found = read_settings(recipe.settings, CONFIGS / f"{name}-smoke.yaml", words)
    codec: Any = difflate.load(recipe.run(found))
    assert codec.kind.name == name
