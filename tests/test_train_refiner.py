"""The recipe `refiner`: it learns, resumes to the bit, and what it writes refines."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from coder_helpers import photo, psnr
from difflate.cli.main import main
from difflate.data.crops import Batch
from difflate.errors import ConfigError
from difflate.media.picture import Picture
from difflate.models.refiner import NETWORK, load_refiner, open_refiner
from difflate.nn import PRESETS
from difflate.nn.unet import UNet, parameters
from difflate.train import checkpoint
from difflate.train.config import read_settings
from difflate.train.draws import Draws
from difflate.train.loop import CHECKPOINTS
from difflate.train.recipes.refiner import RECIPE, Refinement, RefinerTraining, cost
from difflate.train.settings import LoopSettings
from refiner_helpers import TINY, as_pixels, codec_of, refiner_of

CONFIGS = Path(__file__).parents[1] / "configs"
run = RECIPE.run
LOOP = {
    "max_steps": 6, "batch": 4, "lr": 3e-3, "warmup_steps": 2, "decay": "constant", "log_every": 2,
    "validate_every": 3, "pictures_every": 0, "checkpoint_every": 2, "workers": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pieces of a photograph."""
    path = tmp_path_factory.mktemp("images")
    for number in range(12):
        pixels = photo(56, 64, 60 + 100 * (number // 4), 190 * (number % 4))
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path / f"{number:02d}.png")
    return path


def settings(images: Path, out: Path, loop: dict[str, Any] | None = None, **others: Any) -> RefinerTraining:
    values = {"holdback": 3, "crop_px": 32, "network": TINY, **others}
    return RefinerTraining(out=str(out), images=[str(images)], training=LoopSettings(**LOOP | (loop or {})), **values)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    return run(settings(images, tmp_path_factory.mktemp("whole") / "model"), "the command", progress=False)


def newest(out: Path) -> Path:
    found = checkpoint.latest(out / CHECKPOINTS)
    assert found is not None
    return found


def test_training_improves_images_that_it_has_not_seen(images: Path, tmp_path: Path) -> None:
    made = settings(images, tmp_path, {"max_steps": 40, "validate_every": 20, "pictures_every": 40}, clean=1.0)
    out = run(made, "", progress=False)
    found = [values for _, values in checkpoint.read_head(newest(out))[0].validations]
    first, last = found[0], found[-1]
    assert set(first) == {"loss", "psnr_before_db", "psnr_after_db", "ssim_before", "ssim_after"}
    assert first["psnr_after_db"] == pytest.approx(first["psnr_before_db"], abs=1e-4)
    assert last["psnr_before_db"] == first["psnr_before_db"]
    assert last["loss"] < first["loss"]
    assert last["psnr_after_db"] > last["psnr_before_db"] + 0.05
    assert last["ssim_after"] > last["ssim_before"]
    with Image.open(out / "pictures" / "step-00000040.png") as grid:
        assert grid.size == (3 * 96 + 2 * 2, 3 * 96 + 2 * 2)  # each enlarged three times
    picture = Picture(photo(56, 64, 60, 190))
    restored = [codec_of().decode(codec_of().encode(picture), **options) for options in ({}, {"refiner": out})]
    assert psnr(picture.pixels, restored[1].pixels) > psnr(picture.pixels, restored[0].pixels)


def test_resume_is_exact_between_checkpoints(images: Path, whole: Path, tmp_path: Path) -> None:
    for steps in (2, 5, 6):
        run(settings(images, tmp_path, {"max_steps": steps}), "", progress=False)
    ours = load_file(newest(tmp_path))
    for name, value in load_file(newest(whole)).items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6 if "average" in name else 0, msg=name)


def test_the_folder_says_what_it_is_for(whole: Path) -> None:
    config = json.loads((whole / "config.json").read_text())
    assert (config["kind"], config["codec"]) == ("refiner", "opq-32-8-8")
    assert config["codec_fingerprint"] == codec_of().fingerprint.hex()
    card = (whole / "README.md").read_text()
    assert "`the command`" in card
    assert "--refiner" in card
    assert read_settings(RefinerTraining, whole / "training.yaml", []).codec == "opq-32-8-8"
    load_refiner(codec_of().space, whole)


def test_a_codec_may_be_a_folder(images: Path, tmp_path: Path) -> None:
    codec_of("rq-32-8-8").space.save(tmp_path / "mine", "rq", "card")
    made = settings(images, tmp_path / "out", {"max_steps": 1}, codec=str(tmp_path / "mine"))
    refiner = open_refiner(run(made, "", progress=False))
    refiner.check(codec_of("rq-32-8-8"))
    assert refiner.codec == "rq-32-8-8"


def test_a_training_keeps_its_codec(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "codec"
    for name in ("opq-32-8-8", "rq-32-8-8"):
        codec_of(name).space.save(folder, name[:-7], "card")
        made = settings(images, tmp_path / "out", {"max_steps": 1 + (name[0] == "r")}, codec=str(folder))
        if name[0] == "r":
            with pytest.raises(ConfigError, match=r"codec \(=\S+, \w{8}\) is another than that of the model"):
                run(made, "", progress=False)
        else:
            run(made, "", progress=False)


def task(**others: Any) -> Refinement:
    made = RefinerTraining("out", ["images"], network=TINY, training=LoopSettings(**LOOP), **others)
    return Refinement(refiner_of(), codec_of().space, made).train()


def batch(numbers: list[int]) -> Batch:
    pixels = torch.cat([as_pixels(32, 40, left=8 * number) for number in numbers])
    return Batch(pixels, torch.tensor(numbers), torch.full((len(numbers),), -1), [])


def test_crops_have_the_noise_of_their_numbers() -> None:
    draws = Draws(0, torch.arange(64), 64)
    noise = task()._noise(draws)
    assert 0.2 < (noise == 0).float().mean() < 0.8
    every = task(clean=0.0)._noise(draws)
    assert 0 < every.min() < 0.003
    assert 0.027 < every.max() <= 0.03
    assert torch.equal(noise[noise > 0], every[noise > 0])
    assert not task(clean=1.0)._noise(draws).any()
    assert not task(clean=0.0, max_noise=0.0)._noise(draws).any()
    found = task(clean=0.0)
    both = found(batch([3, 5]))["loss"]
    alone = torch.stack([found(batch([number]))["loss"] for number in (3, 5)])
    torch.testing.assert_close(both, alone.mean())
    assert torch.equal(both, found(batch([3, 5]))["loss"])


def test_without_noise_the_network_sees_what_the_codec_restores() -> None:
    found, crops = task(), batch([0, 1])
    draws = Draws(0, crops.numbers, 4)
    space = codec_of().space
    restored = space.from_latent(space.to_latent(crops.pixels)).float() / 127.5 - 1
    assert torch.equal(found._restore(crops.pixels, torch.zeros(2), draws), restored)
    noisy = found._restore(crops.pixels, torch.tensor([0.0, 0.03]), draws)
    assert torch.equal(noisy[0], restored[0])
    clean, damaged = ((images[1] - crops.pixels[1].float() / 127.5 + 1).square().mean() for images in (restored, noisy))
    assert damaged > 2 * clean


def test_the_loss_is_l1_and_ssim() -> None:
    values = {weight: task(clean=1.0, ssim=weight).eval()(batch([0])) for weight in (0.0, 0.5)}
    difference = values[0.5]["loss"] - values[0.0]["loss"]
    torch.testing.assert_close(difference, 0.5 * (1 - values[0.0]["ssim_after"]), rtol=0.02, atol=0)  # clamped there
    task()(batch([0, 1]))["loss"].backward()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("codec=jpeg", "codec 'jpeg' has no finite latent space"),
        ("codec=hyperprior-small", "codec 'hyperprior-small' has no finite latent space"),
        ("codec=nonsense", "codec 'nonsense' is unknown"),
        ("crop_px=36", r"crop_px \(=36\) must be a multiple of 8"),
        ("clean=2", r"clean \(=2"),
        ("ssim=-1", r"ssim \(=-1"),
        ("max_noise=-1", "max_noise"),
        ("network.in_channels=1", "in_channels"),
        ("images=[]", "images is empty"),
    ],
)
def test_a_wrong_key_is_named(override: str, message: str, images: Path, tmp_path: Path, capsys: Any) -> None:
    words = [f"images={images}", f"out={tmp_path / 'out'}", "training.max_steps=1", override]
    assert main(["train", str(CONFIGS / "refiner-smoke.yaml"), *words]) == 2
    errors = capsys.readouterr().err
    assert re.search(message, errors), errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "config.json").exists()


def test_the_shipped_configurations() -> None:
    small, paper, smoke = (
        read_settings(RefinerTraining, CONFIGS / f"refiner-{name}.yaml", [])
        for name in ("opq-32-8-8", "paper", "smoke")
    )
    for found, wanted in ((small.network, NETWORK), (paper.network, PRESETS["refiner"])):
        theirs = {key: list(v) if isinstance(v, tuple) else v for key, v in vars(wanted).items()}
        assert {key: list(v) if isinstance(v, tuple) else v for key, v in vars(found).items()} == theirs
    assert 1.4e6 < parameters(UNet(NETWORK)) < 2e6
    assert not any(kind != "none" for kind in NETWORK.attention or ())  # tiles agree with the whole
    assert smoke.training.max_minutes is None or smoke.training.max_minutes <= 1
    assert re.fullmatch(r"1\.72 million parameters, 78\.\d billion multiply-adds for 768x512", cost(paper))
