"""`difflate train`: a codec from a folder of images, end to end, and configurations that are wrong."""

import json

import numpy as np
import pytest
from PIL import Image

import difflate
from difflate.cli.main import main
from difflate.errors import ConfigError
from difflate.media.picture import Picture
from difflate.train.config import plain_settings, read_settings, write_settings
from difflate.train.recipes.vq import VqTraining, windows

SMALL = ["context_steps=3", "context_views=1", "iterations=2", "bits=[12,4,3]", "patch_px=4"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Four photographs of sorts, a grey one, and a file that is none."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(4):
        smooth = rng.normal(size=(8, 9, 3)).cumsum(0).cumsum(1)
        levels = np.clip(128 + 20 * smooth, 0, 255).astype(np.uint8)
        Image.fromarray(levels).resize((70, 50), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    Image.new("L", (40, 40), 99).save(folder / "grey.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("recipe: vq\nout: nowhere\nmethod: opq\nbits: [32, 8, 8]\n")
    return path


@pytest.mark.parametrize("method", ["pq", "rq"])
def test_training_gives_a_codec_that_compresses(images, config, tmp_path, method, capsys, monkeypatch):
    monkeypatch.setattr("difflate.train.recipes.vq.SITES_PER_STEP", 200)
    out = tmp_path / "model"
    arguments = ["train", str(config), f"images={images}", f"out={out}", f"method={method}", *SMALL]
    assert main(arguments) == 0
    assert capsys.readouterr().out.strip() == str(out)
    codec = difflate.load(out)
    assert codec.name == f"{method}-12-4-3-p4"
    picture = Picture(np.asarray(Image.open(images / "0.png")).transpose(2, 0, 1))
    data = codec.encode(picture)
    restored = codec.decode(data).pixels
    assert np.square(picture.pixels.astype(float) - restored).mean() < 200
    assert difflate.decode(data, codec=codec).size == (70, 50)
    assert "difflate train" in (out / "README.md").read_text()
    # the settings beside the model train the same model again
    assert main(["train", str(out / "training.yaml"), f"out={tmp_path / 'again'}"]) == 0
    assert json.loads((out / "config.json").read_text()) == json.loads((tmp_path / "again" / "config.json").read_text())
    # and are not lost to a second run by mistake
    assert main(arguments) == 6
    assert "force=true" in capsys.readouterr().err


def test_every_window_of_every_image_and_its_flip_is_seen(images):
    settings = VqTraining(out="x", images=["y"])
    paths = [images / "0.png", images / "1.png"]
    found = windows(paths, 0, settings)
    assert found.shape == (2 * 2 * 63 * 43, 64)
    few = windows(paths, 0, VqTraining(out="x", images=["y"], max_patches=100))
    assert few.shape == (100, 64)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("methodd=pq", "methodd"),
        ("method=xyz", "method"),
        ("bits=[1,2]", "three numbers"),
        ("bits=many", "bits"),
        ("patch_px=0", "patch_px"),
        ("iterations=0", "iterations"),
        ("oops", "key=value"),
        ("images=[]", "images is empty"),
        ("images=nowhere", "nowhere: no such file or folder"),
        ("bits=[0,8,8]", "bits"),
    ],
)
def test_wrong_settings_name_their_key(images, config, tmp_path, override, message, capsys):
    arguments = ["train", str(config), f"images={images}", f"out={tmp_path / 'o'}", override]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_wrong_configurations_are_told(tmp_path, capsys):
    for text, message in {
        "": "recipe",
        "recipe: nothing": "nothing",
        "a: [": "YAML",
        "recipe: vq\nfoo: 1": "foo",
    }.items():
        path = tmp_path / "c.yaml"
        path.write_text(text)
        assert main(["train", str(path), "out=x", "images=y"]) == 2
        assert message in capsys.readouterr().err
    assert main(["train", str(tmp_path / "none.yaml")]) == 2


def test_too_few_patches_for_the_codebooks_are_told(images, config, tmp_path, capsys):
    assert (
        main(
            [
                "train",
                str(config),
                f"images={images / 'grey.png'}",
                f"out={tmp_path / 'o'}",
                "bits=[16,8,8]",
                "method=vq",
            ]
        )
        == 2
    )
    assert "too few for a codebook" in capsys.readouterr().err


def test_settings_survive_their_file(tmp_path):
    settings = VqTraining(out="o", images=["a", "b c"], bits=[20, 7, 6], context_minutes=1.5)
    write_settings(plain_settings(settings, "vq"), tmp_path)
    assert read_settings(VqTraining, tmp_path / "training.yaml", []) == settings


def test_the_configurations_of_the_bundled_models_are_valid(pytestconfig, capsys):
    for name in ("vq-8-8-8", "pq-32-8-8", "opq-32-8-8", "eopq-32-8-8", "rq-32-8-8"):
        path = pytestconfig.rootpath / "configs" / f"{name}.yaml"
        assert main(["train", str(path), "images=somewhere", "--dry-run"]) == 0
        assert f"method: {name.split('-')[0]}" in capsys.readouterr().out
        settings = read_settings(VqTraining, path, ["images=somewhere"])
        assert settings.name == name
    with pytest.raises(ConfigError, match="images is empty"):
        read_settings(VqTraining, path, [])
