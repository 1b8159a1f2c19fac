"""A metric is one row and one function; and pairs are not doubted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difflate.codecs import loading
from difflate.errors import ConfigError, VerificationFailed
from difflate.evaluate import evaluate, measures
from difflate.evaluate.measures import MEASURES, Measure, comparisons
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture
from difflate.metrics import check_pair
from fake_codecs import Coarse, command, save


def mean_absolute_error(reference: Picture, restored: Picture) -> float | None:
    """In steps of 8 bits; None if a side is below 8 px."""
    if min(reference.pixels.shape[1:]) < 8:
        return None
    return float(np.abs(reference.pixels.astype(int) - restored.pixels).mean())


def load_mean_absolute_error() -> Callable[[Picture, Picture], float | None]:
    return mean_absolute_error


ROW = Measure(
    "mae", "MAE", "/255", 2, "mean absolute error over the samples; null: a side below 8 px",
    f"{__name__}:mean_absolute_error", curve=True, lower_is_better=True,
)  # fmt: skip
ASKED_FOR = Measure(
    "mae", "MAE", "/255", 2, "as above", f"{__name__}:load_mean_absolute_error",
    curve=True, lower_is_better=True, optional=True,
)  # fmt: skip


@pytest.mark.parametrize(("row", "words"), [(ROW, []), (ASKED_FOR, ["--mae"])])
def test_a_new_metric_is_one_row(
    row: Measure, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measures, "MEASURES", (*MEASURES, row))
    monkeypatch.setattr(loading, "load", Coarse)
    for i in range(2):
        save(tmp_path / "images" / f"{i}.png", i)
    codecs = ["--codecs", "jpeg:2..6..1,mine:2..6..1"]
    _, code = command("eval", tmp_path / "images", *codecs, "--out", tmp_path / "report", *words)
    out = capsys.readouterr().out
    assert code == 0
    result = json.loads((tmp_path / "report" / "results.json").read_text())
    assert result["records"][0]["mae"] == pytest.approx(16, abs=2)  # of the two bits that are left
    values = [record["mae"] for record in result["records"][:5]]
    assert values == sorted(values, reverse=True)
    assert result["means"][0]["mae"] == pytest.approx((values[0] + result["records"][10]["mae"]) / 2)
    assert result["means"][0]["counts"]["mae"] == 2
    assert result["protocol"]["definitions"]["mae"] == row.definition
    assert result["bd_rate_percent"]["mine"]["mae"] == pytest.approx(0, abs=1e-9)
    assert all(word in result["protocol"]["command"] for word in words)
    assert " MAE /255 |\n" in out.replace("| encode s | decode s | MAE", " MAE")
    assert f"| {result['means'][0]['mae']:.2f} |\n" in out
    assert "| codec | PSNR | SSIM | MS-SSIM | SSIMULACRA2 | MAE |" in out


def test_an_optional_metric_is_left_out_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "MEASURES", (*MEASURES, ASKED_FOR))
    image = save(tmp_path / "a.png")
    without, with_it = (evaluate([image], "x:3", load=Coarse, also=also)[0] for also in ({}, {"mae": None}))
    assert "mae" not in without.values
    assert without.to_json()["mae"] is None
    assert with_it.values["mae"] == pytest.approx(8, abs=1)


@pytest.mark.parametrize(
    ("also", "message"),
    [
        ({"psnr": None}, r"also \(=psnr\) must be one of lpips, dists"),
        ({"lpips": None}, r"lpips \(=None\) must be one of alex, vgg"),
        ({"lpips": "squeeze"}, r"lpips \(=squeeze\) must be one of alex, vgg"),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence(also: dict[str, str | None], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        comparisons(also)


def test_results_keep_their_keys(tmp_path: Path) -> None:
    record = evaluate([save(tmp_path / "a.png")], "x:3", load=Coarse)[0]
    assert list(record.to_json()) == [
        "image", "codec", "quality", "setting", "width", "height", "bytes", "bpp", "psnr", "ssim", "ms_ssim",
        "ssimulacra2", "lpips", "lpips_net", "dists", "encode_s", "decode_s", "error", "exit_code",
    ]  # fmt: skip


class Grey(Coarse):
    """A codec that restores an image in one grey, or half as wide."""

    def decode(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> Picture:
        pixels = super().decode(data, limits=limits).pixels
        if self.name == "narrow":
            return Picture(pixels[:, :, ::2])
        return Picture(np.full((1, *pixels.shape[1:]), 128, np.uint8))


def test_what_a_codec_restores_badly_is_measured(tmp_path: Path) -> None:
    image = tmp_path / "blue.png"
    Image.new("RGB", (64, 48), (0, 0, 255)).save(image)
    record = evaluate([image], "grey:8", load=Grey)[0]
    error = (2 * 128**2 + 127**2) / 3
    assert (record.error, record.values["psnr"]) == (None, pytest.approx(10 * np.log10(255**2 / error)))
    with pytest.raises(VerificationFailed, match="not the same picture"):  # if somebody had paired them by name
        check_pair(image, np.full((48, 64, 3), 128, np.uint8))
    narrow = evaluate([image], "narrow:8", load=Grey)[0]
    assert (narrow.exit_code, "do not belong together" in str(narrow.error)) == (7, True)
