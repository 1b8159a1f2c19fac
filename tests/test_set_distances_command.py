"""The command `difflate distance`."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from difflate.cli.main import main
from difflate.data.items import hold_back, list_items
from difflate.metrics import features
from difflate.metrics.features import features_of
from difflate.metrics.frechet import frechet_distance, kernel_distance
from difflate.metrics.sliced import sliced_wasserstein
from distance_helpers import Small, smooth

pytestmark = pytest.mark.usefixtures("one_thread", "few_directions")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run(*words) -> (exit code, stdout, stderr)``, beside the folders ``made`` (6 images) and ``real`` (12)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    write(smooth(6), "made")
    write(smooth(12, 60, 40, seed=1), "real")

    def call(*words: str) -> tuple[int, str, str]:
        try:
            code = main(["distance", *words])
        except SystemExit as exit:
            code = exit.code
        out, err = capfd.readouterr()
        assert isinstance(code, int)
        return code, out, err

    return call


def write(images: Tensor, folder: str) -> None:
    Path(folder).mkdir(exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(f"{folder}/{i:02d}.png")


def scaled(*names: str) -> Tensor:
    """What the command makes of images of 40x60 px."""
    images = [
        Image.open(f"real/{name}.png").resize((32, 32), Image.Resampling.LANCZOS, (0, 10, 40, 50)) for name in names
    ]
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])


def test_the_command_prints_a_table(run: Run) -> None:
    code, out, err = run("made", "real")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "32x32 px, seed 0"
    assert lines[2] == "| set | images | swd 32 px | swd 16 px | swd |"
    assert lines[4].startswith("| samples | 6 / 12 | ")
    assert len(lines) == 5
    same = run("made", "made")[1]
    assert same.splitlines()[4] == "| samples | 6 / 6 | 0.00 | 0.00 | 0.00 |"


def test_json_and_what_is_held_back(run: Run) -> None:
    code, out, err = run("made", "real", "--holdback", "3", "--seed", "5", "--floor", "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert (result["size"], result["seed"]) == (32, 5)
    assert result["samples"] == {"path": "made", "images": 6, "skipped": 0}
    assert result["reference"] == {"path": "real", "images": 3, "skipped": 0}
    reference = scaled("00", "04", "08")
    assert [Path(item.path).stem for item in hold_back(list_items(["real"]), 3)[1]] == ["00", "04", "08"]
    assert result["swd"] == pytest.approx(sliced_wasserstein(smooth(6), reference, seed=5))
    floor = result["floor"]
    assert (floor["images"], floor["skipped"]) == (6, 0)
    # evenly spaced of the nine that are left
    expected = sliced_wasserstein(scaled("01", "02", "05", "06", "09", "10"), reference, seed=5)
    assert floor["swd"] == pytest.approx(expected)


def test_max_images_are_evenly_spaced(run: Run) -> None:
    result = json.loads(run("made", "real", "--max-images", "4", "--floor", "--json")[1])
    assert (result["samples"]["images"], result["reference"]["images"], result["floor"]["images"]) == (4, 4, 4)
    expected = sliced_wasserstein(smooth(6)[[0, 1, 3, 4]], scaled("00", "03", "06", "09"))
    assert result["swd"] == pytest.approx(expected)


def test_unreadable_images_are_counted(run: Run) -> None:
    Path("made/03a.png").write_text("Dear Sir\n")
    Path("made/note.txt").write_text("not looked at\n")
    Path("made/99.png").write_bytes(Path("made/00.png").read_bytes()[:90])
    code, out, err = run("made", "real", "--size", "32", "--json")
    assert code == 0
    assert err == "difflate: made: 2 of 8 images cannot be read and are left out; the first is made/03a.png\n"
    result = json.loads(out)
    assert result["samples"] == {"path": "made", "images": 6, "skipped": 2}
    assert result["swd"] == json.loads(run("made", "real", "--json")[1])["swd"]


def test_fid_and_kid_are_printed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchmetrics")
    monkeypatch.setattr(features, "inception", Small)
    words = ("made", "real", "--metrics", "kid,fid", "--max-images", "6")
    result = json.loads(run(*words, "--floor", "--json")[1])
    assert "swd" not in result
    network, reference = Small(), scaled("00", "02", "04", "06", "08", "10")
    first, second = features_of(smooth(6), network), features_of(reference, network)
    assert result["fid"] == pytest.approx(frechet_distance(first, second))
    assert result["kid"]["mean"] == pytest.approx(kernel_distance(first, second).mean)
    assert set(result["kid"]) == {"mean", "std", "subsets", "subset_images"}
    other = features_of(scaled("01", "03", "05", "07", "09", "11"), network)
    assert result["floor"]["fid"] == pytest.approx(frechet_distance(other, second))
    lines = run(*words)[1].splitlines()
    assert lines[2] == "| set | images | fid | kid |"
    assert f"| {result['fid']:.3f} | {result['kid']['mean']:.5f} ± 0.00000 |" in lines[4]


@pytest.mark.parametrize(
    ("code", "words", "message"),
    [
        (2, ["made"], "the following arguments are required: REFERENCE"),
        (2, ["made", "none"], "none: no such file or folder"),
        (2, ["made", "empty"], "empty: no images in this folder"),
        (
            2,
            ["made", "real", "--metrics", "swd,ssim"],
            "--metrics: 'ssim' is not one of swd, fid, kid, frechet-vgg16, kernel-vgg16",
        ),
        (2, ["made", "real", "--metrics", ""], "--metrics: '' is not one of"),
        (2, ["made", "real", "--holdback", "12"], "holdback (=12) must be below the number of images (=12)"),
        (2, ["made", "real", "--holdback", "0"], "--holdback (=0) must be at least 1"),
        (2, ["made", "real", "--max-images", "0"], "--max-images (=0) must be at least 1"),
        (2, ["made", "real", "--size", "6"], "--size (=6) must be at least 7"),
        (2, ["made", "real", "--seed", "-1"], "--seed (=-1) must be at least 0"),
        (2, ["made", "real", "--floor"], "--floor: no image of real is left over; give --holdback N or --max-images N"),
        (2, ["made", "real", "--device", "abacus"], "--device (=abacus) cannot be used"),
        (2, ["made", "real", "--metrics", "fid"], "weights of the Inception network, which FID and KID need, are not"),
        (2, ["real", "made"], "real: not squares of one size (40x60); give --size"),
        (2, ["mixed", "made"], "mixed: not squares of one size (10x10, 12x12, 14x14, …); give --size"),
        (2, ["tiny", "made"], "tiny: images of 6x6 px are too small; give --size"),
        (3, ["broken", "real"], "broken: none of its 2 images can be read"),
        (3, ["made", "broken"], "broken: none of its 2 images can be read"),
    ],
)
def test_errors_are_one_line(
    run: Run, code: int, words: list[str], message: str, request: pytest.FixtureRequest
) -> None:
    if "fid" in words:
        request.getfixturevalue("weights")
    Path("empty").mkdir()
    for side in (10, 12, 14, 16):
        write(smooth(1, side, side), "one")
        Path("mixed").mkdir(exist_ok=True)
        Path("one/00.png").rename(f"mixed/{side}.png")
    write(smooth(2, 6, 6), "tiny")
    Path("broken").mkdir()
    for name in ("a.png", "b.jpg"):
        Path("broken", name).write_text("Dear Sir\n")
    ended, out, err = run(*words)
    assert (ended, out) == (code, "")
    assert err.startswith("difflate: ")
    assert err.count("\n") == 1
    assert message in err
