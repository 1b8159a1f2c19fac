"""The page of a report, its pictures, results.json read again, and CompressAI's result files."""

import base64
import io
import json
import math
import re
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difflate.cli.main import main
from difflate.errors import ConfigError, FormatError, ImageError, VersionError
from difflate.evaluate import Record, evaluate
from difflate.evaluate import embed as embed_module
from difflate.evaluate.compressai import distinct, read_overlay, to_compressai
from difflate.evaluate.embed import embed, nearest, shown_images, target_rates
from difflate.evaluate.html import report_page
from difflate.evaluate.matrix import bd_matrix
from difflate.evaluate.means import Anchor, bd_rates, curves
from difflate.evaluate.pictures import PictureFolder
from difflate.evaluate.report import write_report
from difflate.evaluate.results import read_results
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.clip import Clip, Frame
from difflate.media.picture import Picture
from difflate.media.video import write_clip
from difflate.options import Options
from report_helpers import small_report

HYPERPRIOR = """{
  "name": "bmshj2018-hyperprior-mse",
  "description": "Inference (ans)",
  "results": {
    "psnr-rgb": [27.6, 29.2, 30.97, 32.8], "ms-ssim-rgb": [0.92, 0.94, 0.96, 0.97],
    "bpp": [0.13, 0.21, 0.32, 0.48],
    "encoding_time": [0.03, 0.03, 0.03, 0.03], "decoding_time": [0.02, 0.02, 0.02, 0.02]
  }
}"""
"""As python -m compressai.utils.eval_model prints them."""
PAPER = """{
  "name": "elic2022", "description": "official results",
  "meta": {"source": "paper", "type": "image", "device": null},
  "results": {"psnr": [30.698, 29.113], "bpp": [0.1965, 0.1235]}
}
"""
"""As its files of published numbers are."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record]]:
    folder = tmp_path_factory.mktemp("report")
    return folder / "report", small_report(folder)


def data_of(page: str) -> dict[str, Any]:
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def test_the_page_has_all_numbers_and_asks_for_nothing(made: tuple[Path, list[Record]]) -> None:
    folder, records = made
    page = (folder / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    assert "<link rel" not in page.replace('<link rel="icon" href="data:,">', "")
    assert page.count("</script>") == 2  # though an image's name has one
    data = data_of(page)
    assert [image["name"] for image in data["shown"]] == ["a.png", "b<_script>.png", "c.png"]
    jpeg = next(codec for codec in data["codecs"] if codec["name"] == "jpeg")
    assert [point[1:2] + point[3:] for point in jpeg["curves"]["psnr"]] == [
        [point.bpp, point.value] for point in curves(records)["jpeg"]["psnr"]
    ]
    png = next(row for row in data["settings"] if row["setting"] == "png")
    assert png["lossless"] == 3
    assert png["values"][1] == "inf"
    assert data["protocol"]["command"] == "difflate eval images"
    assert data["bd"]["rates"]["psnr"]["jpeg"]["webp"][0] == bd_rates(records)["webp"]["psnr"]


def test_embedded_pictures_are_those_of_the_files(made: tuple[Path, list[Record]]) -> None:
    folder, records = made
    data = data_of((folder / "report.html").read_text())
    pictures = PictureFolder(folder)
    record = records[0]
    entry = data["shown"][0]["settings"][record.setting]
    assert entry["file"] == "images/a.png/jpeg@20.webp"
    exact = pictures.read(folder / entry["file"]).pixels
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(entry["src"].partition(",")[2])))).transpose(2, 0, 1)
    error = np.mean((exact.astype(float) - shown) ** 2)
    assert 10 * math.log10(255**2 / error) >= data["embedded"]["worst_db"] > 30
    original = pictures.read(pictures.original(record)).pixels
    difference = np.mean((original.astype(float) - exact) ** 2)
    assert 10 * math.log10(255**2 / difference) == pytest.approx(record.values["psnr"])
    assert data["shown"][0]["settings"]["png"]["src"] is None  # the original's serves


def test_a_budget_is_kept_by_crops_where_codecs_differ(
    made: tuple[Path, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, records = made
    pictures = PictureFolder(folder)
    whole = embed(records, ["a.png", "c.png"], pictures)
    assert whole.crops == {"a.png": (0, 0, 120, 96), "c.png": (0, 0, 120, 96)}
    size = sum(map(len, whole.sources.values())) * 3 // 4
    monkeypatch.setattr(embed_module, "BUDGET_BYTES", size // 3)
    monkeypatch.setattr(embed_module, "MIN_SIDE_PX", 16)
    part = embed(records, ["a.png", "c.png"], pictures)
    assert sum(map(len, part.sources.values())) * 3 / 4 <= size // 3
    assert part.quality == embed_module.QUALITIES[-1]
    left, top, width, height = part.crops["a.png"]
    assert 16 <= width < 120
    assert left + width <= 120
    assert top + height <= 96

    pixels = np.zeros((3, 64, 64), np.uint8)
    wrong = pixels.copy()
    wrong[:, 40:56, 16:24] = 99
    left, top, width, height = embed_module._crop(Picture(pixels), [Picture(wrong)], 0.1)
    assert left <= 16
    assert left + width >= 24
    assert top <= 40
    assert top + height >= 56


def test_rates_to_look_at_and_the_settings_nearest_to_them() -> None:
    def record(codec: str, quality: int, bpp: float, psnr: float = 30.0, image: str = "a") -> Record:
        return Record(image, codec, quality, f"{codec}:{quality}", 8, 8, 8, {"bpp": bpp, "psnr": psnr})

    records = [record("x", i, i / 8) for i in range(1, 9)] + [record("png", 1, 24.0, math.inf)]
    assert target_rates(records) == [0.25, 0.5, 0.625, 0.875]
    found = nearest(records, 0.3)
    assert found is not None
    assert found.setting == "x:2"
    assert nearest([], 0.3) is None
    many = [record(codec, 1, 0.5, psnr, f"{i}") for codec, order in (("x", 1), ("y", -1))
            for i, psnr in enumerate(range(40, 30, -1)[::order])]  # fmt: skip
    assert shown_images(many, 4) == ["0", "1", "8", "9"]
    assert len(shown_images(many)) == 10


def test_pictures_have_names_for_every_file_system(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path)
    settings = ("jpeg:5", "owner/name:5", "owner_name:5", "../..", "", "original", "x" * 300, "é", "a:b", "a@b", "a_b")
    paths = [folder.restored(Record("i.png", "c", None, setting, 8, 8)) for setting in settings]
    assert len(set(map(str, paths))) == len(settings)
    assert all(path.parent == tmp_path / "images" / "i.png" for path in paths)
    assert all(len(path.name) < 130 for path in paths)
    assert folder.original(Record("i.png", "c", None, "x", 20000, 1)).name == "original.png"
    for picture in (Picture(np.full((1, 1, 20000), 7, np.uint8)), Picture(np.full((3, 5, 1), 7, np.uint8))):
        record = Record("i.png", "c", None, "x", picture.width, picture.height, 1)
        folder.keep(record, picture, picture)
        assert np.array_equal(folder.read(folder.restored(record)).pixels, picture.pixels)


def test_all_pairs_have_bd_rates_and_their_ranges(made: tuple[Path, list[Record]]) -> None:
    records = made[1]
    matrix = bd_matrix(records)
    there, back = matrix["psnr"]["jpeg"]["webp"], matrix["psnr"]["webp"]["jpeg"]
    assert there.rate is not None
    assert back.rate is not None
    assert (1 + there.rate / 100) * (1 + back.rate / 100) == pytest.approx(1)
    lines = curves(records)
    low = max(min(point.value for point in lines[codec]["psnr"]) for codec in ("jpeg", "webp"))
    high = min(max(point.value for point in lines[codec]["psnr"]) for codec in ("jpeg", "webp"))
    assert (there.low, there.high) == (pytest.approx(low), pytest.approx(high))
    assert there.share is not None
    assert 0 < there.share < 1
    narrow = bd_matrix(records, (), (0.001, 0.002))["psnr"]["jpeg"]["webp"]
    assert (narrow.rate, "in common" in narrow.why) == (None, True)
    assert "png" not in matrix["psnr"]


def test_results_are_read_again(made: tuple[Path, list[Record]]) -> None:
    folder, records = made
    results = read_results(folder)
    assert results.records == records
    assert results.anchor == Anchor()
    pictures = PictureFolder(folder)
    assert report_page(results.records, results.protocol, pictures=pictures) == (folder / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda data: data[:-9], FormatError, "is not complete JSON"),
        (lambda data: b"[]", FormatError, "is no report"),
        (lambda data: data.replace(b'"version": 1,', b'"version": 7,'), VersionError, "has version 7"),
        (lambda data: data.replace(b'"version": 1,', b""), VersionError, "has version 0"),
        (lambda data: data.replace(b'"setting": ', b'"settings": '), FormatError, "is damaged"),
        (lambda data: re.sub(rb'"bytes": (\d)', rb'"bytes": -\1', data), FormatError, "is damaged"),
    ],
)
def test_other_results_are_refused_in_one_line(
    made: tuple[Path, list[Record]], tmp_path: Path, change: Any, error: type[Exception], message: str
) -> None:
    (tmp_path / "results.json").write_bytes(change((made[0] / "results.json").read_bytes()))
    with pytest.raises(error, match=message):
        read_results(tmp_path)
    assert main(["study", str(tmp_path)]) == 3


def test_a_report_that_is_missing_or_has_lost_pictures(made: tuple[Path, list[Record]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_results(tmp_path)
    results = read_results(made[0])
    without = data_of(report_page(results.records, results.protocol, pictures=PictureFolder(tmp_path)))
    assert without["shown"][0]["settings"]["jpeg:20"]["file"] is None
    pictures = PictureFolder(tmp_path)
    for record in results.records:
        for path in (pictures.original(record), pictures.restored(record)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"cut")
    with pytest.raises(ImageError):
        report_page(results.records, results.protocol, pictures=pictures)


class Darker:
    """A codec of clips: its first frames are faithful, the last is one level too dark."""

    name, suffix, quality_range = "darker", ".bin", None
    encoding: type[Options] = Options
    decoding: type[Options] = Options
    clip: Clip

    def encode_clip(
        self, clip: Clip, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> bytes:
        self.clip = clip.loaded()
        return bytes(100)

    def decode_clip(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> Clip:
        *faithful, last = self.clip.frames
        return replace(self.clip, frames=[*faithful, Frame(last.pixels ^ 1, last.time)] if faithful else [last])


def test_a_report_of_clips_has_a_page_and_is_read_again(tmp_path: Path) -> None:
    pytest.importorskip("av")
    for name, frames in (("a.mkv", 4), ("b.mkv", 1)):
        pixels = [np.full((3, 64, 66), 50 + 20 * n, np.uint8) for n in range(frames)]
        clip = Clip(66, 64, 3, Fraction(25), Fraction(1, 25), [Frame(p, n) for n, p in enumerate(pixels)])
        write_clip(clip, tmp_path / name)
    records = evaluate([tmp_path / "a.mkv", tmp_path / "b.mkv"], "darker", load=lambda name: Darker())  # pyright: ignore
    assert [record.error for record in records] == [None, None]
    write_report(records, tmp_path / "report")
    assert read_results(tmp_path / "report").records == records
    data = data_of((tmp_path / "report" / "report.html").read_text())
    assert (data["kind"], data["images"], data["settings"][0]["images"]) == ("clips", 2, 2)
    assert [image["pixels"] for image in data["shown"]] == [4 * 64 * 66, 64 * 66]
    assert main(["study", str(tmp_path / "report")]) == 2  # no frame is kept


# CompressAI's result files


def overlay_file(folder: Path, text: str) -> Path:
    path = folder / "curve.json"
    path.write_text(text)
    return path


def test_result_files_of_compressai_are_read(tmp_path: Path) -> None:
    overlay = read_overlay(overlay_file(tmp_path, HYPERPRIOR))
    assert overlay.name == "bmshj2018-hyperprior-mse"
    assert [(point.bpp, point.value) for point in overlay.points("ms_ssim")] == [
        (0.13, 0.92), (0.21, 0.94), (0.32, 0.96), (0.48, 0.97),
    ]  # fmt: skip
    assert overlay.results["decode_s"] == (0.02,) * 4
    paper = read_overlay(overlay_file(tmp_path, PAPER))
    assert [(point.bpp, point.value) for point in paper.points("psnr")] == [(0.1235, 29.113), (0.1965, 30.698)]
    assert paper.points("ms_ssim") == []
    names = [one.name for one in distinct([overlay, paper, paper], {"elic2022"})]
    assert len(set(names)) == 3
    assert names[0] == overlay.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HYPERPRIOR[:-9], "is not complete JSON"),
        ("[" * 100_000, "is not complete JSON"),
        ("[]", "no results with bpp"),
        ('{"results": {"psnr": [1]}}', "no results with bpp"),
        ('{"results": {"bpp": 1}}', "bpp is no list"),
        ('{"results": {"bpp": []}}', "bpp is no list"),
        ('{"results": {"bpp": [0.1, NaN]}}', "no finite number"),
        ('{"results": {"bpp": [0.1, "x"]}}', "no finite number"),
        ('{"results": {"bpp": [0]}}', "not above 0"),
        ('{"results": {"bpp": [0.1, 0.2], "psnr": [30]}}', "psnr has 1 values but bpp has 2"),
        ('{"results": {"bpp": [0.1], "ms-ssim": [12.5]}}', "in dB are not read"),
    ],
)
def test_other_overlays_are_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = overlay_file(tmp_path, text)
    with pytest.raises(FormatError, match=message) as caught:
        read_overlay(path)
    assert "\n" not in str(caught.value)
    assert main(["eval", str(tmp_path), "--out", str(tmp_path / "report"), "--overlay", str(path)]) == 3


def test_what_is_written_for_compressai_is_read_again(made: tuple[Path, list[Record]], tmp_path: Path) -> None:
    records = made[1]
    content = to_compressai(records, "difflate eval images")
    assert list(content) == ["jpeg", "webp"]  # png restores all images
    assert set(content["jpeg"]) == {"name", "description", "results"}
    results = content["jpeg"]["results"]
    assert {"bpp", "psnr-rgb", "encoding_time", "decoding_time", "ssimulacra2"} <= set(results)
    assert "ms-ssim-rgb" not in results  # the images are too small for it
    assert results["bpp"] == sorted(results["bpp"])
    overlay = read_overlay(overlay_file(tmp_path, json.dumps(content["jpeg"])))
    assert [(point.bpp, point.value) for point in overlay.points("psnr")] == [
        (point.bpp, point.value) for point in curves(records)["jpeg"]["psnr"]
    ]
    cell = bd_matrix(records, distinct([overlay], {"jpeg", "webp", "png"}))["psnr"]["jpeg"]["jpeg (curve.json)"]
    assert cell.rate == pytest.approx(0, abs=1e-9)


def test_the_page_is_made_anew_without_measuring(made: tuple[Path, list[Record]], tmp_path: Path, run: Any) -> None:
    report = shutil.copytree(made[0], tmp_path / "report")
    before, measured = ((report / name).read_bytes() for name in ("report.html", "results.json"))
    assert run("report", report)[0] == 0
    assert (report / "report.html").read_bytes() == before
    assert run("report", report, "--overlay", overlay_file(tmp_path, PAPER))[0] == 0
    data = data_of((report / "report.html").read_text())
    assert [codec["name"] for codec in data["codecs"]] == ["jpeg", "webp", "png", "elic2022"]
    assert (report / "results.json").read_bytes() == measured  # answers to a study belong to it
    before = (report / "report.html").read_bytes()
    for text, message in ((b'"version": 2', "has version 2 of results.json"), (b'"version": 1', None)):
        (report / "results.json").write_bytes(measured.replace(b'"version": 1', text, 1)[: None if message else 900])
        code, _, err = run("report", report)
        assert (code, err.count("\n")) == (3, 1)
        assert (message or "is not complete JSON") in err
        assert (report / "report.html").read_bytes() == before


def test_options_of_the_command(made: tuple[Path, list[Record]], tmp_path: Path, run: Any) -> None:
    images = made[0].parent / "images"
    for flag in (["--no-pictures"], ["--export-compressai"], ["--overlay", overlay_file(tmp_path, PAPER)]):
        code, _, err = run("eval", images, "--codecs", "jpeg:50", *flag)
        assert code == 2
        assert f"{flag[0]} is for the report" in err
    out = tmp_path / "report"
    words = ["--overlay", overlay_file(tmp_path, PAPER), "--export-compressai", "--no-pictures"]
    assert run("eval", images, "--codecs", "jpeg:50,webp:50", "--out", out, *words)[0] == 0
    assert not (out / "images").exists()
    assert read_overlay(out / "compressai" / "jpeg.json").name == "jpeg"
    data = data_of((out / "report.html").read_text())
    assert [codec["name"] for codec in data["codecs"]] == ["jpeg", "webp", "elic2022"]
    assert data["codecs"][2]["file"] == "curve.json"
    assert data["protocol"]["peak_memory_bytes"] > 1e7
    code, _, err = run("study", out)
    assert code == 2
    assert "has no pictures" in err
