"""The recipe `restorer`: pairs from their numbers, a loss that falls, exact resume."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import difflate
from coder_helpers import photo, psnr
from difflate.cli.main import main
from difflate.data.crops import Crops, collate
from difflate.data.degraded import HELD_BACK_QUALITIES, Degradations, all_tables
from difflate.data.items import list_items
from difflate.media.files import open_pil
from difflate.media.jpeg import quantization_tables
from difflate.models.restorer import NETWORK, PROCESS, Restorer, load_restorer
from difflate.nn import UNetConfig
from difflate.train import checkpoint
from difflate.train.config import read_settings
from difflate.train.draws import Draws
from difflate.train.loop import CHECKPOINTS
from difflate.train.recipes.restorer import RECIPE, Restoration, RestorerTraining, cost
from difflate.train.settings import LoopSettings

CONFIGS = Path(__file__).parents[1] / "configs"
TINY = UNetConfig(widths=(16, 24), blocks=(1, 1), patch=2)
LOOP = {
    "max_steps": 6, "batch": 4, "lr": 3e-3, "warmup_steps": 2, "decay": "constant", "log_every": 2,
    "validate_every": 3, "pictures_every": 0, "checkpoint_every": 2, "workers": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pieces of a photograph, one of them grey."""
    path = tmp_path_factory.mktemp("images")
    for number in range(12):
        image = Image.fromarray(photo(72, 80, 60 + 100 * (number // 4), 190 * (number % 4)).transpose(1, 2, 0))
        (image.convert("L") if number == 3 else image).save(path / f"{number:02d}.png")
    return path


def settings(images: Path, out: Path, loop: dict[str, Any] | None = None, **others: Any) -> RestorerTraining:
    values = {"holdback": 4, "crop_px": 32, "network": TINY, "rho": 0.0, **others}
    return RestorerTraining(out=str(out), images=[str(images)], training=LoopSettings(**LOOP | (loop or {})), **values)


def degradations(images: Path, size: int = 32, **options: Any) -> Degradations:
    return Degradations(Crops(list_items([str(images)]), size + 16, seed=0), size, **options)


# Pairs


def test_tables_are_those_of_libjpeg() -> None:
    image = Image.fromarray(photo(32, 32).transpose(1, 2, 0))
    for quality in (1, 10, 49, 50, 75, 96, 100):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        np.testing.assert_array_equal(all_tables()[quality - 1], quantization_tables(open_pil(file.getvalue())))
    assert all_tables().shape == (801, 2, 64)
    assert not all_tables()[-1].any()
    assert not all_tables()[400:, 1].any()
    assert (all_tables()[:400] >= 1).all()


def test_pairs_follow_from_their_numbers(images: Path) -> None:
    pairs = degradations(images)
    made = [pairs.read(number) for number in range(60)]
    assert all(torch.equal(pairs.read(number).pixels, made[number].pixels) for number in (7, 50))
    assert {sample.pixels.shape for sample in made} == {(6, 32, 32)}
    labels = [sample.label for sample in made]
    assert -1 in labels
    assert max(labels) < 800
    errors = [(s.pixels[:3].float() - s.pixels[3:].float()).square().mean().sqrt() for s in made]
    assert min(errors) > 0.5
    assert max(errors) < 40
    other = degradations(images, seed=1).read(7)
    assert not torch.equal(other.pixels[3:], made[7].pixels[3:])
    for sample in made:
        grey = bool((sample.pixels[:3] == sample.pixels[:1]).all())
        assert not grey or bool((sample.pixels[3:] == sample.pixels[3:4]).all())
        assert sample.label < 0 or (sample.label >= 400) == grey


def test_held_back_are_five_qualities(images: Path) -> None:
    crops = Crops(list_items([str(images)]), 48, augment=False)
    pairs = Degradations(crops, 32, held_back=True)
    assert [pairs.read(number).label % 100 + 1 for number in range(5)] == list(HELD_BACK_QUALITIES)
    whole, pair = crops.read(0), pairs.read(0)
    file = io.BytesIO()
    Image.fromarray(whole.pixels.numpy().transpose(1, 2, 0)).save(file, "JPEG", quality=10, subsampling="4:2:0")
    decoded = np.asarray(Image.open(file)).transpose(2, 0, 1)
    np.testing.assert_array_equal(pair.pixels[3:].numpy(), decoded[:, :32, :32])
    assert torch.equal(pair.pixels[:3], whole.pixels[:, :32, :32])


# Training


def task_of(**others: Any) -> Restoration:
    torch.manual_seed(0)
    made = RestorerTraining("out", ["images"], network=TINY, training=LoopSettings(**LOOP), **{"rho": 0.0, **others})
    return Restoration(Restorer(TINY, PROCESS), made)


def test_before_training_the_loss_is_what_was_lost(images: Path) -> None:
    batch = collate([degradations(images).read(number) for number in range(4)])
    draws = Draws(0, batch.numbers, 4)
    for one_step in (0.0, 1.0):
        task = task_of(one_step=one_step).train()
        pair, degraded = task._pairs(batch)
        expected = ((pair - degraded.images) / degraded.std[:, None, None, None]).square().mean()
        torch.testing.assert_close(task.loss(batch, draws)["loss"], expected)


def test_a_crop_alone_has_the_loss_that_it_has_among_others(images: Path) -> None:
    task, pairs = task_of(one_step=0.5).train(), degradations(images)
    for parameter in task.parameters():
        torch.nn.init.normal_(parameter, std=0.1)

    def loss_of(*numbers: int) -> torch.Tensor:
        batch = collate([pairs.read(number) for number in numbers])
        return task.loss(batch, Draws(0, batch.numbers, 4))["loss"]

    torch.testing.assert_close(loss_of(0, 1, 2, 3), torch.stack([loss_of(n) for n in range(4)]).mean())


def test_lpips_is_of_the_restored_image(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Distance(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return (x - y).square().mean((1, 2, 3))

    monkeypatch.setattr("difflate.train.perceptual_loss.load_lpips", lambda nets: Distance())
    batch = collate([degradations(images).read(number) for number in range(4)])
    task = task_of(rho=1.0, one_step=1.0).eval()
    values = task.loss(batch, Draws(0, batch.numbers, 4))
    pair, degraded = task._pairs(batch)
    expected = (pair - degraded.images).square().mean()
    for key in ("loss", "lpips", "lpips_before", "lpips_after"):
        torch.testing.assert_close(values[key], expected)


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve smooth pictures: what JPEG makes of them is soon learned."""
    path, rng = tmp_path_factory.mktemp("waves"), np.random.default_rng(0)
    rows, columns = np.mgrid[:72, :80]
    for number in range(12):
        slopes = rng.normal(size=(3, 2)) / 14
        planes = [128 + 100 * np.sin(a * rows + b * columns + c) for c, (a, b) in enumerate(slopes)]
        Image.fromarray(np.stack(planes, 2).astype(np.uint8)).save(path / f"{number:02d}.png")
    return path


def test_training_restores_what_it_has_not_seen(waves: Path, tmp_path: Path) -> None:
    loop = {"max_steps": 110, "validate_every": 110, "pictures_every": 110, "checkpoint_every": 110}
    out = RECIPE.run(settings(waves, tmp_path, loop, one_step=1.0), "the command", progress=False)
    newest = checkpoint.latest(out / CHECKPOINTS)
    assert newest is not None
    first, last = (values for _, values in checkpoint.read_head(newest)[0].validations)
    assert first["psnr_after_db"] == pytest.approx(first["psnr_before_db"], abs=1e-4)
    assert last["loss"] < first["loss"]
    assert last["psnr_after_db"] > last["psnr_before_db"] + 0.1
    with Image.open(out / "pictures" / "step-00000110.png") as grid:
        assert grid.mode == "RGB"
    assert "difflate restore" in (out / "README.md").read_text()
    restorer = load_restorer(out)
    with Image.open(waves / "00.png") as image:
        original, file = np.asarray(image), io.BytesIO()
        image.save(file, "JPEG", quality=20)
    plain, restored = difflate.decode(file.getvalue()), difflate.decode(file.getvalue(), restorer=restorer)
    assert psnr(original, np.asarray(restored)) > psnr(original, np.asarray(plain))


def test_resume_is_exact(images: Path, tmp_path: Path) -> None:
    for name, sittings in (("whole", (6,)), ("parts", (2, 5, 6))):
        for steps in sittings:
            RECIPE.run(settings(images, tmp_path / name, {"max_steps": steps}), "", progress=False)
    whole, parts = (checkpoint.latest(tmp_path / name / CHECKPOINTS) for name in ("whole", "parts"))
    assert whole is not None
    assert parts is not None
    ours = load_file(parts)
    for name, value in load_file(whole).items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6 if "average" in name else 0, msg=name)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("crop_px=40", r"crop_px \(=40\) must be a multiple of 16"),
        ("one_step=2", r"one_step \(=2"),
        ("rho=-1", r"rho \(=-1"),
        ("process.target=v", r"`target` \(=v\) must be x0"),
        ("network.out_channels=1", "out_channels"),
        ("network.vector_channels=7", "vector_channels"),
    ],
)
def test_a_wrong_key_is_named(override: str, message: str, images: Path, tmp_path: Path, capsys: Any) -> None:
    words = [f"images={images}", f"out={tmp_path / 'out'}", "training.max_steps=1", override]
    assert main(["train", str(CONFIGS / "restorer-smoke.yaml"), *words]) == 2
    errors = capsys.readouterr().err
    assert re.search(message, errors), errors
    assert len(errors.strip().splitlines()) == 1


def test_the_shipped_configurations() -> None:
    full, smoke = (
        read_settings(RestorerTraining, CONFIGS / f"{name}.yaml", []) for name in ("jpeg-restorer", "restorer-smoke")
    )
    assert list(full.network.widths) == list(NETWORK.widths)
    assert full.process == PROCESS
    assert full.training.save_dtype == "int8"
    assert re.fullmatch(r"1\.\d\d million parameters, 2\d\.\d billion multiply-adds for 768x512", cost(full))
    assert smoke.training.max_minutes is None or smoke.training.max_minutes <= 1
