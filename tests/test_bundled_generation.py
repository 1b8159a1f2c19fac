"""The bundled refiners and the bundled generator."""

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import difflate
from coder_helpers import photo
from difflate import metrics
from difflate.cli.main import main
from difflate.generate import LatentDiffusion, load_generator, sample
from difflate.media.picture import Picture
from difflate.models.latent_space import latent_space
from difflate.models.refiner import Refiner, load_refiner
from difflate.registry import WEIGHTS
from difflate.store.hub import bundled_models

REFINED = sorted(config["codec"] for config in bundled_models().values() if config.get("kind") == Refiner.kind)
GENERATOR = "cats-small"


def test_the_codecs_that_are_refined() -> None:
    assert REFINED == ["eopq-32-8-8", "opq-32-8-8"]
    for name in REFINED:
        assert load_refiner(latent_space(difflate.load(name))).max_noise > 0


@pytest.mark.parametrize("name", REFINED)
def test_refined_images_are_nearer_to_the_original(name: str) -> None:
    """In PSNR and in SSIM, on a photograph that the network has not seen."""
    picture = Picture(photo(320, 480, 100, 100))
    codec: Any = difflate.load(name)
    data = codec.encode(picture)
    plain, refined = codec.decode(data), codec.decode(data, refine=True)
    assert metrics.psnr(picture, refined) > metrics.psnr(picture, plain) + 0.5
    assert metrics.ssim(picture, refined) > metrics.ssim(picture, plain) + 0.01


def test_the_generator_is_small_and_says_what_it_is() -> None:
    folder = WEIGHTS / GENERATOR
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 5 * 2**20
    card = (folder / "README.md").read_text()
    for words in ("license: apache-2.0", "difflate train configs/cats-diffae-small.yaml", "Kaggle"):
        assert words in card
    assert {value.dtype for value in load_generator(GENERATOR).state_dict().values()} == {torch.float32}


def test_its_samples_are_smooth_and_differ() -> None:
    model = load_generator(GENERATOR)
    assert isinstance(model, LatentDiffusion)
    images = torch.cat(list(sample(model, 3, steps=8, batch=2)))
    assert images.shape == (3, 3, 256, 256)
    values = images.float()
    assert values.diff(dim=3).abs().mean() < 0.4 * values.std()  # of noise it is 1.1 times
    assert (values[0] - values[1]).abs().mean() > 10
    again = torch.cat(list(sample(model, 2, steps=8, first=1)))
    assert (images[1:].int() - again.int()).abs().max() <= 2  # sums of another batch are rounded differently


def test_the_command_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    Path(GENERATOR).mkdir()  # of samples, for instance; the bundled one is meant
    words = ["sample", GENERATOR, "-n", "4", "--steps", "3"]
    assert main([*words, "-o", "cats.png", "--trace", "steps.png"]) == 0
    assert main([*words, "-o", "soft.png", "--softness", "0.2"]) == 0
    found = [Image.open(name) for name in ("cats.png", "soft.png")]
    assert {image.size for image in found} == {(2 * 256 + 2, 2 * 256 + 2)}
    assert len({image.tobytes() for image in found}) == 2
    assert main([*words, "--refine", "-o", "refined.png"]) == 4
    assert "diffae-small" in capsys.readouterr().err
    assert main(["sample", "dogs-small", "-o", "dogs.png"]) == 2
    assert "name cats-small, which is bundled" in capsys.readouterr().err


def test_it_is_no_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("small.png")
    assert main(["compress", "small.png", "--codec", GENERATOR]) != 0
    error = capsys.readouterr().err
    assert "cats-small" in error
    assert "unexpected" not in error
    assert not Path("small.dfl").exists()
