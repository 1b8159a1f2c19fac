"""Distances in VGG16 features, and the nearest training image of each sample."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from backbone_helpers import models, stand_in, weights_path
from cli_helpers import Run
from difflate.data.items import list_items
from difflate.errors import ConfigError, ImageError
from difflate.metrics import nearest
from difflate.metrics.features import features_of, vgg16
from difflate.metrics.frechet import frechet_distance, kernel_distance
from difflate.metrics.nearest import Pixels, find_nearest, pairs_picture
from difflate.metrics.sets import DISTANCES, ImageSet, read_images
from distance_helpers import smooth

pytestmark = pytest.mark.usefixtures("one_thread", "few_directions")


def write(images: Tensor, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{i:02d}.png")
    return folder


# VGG16 features


@pytest.mark.usefixtures("backbones")
def test_the_features_are_the_means_of_the_last_convolution() -> None:
    images = smooth(2, 33, 40)
    layers = models.vgg16(weights=None).features
    layers.load_state_dict({key.removeprefix("features."): tensor for key, tensor in stand_in("vgg").items()})
    mean, std = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = layers[:30]((images / 255 - mean) / std).mean((2, 3))
    network = vgg16()
    features = features_of(images, network)
    assert features.shape == (2, 512)
    assert torch.allclose(features, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="40x15 px are too small for VGG16; it needs 16 px a side"):
        network(images[:, :, :15])


@pytest.mark.usefixtures("backbones")
def test_the_command_has_their_distances_and_the_floor(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torchmetrics")
    made, real = write(smooth(3), tmp_path / "made"), write(smooth(6, seed=1), tmp_path / "real")
    words = ("distance", made, real, "--metrics", "frechet-vgg16,kernel-vgg16", "--holdback", "3", "--floor")
    code, out, err = run(*words, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    network, reference = vgg16(), smooth(6, seed=1)[::2]
    seen = [features_of(images, network) for images in (smooth(3), reference, smooth(6, seed=1)[1::2])]
    assert result["frechet-vgg16"] == pytest.approx(frechet_distance(seen[0], seen[1]), rel=1e-4)
    assert result["kernel-vgg16"]["mean"] == pytest.approx(kernel_distance(seen[0], seen[1]).mean, rel=1e-4)
    assert result["floor"]["frechet-vgg16"] == pytest.approx(frechet_distance(seen[2], seen[1]), rel=1e-4)
    lines = run(*words)[1].decode().splitlines()
    assert lines[2] == "| set | images | frechet-vgg16 | kernel-vgg16 |"
    assert f"| samples | 3 / 3 | {result['frechet-vgg16']:.3f} |" in lines[4]
    assert lines[5].startswith("| floor | 3 / 3 | ")


@pytest.mark.usefixtures("empty_hub")
def test_missing_weights_are_one_line(run: Run, tmp_path: Path) -> None:
    made = write(smooth(2), tmp_path / "made")
    code, out, err = run("distance", made, made, "--metrics", "frechet-vgg16")
    assert (code, out, err.count("\n")) == (2, b"", 1)
    assert f"{weights_path('vgg')}: the weights of VGG16, which this comparison needs, are not there" in err


# Nearest training images


@pytest.mark.usefixtures("empty_hub")
def test_copies_are_found_mirrored_too(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "BLOCK", 2)  # training images come in several blocks
    real = smooth(7, seed=1)
    copies = torch.stack([real[4], real[1].flip(2), smooth(1, seed=2)[0]])
    made, train = write(copies, tmp_path / "made"), write(real, tmp_path / "real")
    (train / "03a.png").write_text("Dear Sir\n")
    words = ("distance", made, train, "--nearest", tmp_path / "pairs.png")
    code, out, err = run(*words, "--json")
    assert code == 0
    assert "1 of 8 images cannot be read and are left out; the first is" in err
    found = json.loads(out)["nearest"]
    assert (found["by"], found["training"]) == ("pixels at 32x32 px", {"images": 7, "skipped": 1})
    pairs = [(Path(x["sample"]).name, Path(x["training"]).name, x["mirrored"]) for x in found["pairs"]]
    assert pairs[:2] == [("00.png", "04.png", False), ("01.png", "01.png", True)]
    distances = [x["distance"] for x in found["pairs"]]
    assert distances[:2] == pytest.approx([0, 0], abs=1e-6)
    others = torch.cat([real, real.flip(3)]).double() - copies[2].double()
    assert distances[2] == pytest.approx(float(others.square().mean((1, 2, 3)).sqrt().min()) / 255, rel=1e-5)
    assert found["samples"] == {"images": 3, "median": distances[1], "least": min(distances)}
    assert "held_back" not in found
    with Image.open(tmp_path / "pairs.png") as picture:
        pixels = np.array(picture)
    # a pair is enlarged to 2 * 96 px, the first two are the copies, with what they are copies of beside them
    first = torch.from_numpy(pixels[:96:3, :192:3]).permute(2, 0, 1)
    assert torch.equal(first[:, :, :32], first[:, :, 32:])
    code, _, err = run(*words)
    assert (code, "exists" in err) == (6, True)
    code, out, _ = run(*words, "--force")
    assert code == 0
    assert "nearest of 7 training images by pixels at 32x32 px, median distance: " in out.decode()
    assert out.decode().endswith("; --holdback N compares it with that of real images\n")


@pytest.mark.usefixtures("empty_hub")
def test_held_back_images_say_how_near_is_near(run: Run, tmp_path: Path) -> None:
    real = smooth(8, seed=1)
    made, train = write(real[1:3], tmp_path / "made"), write(real, tmp_path / "real")
    words = ("distance", made, train, "--holdback", "2", "--nearest", tmp_path / "pairs.png")
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    line = out.decode().splitlines()[-1]
    assert line.startswith("nearest of 6 training images by pixels at 32x32 px, median distance: 0.0000 for 2 samples")
    assert " for 2 images held back (least 0." in line
    held_back, rest = real[[0, 4]], real[[1, 2, 3, 5, 6, 7]]
    both = torch.cat([rest, rest.flip(3)]).double()
    distances = [float((both - x.double()).square().mean((1, 2, 3)).sqrt().min()) / 255 for x in held_back]
    found = json.loads(run(*words, "--json", "-f")[1])["nearest"]
    assert found["held_back"]["median"] == pytest.approx(np.mean(distances), rel=1e-5)


@pytest.mark.usefixtures("backbones")
def test_vgg16_features_are_used_where_they_are(tmp_path: Path) -> None:
    real = smooth(3, seed=1)
    train = list_items([write(real, tmp_path / "real")])
    by, network = nearest.description()
    assert by == "VGG16 features"
    seen = features_of(real, network)
    assert seen.shape == (3, 512 * 16)
    assert seen.norm(dim=1).tolist() == pytest.approx([1] * 3, rel=1e-5)
    samples = read_images("real", train[1:], 32)
    found = find_nearest("real", samples, None, train, network)
    assert found.samples.numbers.tolist() == [1, 2]
    assert found.samples.distances.tolist() == pytest.approx([0, 0], abs=1e-5)


def test_many_pairs_are_the_nearest_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "PAIRS", 2)
    real = smooth(4, seed=1)
    train = list_items([write(real, tmp_path / "real")])
    samples = ImageSet(torch.stack([smooth(1)[0], real[2], real[0] // 2 * 2]), train[:3], [])
    found = find_nearest("real", samples, None, train, Pixels())
    picture = pairs_picture(samples.images, found)
    assert picture.shape == (3, 2 * 96 + 2, 192)
    assert torch.equal(picture[:, :96:3, :96:3], real[2])
    (tmp_path / "broken.png").write_text("Dear Sir\n")
    broken = list_items([tmp_path / "broken.png"])
    with pytest.raises(ImageError, match="real: none of its 1 images can be read"):
        find_nearest("real", samples, None, broken, Pixels())


def test_help_names_all_distances(run: Run) -> None:
    code, out, _ = run("distance", "--help")
    assert code == 0
    text = "".join(out.decode().split("--metrics LIST")[-1].split())  # lines end behind hyphens
    assert all(name in text for name in DISTANCES)
