"""The configurations of the thesis' diffusion autoencoders: the networks of the presets, and a step of training."""

import dataclasses
from pathlib import Path

import pytest
import torch
from PIL import Image

from difflate.models.autoencoder import Autoencoder
from difflate.models.bottlenecks import BottleneckConfig
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder
from difflate.nn import PRESETS
from difflate.nn.encoder_kinds import EncoderConfig
from difflate.nn.encoders import ConvConfig
from difflate.train.config import read_settings
from difflate.train.recipes.diffae import RECIPE, DiffaeTraining, cost
from training_helpers import picture

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIGS = Path(__file__).parents[1] / "configs"
SIZES = ("156m", "280m", "700m", "3b")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first stage at f4 with 4 channels, untrained."""
    folder = tmp_path_factory.mktemp("stage")
    torch.manual_seed(0)
    shape = (8,), (1,), 4
    Autoencoder(EncoderConfig(*shape), BottleneckConfig(kind="ae", channels=4), ConvConfig(*shape)).save_pretrained(
        folder
    )
    return folder


@pytest.mark.parametrize("size", SIZES)
def test_configurations_are_the_presets(size: str, stage: Path) -> None:
    pytest.importorskip("torchvision")
    words = ["images=somewhere", f"decoder.first_stage={stage}"]
    settings = read_settings(DiffaeTraining, CONFIGS / f"diffae-{size}.yaml", words)
    with torch.device("meta"):
        network = settings.build_model().network
    preset = PRESETS[f"diffae-{size}"]
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(preset).items()}
    assert vars(network) == {**plain, "noise_scale": 1000.0}
    assert settings.encoder.kind == "efficientnet-v2-s"
    assert settings.decoder.dropped == 0.05


def test_the_cost_names_encoder_and_network(stage: Path) -> None:
    pytest.importorskip("torchvision")
    words = ["images=somewhere", f"decoder.first_stage={stage}"]
    said = cost(read_settings(DiffaeTraining, CONFIGS / "diffae-156m.yaml", words))
    assert said.startswith("20.22 million parameters of the encoder")
    assert "157.19 of the U-Net" in said


@pytest.mark.slow
def test_a_step_of_the_smallest(stage: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    for number in range(3):
        Image.fromarray(picture(number, 80, 80)).save(tmp_path / f"{number}.png")
    own = "stages.joint.training."
    words = [
        f"images={tmp_path}", f"out={tmp_path / 'out'}", "holdback=1", f"decoder.first_stage={stage}",
        "encoder.pretrained=false", "stages.joint.crop_px=64", f"{own}max_steps=1", f"{own}batch=2", f"{own}workers=0",
        f"{own}precision=fp32", f"{own}pictures_every=0", f"{own}warmup_steps=0", f"{own}lr=1e-3",
    ]  # fmt: skip
    settings = read_settings(DiffaeTraining, CONFIGS / "diffae-156m.yaml", words)
    torch.manual_seed(settings.stages[0].training.seed)
    before = settings.build_model().state_dict()
    folder = RECIPE.run(settings)
    after = DiffusionAutoencoder.from_pretrained(folder)
    moved = {name for name, value in after.state_dict().items() if not torch.equal(value, before[name])}
    # what is behind the exit's zeros gets its first gradient in the second step
    assert {"unet.exit.weight", "autoencoder.encode.project.0.weight", "autoencoder.decode.exit.weight"} <= moved
    images = torch.zeros(1, 3, 40, 72)
    z = after.autoencoder(images).z
    assert z.shape == (1, 36, 2, 3)
    noise = torch.zeros(after.noise_shape(z))
    assert after.restore(z, 2, noise).isfinite().all()
    assert dataclasses.asdict(after.network)["widths"] == [160, 256, 544, 544]
