"""Pictures that are no photographs: they follow from their number, and training mixes them in as it is asked to."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difflate.cli.main import main
from difflate.data import made
from difflate.data.crops import Crops
from difflate.data.items import list_items
from difflate.data.loader import batches_of
from difflate.data.made import fonts
from difflate.data.mixed import Mixed, without_colour
from difflate.errors import ConfigError
from difflate.seeds import numpy_generator
from difflate.train.loop import CHECKPOINTS
from difflate.train.recipe import crops_of
from difflate.train.recipes import pixel
from difflate.train.settings import CropSettings
from training_helpers import assert_same, settings, write_images, write_yaml

ONE_COLOUR = {"flat"}


def test_a_picture_follows_from_seed_and_number_in_any_order() -> None:
    numbers = [*range(40), 2**40]
    shown = {n: made.picture(7, n, 40, 72) for n in numbers}
    assert all(np.array_equal(made.picture(7, n, 40, 72), shown[n]) for n in reversed(numbers))
    assert all(not np.array_equal(made.picture(8, n, 40, 72), shown[n]) for n in numbers)


def test_processes_that_read_make_the_same_pictures(tmp_path: Path) -> None:
    mixed = _mixed(write_images(tmp_path, 3), 0.7, 0.2, size=64)
    lists = [list(range(start, start + 8)) for start in (0, 8, 16)]
    batches = [batches_of(mixed, iter(lists), workers, torch.device("cpu")) for workers in (0, 2)]
    for ours, theirs in zip(*batches, strict=True):
        assert torch.equal(ours.pixels, theirs.pixels)
        assert torch.equal(ours.numbers, theirs.numbers)


@pytest.mark.parametrize("kind", made.KINDS)
def test_each_kind_fills_any_size(kind: str) -> None:
    drawn = set()
    for number, (height, width) in enumerate([(64, 64), (96, 130), (65, 256), (1, 7), (128, 128)]):
        pixels = made.make(kind, numpy_generator(1, 99, number), height, width)
        assert pixels.shape == (3, height, width)
        assert pixels.dtype == np.uint8
        if (height, width) != (1, 7) and kind not in ONE_COLOUR:
            assert np.ptp(pixels.reshape(3, -1), axis=1).max() > 20, (kind, number)
        drawn.add(pixels.tobytes())
    assert len(drawn) == 5


def test_pillows_own_font_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "faces", lambda: ("",))
    for kind in ("text-small", "text", "text-colour", "window", "chart", "table", "map"):
        assert all(np.ptp(made.make(kind, numpy_generator(0, 99, n), 96, 96)) > 20 for n in range(5)), kind


def test_all_kinds_come_up_in_their_parts() -> None:
    """Kinds are drawn by their weights; every one of them within some hundreds of pictures."""
    found = dict.fromkeys(made.KINDS, 0)
    real, total = made.make, sum(weight for weight, _ in made.KINDS.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made, "make", lambda kind, rng, height, width: found.update({kind: found[kind] + 1}))
        for number in range(2000):
            made.picture(0, number, 8, 8)
    assert made.make is real
    for name, (weight, _) in made.KINDS.items():
        assert abs(found[name] / 2000 - weight / total) < 0.025, name


def test_the_test_set_has_twenty_pictures_of_its_own() -> None:
    pictures = dict(made.odd_pictures())
    assert len(pictures) == 20
    assert {pixels.shape for pixels in pictures.values()} == {(3, 384, 512)}
    assert len({pixels.tobytes() for pixels in pictures.values()}) == 20
    again = dict(made.odd_pictures())
    assert all(np.array_equal(pixels, again[name]) for name, pixels in pictures.items())
    board = pictures["checkerboard-1px"]
    assert len(np.unique(board.reshape(3, -1), axis=1).T) == 2
    assert (board[:, 1:] != board[:, :-1]).any(0).all()


def _mixed(folder: Path, made: float, grey: float, size: int = 8, seed: int = 3) -> Mixed:
    return Mixed(Crops(list_items([folder]), size, seed=seed), made=made, grey=grey)


def test_shares_are_as_asked_and_follow_from_the_number(tmp_path: Path) -> None:
    for number in range(5):  # in a colour that no made picture has alone
        Image.new("RGB", (12, 10), (123, 45, 67 + number)).save(tmp_path / f"{number}.png")
    mixed = _mixed(tmp_path, 0.3, 0.2)
    shown = [mixed[n].pixels for n in range(400)]
    photos = [bool(((p[0] == 123) & (p[1] == 45)).all() or ((p >= 78) & (p <= 80)).all()) for p in shown]
    assert 0.63 < np.mean(photos) < 0.77
    greys = [bool((p == p[:1]).all()) for p, photo in zip(shown, photos, strict=True) if photo]
    assert 0.13 < np.mean(greys) < 0.27
    assert all(torch.equal(mixed[n].pixels, shown[n]) for n in reversed(range(0, 400, 13)))
    # photographs are the ones that they are without the others
    alone = mixed.photographs
    same = [torch.equal(alone[n].pixels, p) for n, p in enumerate(shown)]
    assert 0.47 < np.mean(same) < 0.65


def test_without_colour_is_the_mean_of_the_channels() -> None:
    pixels = torch.tensor([[[255, 0, 10]], [[255, 1, 10]], [[255, 0, 12]]], dtype=torch.uint8)
    assert without_colour(pixels).tolist() == [[[255, 0, 11]]] * 3


def test_what_is_held_back_are_photographs(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 12)
    both = [
        crops_of(CropSettings("out", [str(images)], holdback=4, made=share, grey=share), 8, 0) for share in (0.0, 1.0)
    ]
    for number in range(4):
        plain, mixed = (data.held_back for data in both)
        assert plain is not None
        assert mixed is not None
        assert torch.equal(plain[number].pixels, mixed[number].pixels)
    assert isinstance(both[0].trained_on, Crops)  # nothing changes for who asks for nothing
    assert all((p := both[1].trained_on[n].pixels).equal(p[:1].expand(3, -1, -1)) for n in range(20))


def test_a_training_goes_on_to_the_bit(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    shares = {"made": 0.4, "grey": 0.2}
    pixel.RECIPE.run(settings(images, whole, **shares))
    pixel.RECIPE.run(settings(images, parts, {"max_steps": 6}, **shares))
    pixel.RECIPE.run(settings(images, parts, **shares))
    assert_same(whole, parts)
    assert (parts / CHECKPOINTS).exists()
    with pytest.raises(ConfigError, match=r"made \(=0.5\) is 0.4 in"):
        pixel.RECIPE.run(settings(images, parts, {"max_steps": 20}, made=0.5, grey=0.2))


@pytest.mark.parametrize(("word", "message"), [("made=-.1", "made (=-0.1)"), ("grey=1.5", "grey (=1.5)")])
def test_a_share_that_cannot_be_is_one_line(
    word: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = write_yaml(tmp_path, write_images(tmp_path / "images", 2), tmp_path / "out")
    assert main(["train", str(config), word, "--dry-run"]) == 2
    assert capsys.readouterr().err.strip().endswith(f"{message} must be from 0 to 1")


def test_the_card_says_what_was_mixed_in(tmp_path: Path) -> None:
    data = crops_of(CropSettings("out", [str(write_images(tmp_path / "a", 3))], holdback=0, grey=0.25), 8, 0)
    assert data.sources[1:] == ["a share of 0.25 without colour"]


def test_the_example_writes_the_test_set(
    tmp_path: Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = runpy.run_path(str(pytestconfig.rootpath / "examples" / "odd_pictures.py"))
    monkeypatch.setattr(sys, "argv", ["odd_pictures.py", str(tmp_path / "odd")])
    script["main"]()
    files = sorted((tmp_path / "odd").iterdir())
    assert {file.stem for file in files} == set(made.ODD)
    shown = dict(made.odd_pictures())
    for file in files:
        with Image.open(file) as image:
            assert np.array_equal(np.asarray(image).transpose(2, 0, 1), shown[file.stem])
