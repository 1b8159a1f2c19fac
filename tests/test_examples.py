"""The README's and the docstrings' examples run."""

import doctest
import importlib
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import difflate
from difflate.cli.main import main
from difflate.media.clip import clip_of
from difflate.media.picture import Picture
from difflate.media.video import write_clip

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("module", ["difflate", "difflate.integrations.pillow"])
def test_docstrings(module, monkeypatch, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_the_demo_runs(pytestconfig, tmp_path, monkeypatch, capsys):
    """On a part of its photograph."""
    demo = runpy.run_path(str(pytestconfig.rootpath / "examples" / "demo.py"))
    monkeypatch.chdir(tmp_path)
    Image.open(demo["PHOTO"]).crop((0, 0, 320, 256)).save("part.png")
    monkeypatch.setitem(demo["main"].__globals__, "PHOTO", Path("part.png"))
    demo["main"]()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["codec", "bytes", "ratio", "bpp", "PSNR", "dB", "MS-SSIM", "encode", "s", "decode", "s"]
    assert [line.split()[0] for line in lines[3:6]] == [difflate.DEFAULT_CODEC, "jpeg", "avif"]
    assert (tmp_path / "out" / "demo.jpg").stat().st_size > 30_000
    assert (tmp_path / "out" / "demo.dfl").stat().st_size == int(lines[3].split()[1])


def readme_commands(root):
    text = (root / "README.md").read_text()
    found = re.findall(r"^(?: {4})?difflate (.+?)(?:\s+#.*)?$", text, re.MULTILINE)
    return [command.split() for command in found if "runs/mine" not in command]


def _small(config: str, steps: int) -> list[str]:
    """Overrides that make a training of the README take seconds."""
    names = ("perceptual",) if "finetune" in config else ("diffusion", "perceptual", "nearer", "adversarial")
    if "diffae" in config:
        names = ("one_step",) if "video" in config else ("joint", "one_step")
    stages = [f"stages.{name}." for name in names] if "cdc" in config or "diffae" in config else [""]
    words = ["holdback=1"]
    for stage in stages:
        words += [f"{stage}training.{word}" for word in ("batch=2", f"max_steps={steps}", "workers=0")]
        if stage or "hyperprior" in config:
            words.append(f"{stage}crop_px=64")
    if "finetune" in config:  # of the bundled models, whose shape is what it is
        return words
    if "hyperprior" in config or "cdc" in config:
        coder = "coder." if "cdc" in config else ""
        words += [f"{coder}transform.widths=[8,8,8]", f"{coder}transform.latent_channels=24"]
    if "hyperprior" in config:
        return words
    if "diffae" in config:
        words += ["encoder.widths=[8,8,8]", "head.widths=[8,8,8]", "context.views=1", "context.steps=2"]
    if "video" in config:
        words += ["init_image=null", "folding.features=8", "folding.width=8", "context.view_px=64"]
        words += ["stages.large=null", "stages.one_step.frames=4", "stages.one_step.lpips=alex"]
    return [*words, "network.widths=[8,32,32]", "network.blocks=[1,1,1]", "network.head_width=16"]


_FEWER = {"500": "2", "30": "2", "16": "2", "32": "1", "7": "2", "4": "2"}
"""Numbers of the README's commands, and smaller ones."""


@pytest.mark.usefixtures("backbones")
def test_the_commands_of_the_readme_run(pytestconfig, tmp_path, monkeypatch, capsys):
    """On small pictures; trainings for two steps more each, those of codebooks have tests of their own."""
    root = pytestconfig.rootpath
    wanted = readme_commands(root)
    ours = {"compress", "decompress", "info", "verify", "codecs", "eval", "train", "latents", "sample", "distance"}
    assert {command[0] for command in wanted} == ours
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(root / "configs")
    photo = Image.open(root / "examples" / "kodim23.png").crop((150, 100, 350, 290))
    for folder, names in (("album", "ab"), ("kodak", "a"), ("cats", "abcd"), ("photos", "a"), ("imagenet", "b")):
        (tmp_path / folder).mkdir()
        for name in names:
            (photo.crop((0, 0, 128, 128)) if folder == "cats" else photo).save(tmp_path / folder / f"{name}.png")
    photo.save("photo.jpg", quality=95)
    frames = [Picture(np.asarray(photo.crop((n, n, 64 + n, 64 + n))).transpose(2, 0, 1)) for n in range(17)]
    Path("clips").mkdir()
    for name in ("clip", "a", "b", "clips/a"):
        write_clip(clip_of(frames[:3] if "/" in name else frames, 24), Path(f"{name}.mp4"))
    steps = 0
    for arguments in wanted:
        if "cut.dfl" in arguments:  # its second group of frames is not whole
            Path("cut.dfl").write_bytes(Path("clip.dfl").read_bytes()[:-8])
        if "--out" in arguments:
            arguments = [*arguments, "--force"]
        if arguments[0] == "train":
            steps += 2
            arguments += _small(arguments[1], steps)
        arguments = [_FEWER.get(word, word) for word in arguments]
        assert main(arguments) == 0, (arguments, capsys.readouterr().err)
    files = "photo.dfl restored.png packed/a.dfl photo.avif restored.mp4 rest.mp4 report/report.html cats.png steps.png"
    for made in files.split():
        assert (tmp_path / made).exists(), made


def test_the_bundled_models_are_trained_in_order_within_the_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "train_bundled.py"))
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess:
        commands.append(command[3:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["train_bundled.py", "--data", "data", "--minutes", "50", "--out", str(tmp_path)])
    example["main"]()
    trained = [Path(command[1]).stem for command in commands if command[0] == "train"]
    assert trained == [
        "hyperprior-small",
        "cdc-small",
        "diffae-small",
        *["refiner-opq-32-8-8"] * 2,
        *["cats-diffae-small"] * 2,
    ]
    minutes = [float(word.split("=")[1]) for command in commands for word in command if ".max_minutes=" in word]
    assert sum(minutes) == pytest.approx(50, abs=0.01)
    (vary,) = (command for command in commands if command[0] not in ("train", "latents"))
    assert vary == [str(tmp_path / "catfaces-varied"), "--size", "256"]
    for command in commands:
        if command[0] == "train":
            images = f"images=[{ROOT / 'examples'}]"
            if "cats" not in command[1]:  # the settings fit the recipes
                main([*command[:2], *(word for word in command[2:] if "images=" not in word), images, "--dry-run"])
