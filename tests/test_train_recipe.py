"""A recipe of its own, in one file and one row of the registry: the mean colour of images."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from difflate import registry
from difflate.cli.main import main
from difflate.data.crops import Batch
from difflate.store.folders import FolderModel
from difflate.train.draws import Draws
from difflate.train.recipe import Data, crops_of, loop_recipe
from difflate.train.settings import CropSettings, LoopSettings
from difflate.train.task import Task
from training_helpers import write_images

# -- the recipe ------------------------------------------------------------------------------------------------------


class MeanColour(FolderModel):
    """One colour, in [-1, 1]."""

    kind = "mean-colour"

    def __init__(self, start: float):
        super().__init__()
        self.start = start
        self.colour = nn.Parameter(torch.full((3,), start))


@dataclass(frozen=True)
class ColourTraining(CropSettings):
    """Settings of the recipe `colour`."""

    start: float = 0.0
    """The grey that it starts from."""
    training: LoopSettings = field(default_factory=LoopSettings)


class ColourTask(Task):
    """The squared error of one colour for all pixels."""

    model: MeanColour

    def loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """{"loss": ()} of a batch."""
        return {"loss": (batch.images(self.device) - self.model.colour[:, None, None]).square().mean()}


def _data(settings: ColourTraining) -> Data:
    return crops_of(settings, settings.crop_px, settings.training.seed)


def _task(settings: ColourTraining, data: Data) -> ColourTask:
    return ColourTask(MeanColour(settings.start), settings.training)


RECIPE = loop_recipe("colour", ColourTraining, data=_data, task=_task)

# -- its test --------------------------------------------------------------------------------------------------------


def test_a_recipe_is_a_file_and_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setitem(registry.RECIPES, "colour", __name__)
    images = write_images(tmp_path / "images")
    config = tmp_path / "colour.yaml"
    config.write_text(
        f"recipe: colour\nout: {tmp_path / 'out'}\nimages: [{images}]\nholdback: 4\ncrop_px: 8\n"
        "training: {max_steps: 60, batch: 8, lr: 0.05, warmup_steps: 1, workers: 0, pictures_every: 0}\n"
    )
    assert main(["train", str(config), "--dry-run"]) == 0
    assert "start: 0.0" in capsys.readouterr().out
    assert main(["train", str(config), "start=0.5"]) == 0
    (tmp_path / "out" / "README.md").read_text().index("A mean-colour model")
    found = MeanColour.from_pretrained(tmp_path / "out").colour
    crops = _data(ColourTraining("out", [str(images)], holdback=4, crop_px=8)).trained_on
    colours = torch.stack([crops[number][0].float().mean((1, 2)) for number in range(26)])
    torch.testing.assert_close(found, colours.mean(0) / 127.5 - 1, atol=0.05, rtol=0)
    assert main(["train", str(config), "start=0.5"]) == 6  # trained already
    assert main(["train", str(config), "stert=0.5"]) == 2
    assert "stert" in capsys.readouterr().err
