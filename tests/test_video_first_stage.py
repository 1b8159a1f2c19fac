"""Diffusion of clips in the latent of a first stage, of each frame or of one that makes few frames of many."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import difflate
from autoencoder_helpers import autoencoder
from clip_helpers import moving, pixels
from difflate.data.crops import Batch
from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError, ModelError
from difflate.format.stream import read_clip_file
from difflate.models.bottlenecks import BottleneckConfig
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder, LatentDecoderConfig
from difflate.models.first_stage import first_stage
from difflate.models.video_autoencoder import VideoAutoencoder
from difflate.models.video_diffusion_autoencoder import VideoDiffusionAutoencoder
from difflate.nn.encoders import ConvConfig
from difflate.nn.folding import FoldingConfig
from difflate.nn.temporal import Past
from difflate.nn.tiles import place_noise
from difflate.nn.unet import UNetConfig
from difflate.train.draws import Draws
from difflate.train.recipes.diffae_video import DiffaeVideoTask
from difflate.train.settings import LoopSettings
from difflate.train.stages import ClipStage
from nn_helpers import alive, random
from video_autoencoder_helpers import tiny

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = ConvConfig((8, 8), (1, 0), 8)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of first stages by the frames that they make one of."""
    folder = tmp_path_factory.mktemp("stages")
    autoencoder("vae").save_pretrained(folder / "images")
    for ratio in (1, 2):
        video = tiny(ratio, kind="vae", channels=4)
        video.std.fill_(2.0)
        video.save_pretrained(folder / f"clips{ratio}")
    return {name: str(folder / name) for name in ("images", "clips1", "clips2")}


def model_of(stage: str, ratio: int = 4) -> VideoDiffusionAutoencoder:
    torch.manual_seed(0)
    network = UNetConfig(
        in_channels=4, out_channels=4, widths=(8, 8), blocks=(1, 1), temporal="attention", attention=("none", "full"),
        head_width=8,
    )  # fmt: skip
    model = VideoDiffusionAutoencoder(
        SHAPE, BottleneckConfig(levels=(5, 8)), FoldingConfig(ratio, "fold", 6, 8), SHAPE,
        LatentDecoderConfig(steps=2, dropped=0.1, first_stage=stage), network, ProcessConfig(target="v"),
    )  # fmt: skip
    return alive(model).eval()


def test_it_is_the_model_in_its_folder(stages: dict[str, str]) -> None:
    stage, model = first_stage(stages["clips2"], clips=True), VideoAutoencoder.from_pretrained(stages["clips2"])
    assert (stage.stride_px, stage.channels, stage.frames, stage.scale) == (4, 4, 2, 0.5)
    clip = random(1, 3, 8, 12, 16)
    x = stage.encode(clip)
    assert x.shape == (1, 4, 4, 3, 4)
    with torch.no_grad():
        mean = model.features(clip)[:, :4]
        torch.testing.assert_close(x, mean / 2)
        whole = stage.decode(x)
        torch.testing.assert_close(whole, model.restore(model.expand(mean)))
    past, parts = Past(), []
    for part in x.split([1, 2, 1], dim=2):
        past.begin()
        parts.append(stage.decode(part, past))
    torch.testing.assert_close(torch.cat(parts, dim=2), whole)


@pytest.mark.parametrize(("name", "frames"), [("images", 1), ("clips1", 1), ("clips2", 2)])
def test_chunks_of_a_file_give_what_the_whole_clip_gives(
    name: str, frames: int, stages: dict[str, str], tmp_path: Path
) -> None:
    model = model_of(stages[name])
    assert list(model.network.cond_channels or ()) == [6 * frames, 0]
    model.save_pretrained(tmp_path / "model")
    codec: Any = difflate.load(tmp_path / "model")
    clip = moving(21, 48, 32)
    data = codec.encode_clip(clip, seed=3)
    grids = [frame.grid for latent, _ in codec.read_latents(read_clip_file(data)) for frame in latent.frames]
    coded = torch.from_numpy(np.stack(grids, 1).astype(np.int64))[None]
    told = model.autoencoder.told(coded)
    _, channels, count, rows, columns = model.noise_shape(told)
    assert count == 24 // frames
    noise = torch.stack([place_noise(3, 0, 0, rows, columns, channels, n) for n in range(count)], dim=2)
    whole = model.restore(told, 2, noise)[0].transpose(0, 1)[:21].detach()
    expected = ((whole + 1) * 127.5).round().clamp(0, 255).numpy()
    restored = pixels(codec.decode_clip(data))
    assert restored.std() > 1
    assert np.abs(restored - expected).max() <= 1


@pytest.mark.parametrize("one_step", [False, True])
def test_a_step_of_training(one_step: bool, stages: dict[str, str]) -> None:
    loop = LoopSettings(lr=1e-3, workers=0)
    stage = ClipStage("clips", crop_px=32, frames=8, one_step=one_step, flicker=0.5, training=loop)
    task = DiffaeVideoTask(model_of(stages["clips2"]), stage).train()
    clips = torch.from_numpy(np.stack([pixels(moving(8, 32, 32))] * 2).swapaxes(1, 2).copy())
    batch = Batch(clips, torch.arange(2), torch.arange(2), [])
    task(batch, "loss", Draws(0, torch.arange(2), 2))["loss"].backward()
    assert all(p.grad is not None for p in task.model.parameters() if p is not task.model.hidden)
    with torch.no_grad():
        assert float(task.eval()(batch)["psnr_db"]) > 0


def test_what_does_not_fit_is_refused(stages: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"folding.ratio \(=1\) must be a multiple of the frames .* \(=2\)"):
        model_of(stages["clips2"], ratio=1)
    with pytest.raises(
        ModelError, match="kind vq; name one of the recipe autoencoder or video-autoencoder, or of diff"
    ):
        first_stage("opq-32-8-8", clips=True)
    network = UNetConfig(in_channels=4, out_channels=4, widths=(8, 8), blocks=(1, 1))
    given: dict[str, Any] = {
        "encoder": SHAPE, "bottleneck": BottleneckConfig(levels=(5, 8)), "head": SHAPE, "network": network,
        "process": ProcessConfig(),
    }  # fmt: skip
    with pytest.raises(ModelError, match="kind video-autoencoder; name one of the recipe autoencoder, or of diffusers"):
        DiffusionAutoencoder(decoder=LatentDecoderConfig(first_stage=stages["clips1"]), **given)
