"""The command `sample`: grids and folders of images, in pixels and of latents."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import difflate
from difflate import generate
from difflate.cli.main import main
from difflate.diffusion import SAMPLERS, ProcessConfig
from difflate.generate import CategoricalDiffusion, LatentSpec, PixelDiffusion, sample
from difflate.generate.grid import image_grid
from difflate.generate.options import SAMPLER_NAMES
from difflate.models.categorical_diffusion import channels
from difflate.models.latent_space import latent_space
from difflate.nn import UNetConfig
from training_helpers import NETWORK


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of pixels, of images of 8x8 px."""
    path = tmp_path_factory.mktemp("pixels")
    torch.manual_seed(0)
    PixelDiffusion(NETWORK, ProcessConfig(), 8).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A categorical generator of latents of opq-32-8-8, of images of 32x32 px."""
    path = tmp_path_factory.mktemp("latents")
    spec = LatentSpec.of(latent_space(difflate.load("opq-32-8-8")))
    into, out = channels(spec, True)
    network = UNetConfig(in_channels=into, out_channels=out, widths=(8, 8), blocks=(1, 1))
    torch.manual_seed(0)
    CategoricalDiffusion(spec, network, ProcessConfig(target="x0"), 32, True).save_pretrained(path)
    return path


def test_the_names_of_the_help_are_those_of_the_samplers() -> None:
    assert tuple(SAMPLERS) == SAMPLER_NAMES


def test_the_help_needs_no_torch() -> None:
    code = "import sys, difflate.cli.sample, difflate.generate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_grid_and_a_folder_have_the_same_images(folder: Path, tmp_path: Path, capsys) -> None:
    options = ["--steps", "3", "--seed", "5"]
    words = ["sample", str(folder), "-n", "5", *options]
    assert main([*words, "-o", str(tmp_path / "grid.png"), "--scale", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 5
    assert told["seconds"] > 0
    assert main([*words, "-o", f"{tmp_path}/all/", "--batch", "2"]) == 0
    grid = np.asarray(Image.open(tmp_path / "grid.png")).astype(int)
    assert grid.shape == (2 * 8 + 2, 3 * 8 + 4, 3)
    for i in range(5):
        top, left = i // 3 * 10, i % 3 * 10
        single = np.asarray(Image.open(tmp_path / "all" / f"{i:06d}.png")).astype(int)
        assert np.abs(grid[top : top + 8, left : left + 8] - single).max() <= 1


def test_small_images_of_a_grid_are_enlarged() -> None:
    images = torch.arange(2 * 3 * 16 * 24).remainder(251).to(torch.uint8).reshape(2, 3, 16, 24)
    for scale, height, width in ((None, 64, 96), (4, 64, 96), (1, 16, 24), (7, 112, 168)):
        grid = image_grid(images, 2, scale)
        assert grid.shape == (3, height, 2 * width + 2)
        step = height // 16
        for top in (0, step - 1):
            assert torch.equal(grid[:, top::step, top:width:step], images[0])
        assert torch.equal(grid[:, ::step, width + 2 :: step], images[1])
    assert image_grid(images[:, :, :1, :1].expand(-1, -1, 96, 8), 2).shape == (3, 96, 18)


def test_the_command_enlarges_grids_and_strips_alone(folder: Path, tmp_path: Path) -> None:
    words = ["sample", str(folder), "-n", "4", "--steps", "2"]
    grid, strip = tmp_path / "grid.png", tmp_path / "strip.png"
    assert main([*words, "-o", str(grid), "--trace", str(strip)]) == 0
    assert (size_of(grid), size_of(strip)) == ((194, 194), (194, 4 * 98 - 2))
    assert main([*words, "-f", "-o", str(grid), "--trace", str(strip), "--scale", "3"]) == 0
    assert (size_of(grid), size_of(strip)) == ((50, 50), (50, 4 * 26 - 2))
    assert main([*words, "-f", "-o", f"{tmp_path}/all/", "--trace", str(strip), "--scale", "2"]) == 0
    assert (size_of(tmp_path / "all" / "000000.png"), size_of(strip)) == ((8, 8), (34, 4 * 18 - 2))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["-o", "x.jpg"], 2, r"x.jpg: end the name in .png"),
        (["-n", "0", "-o", "x.png"], 2, r"-n \(=0\)"),
        (["-o", "x.png", "--guidance", "2"], 2, "guidance"),
        (["-o", "x.png", "--steps", "0"], 2, r"steps \(=0\) must be from 1 to 1000"),
        (["-o", "x.png", "--device", "nonsense"], 2, r"--device \(=nonsense\)"),
        (["-o", "there.png"], 6, "there.png: exists already"),
        (["-o", "x.png", "--size", "0"], 2, r"size \(=0x0\) cannot be made"),
        (["-o", "x.png", "--scale", "0"], 2, r"--scale \(=0\) must be at least 1, for an output that ends in .png"),
        (["-o", "x/", "--scale", "2"], 2, r"--scale \(=2\) must be at least 1, for an output that ends in .png"),
        (["-n", "9", "-o", "x.png", "--scale", "500"], 5, "9 images of 8x8 px, enlarged 500 times, are too many"),
    ],
)
def test_errors_of_the_command(
    words: list[str], code: int, message: str, folder: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_text("")
    assert main(["sample", str(folder), *words]) == code
    errors = capsys.readouterr().err
    assert re.search(message, errors), errors
    assert [path.name for path in tmp_path.iterdir()] == ["there.png"]


def test_samples_of_latents(latents: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    grid, strip = tmp_path / "grid.png", tmp_path / "strip.png"
    words = ["sample", str(latents), "-n", "5", "--steps", "4", "--temperature", "0.5", "--size", "40x16"]
    options = ["-o", str(grid), "--grid", "5", "--trace", str(strip), "--scale", "1"]
    assert main([*words, *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == 5
    assert found["sampler"] == "ddpm"
    assert size_of(grid) == (5 * 42 - 2, 16)
    assert size_of(strip) == (4 * 42 - 2, 4 * 18 - 2)  # no more moments than steps
    assert main([*words, "-o", f"{tmp_path}/all/", "--batch", "2"]) == 0
    assert size_of(tmp_path / "all" / "000004.png") == (40, 16)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--temperature", "-1"], 2, "temperature (=-1) must be from 0"),
        (["--size", "20"], 2, "size (=20x20) cannot be made; sides must be from 8 to 4096, in steps of 8"),
        (["--size", "x"], 2, "--size (=x) must be a side, or WIDTHxHEIGHT"),
        (["--codec", "rq-32-8-8"], 4, "the latents are of opq-32-8-8"),
        (["--codec", "jpeg"], 2, "codec 'jpeg' has no finite latent space"),
        (["--softness", "0.1"], 2, "softness is of continuous models of latents"),
        (["--guidance", "3"], 2, "needs a model with classes"),
        (["--trace", "x.gif"], 2, "must end in .png"),
        (["--trace", "x.png"], 2, "--trace (=x.png) must be another file than -o"),
        (["-n", "100000"], 5, "100000 images of 32x32 px are too many for a grid; end the name in /"),
        (["--grid", "0"], 2, "--grid (=0) must be at least 1"),
        (["--refiner", "nowhere"], 2, "refiner 'nowhere' is unknown"),
    ],
)
def test_errors_with_latents(
    words: list[str], code: int, message: str, latents: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sample", str(latents), "-o", "x.png", *words]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_interruption_keeps_what_is_finished(latents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args, **options):
        yield next(sample(*args, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "sample", interrupted)
    words = ["sample", str(latents), "-n", "6", "--steps", "1", "--batch", "4", "-o", str(tmp_path / "grid.png")]
    assert main(words) == 130
    assert size_of(tmp_path / "grid.png") == (2 * 98 - 2, 2 * 98 - 2)
