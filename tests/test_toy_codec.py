"""A codec that is no part of difflate: one file, one row of the registry, and everything works on it."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import difflate
import difflate.integrations.pillow
import toy_codec
from cli_helpers import Run, picture
from clip_helpers import moving, pixels
from difflate import registry
from difflate.generate import load_generator, sample
from difflate.train.context import ContextNet
from training_helpers import picture as training_picture

NAME = "toy-8"


@pytest.fixture(autouse=True)
def registered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    models = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    (models / NAME).mkdir()
    toy_codec.save(ContextNet(toy_codec.BITS).export(), models / NAME)
    registry.register(registry.Kind(**toy_codec.ROW, models=models))
    yield
    registry.unregister("toy")


def test_it_is_one_file_of_sixty_lines() -> None:
    assert len(Path(toy_codec.__file__).read_text().splitlines()) <= 60


def test_the_commands_compress_restore_check_and_list_its_files(run: Run, folder: Path) -> None:
    picture("RGBA", (45, 30)).save("alpha.png")
    picture("L", (9, 1)).save("grey.png")
    for name in ("photo", "alpha", "grey"):
        assert run("compress", f"{name}.png", "--codec", NAME)[0] == 0
        assert run("verify", f"{name}.dfl")[0] == 0
        assert run("decompress", f"{name}.dfl", "-o", f"{name}-restored.png")[0] == 0  # the model is found by the file
        with Image.open(f"{name}.png") as ours, Image.open(f"{name}-restored.png") as theirs:
            assert theirs.mode == ours.mode
            assert theirs.size == ours.size
            colours = "RGB" if ours.mode == "RGB" else "L"
            difference = np.asarray(ours.convert(colours), float) - np.asarray(theirs.convert(colours), float)
            assert np.abs(difference).mean() < 32
    assert run("compress", "photo.png", "--codec", NAME, "--fixed-rate", "-o", "fixed.dfl")[0] == 0
    assert difflate.decode("fixed.dfl").tobytes() == difflate.decode("photo.dfl").tobytes()
    shown = json.loads(run("info", "photo.dfl", "--json")[1])
    assert (shown["codec"], shown["model"], shown["settings"]) == ("toy", NAME, {})
    assert [section["type"] for section in shown["sections"]] == ["indices (context)"]
    listed = json.loads(run("codecs", "--json")[1])["codecs"]
    assert {"name": NAME, "kind": "learned", "suffix": ".dfl", "quality": None, "about": ""} in listed
    code, _, error = run("compress", "photo.png", "--codec", NAME, "--steps", "3", "-o", "x.dfl")
    assert code == 2
    assert "--steps has no meaning for toy-8" in error


def test_it_takes_clips(run: Run, folder: Path) -> None:
    clip = moving(2)
    Path("clip.dfl").write_bytes(difflate.encode_clip(clip, NAME))
    assert run("verify", "clip.dfl")[0] == 0
    assert json.loads(run("info", "clip.dfl", "--json")[1])["frames"] == 2
    assert np.abs(pixels(difflate.decode_clip("clip.dfl")).astype(int) - pixels(clip)).mean() < 48


def test_damage_is_told_as_for_every_codec(run: Run, folder: Path) -> None:
    data = difflate.encode("photo.png", codec=NAME)
    Path("cut.dfl").write_bytes(data[:-3])
    assert run("decompress", "cut.dfl")[0] == 3
    registry.unregister("toy")
    try:
        Path("whole.dfl").write_bytes(data)
        assert run("decompress", "whole.dfl")[0] == 4
    finally:
        registry.register(registry.Kind(**toy_codec.ROW, models=Path("none")))


def test_it_is_evaluated(run: Run, folder: Path) -> None:
    code, out, _ = run("eval", "photo.png", "--codecs", f"{NAME},jpeg:50", "--json")
    assert code == 0
    means = {row["setting"]: row for row in json.loads(out)["means"]}
    assert means[NAME]["psnr"] > 15
    assert means[NAME]["bpp"] > 0


def test_pillow_saves_and_opens_its_files() -> None:
    file = io.BytesIO()
    picture().save(file, "DFL", codec=NAME)
    with Image.open(io.BytesIO(file.getvalue())) as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(difflate.decode(file.getvalue())))


def test_latents_in_python_are_what_files_hold() -> None:
    codec = difflate.load(NAME)
    images = torch.from_numpy(np.asarray(picture("RGB", (40, 24))).transpose(2, 0, 1).copy())[None]
    latent = codec.to_latent(images)
    assert latent.shape == (1, 3, 3, 5)
    restored = codec.from_latent(latent, 24, 40)[0].numpy().transpose(1, 2, 0)
    np.testing.assert_array_equal(restored, np.asarray(difflate.decode(difflate.encode(picture(), codec=NAME))))


def test_a_generator_is_trained_and_sampled_in_its_latent_space(run: Run, tmp_path: Path) -> None:
    for number in range(12):
        Image.fromarray(training_picture(number, 32, 32)).save(tmp_path / f"{number}.png")
    assert run("latents", tmp_path, "--codec", NAME, "-o", tmp_path / "shards", "--workers", "0")[0] == 0
    config = tmp_path / "latent.yaml"
    config.write_text(
        f"recipe: latent\nout: {tmp_path / 'model'}\nlatents: [{tmp_path / 'shards'}]\nholdback: 2\n"
        "network: {widths: [16, 16], blocks: [1, 1]}\n"
        "training: {max_steps: 4, batch: 4, workers: 0, pictures_every: 0}\n"
    )
    code, _, error = run("train", config)
    assert code == 0, error
    generator = load_generator(tmp_path / "model")
    (images,) = sample(generator, 2, steps=2)
    assert images.shape == (2, 3, 32, 32)
    assert run("sample", tmp_path / "model", "-n", "4", "--steps", "2", "-o", tmp_path / "grid.png")[0] == 0
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (2 * 96 + 2, 2 * 96 + 2)
