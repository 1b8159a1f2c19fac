import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from difflate.codecs import loading
from difflate.data.items import hold_back, list_items
from difflate.errors import ConfigError, FormatError, ImageError, OutputExists
from difflate.evaluate import CodecSetting, Record, evaluate, find_images, parse_codecs, worst_exit_code
from difflate.evaluate.means import mean_rows
from difflate.evaluate.report import FILES, as_json, write_report
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture
from fake_codecs import Coarse, command, save


class Broken(Coarse):
    def __init__(self, error: Exception) -> None:
        super().__init__("broken", None)
        self.error = error

    def decode(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> Picture:
        raise self.error


CODECS = {
    "jpeg": Coarse("jpeg"),
    "coarse": Coarse(),
    "fixed": Coarse("fixed", None),
    "broken": Broken(FormatError("the file is truncated")),
    "defect": Broken(ZeroDivisionError("by zero")),
}


def load(name: str) -> Coarse:
    if name not in CODECS:
        raise ConfigError(f"no codec is called {name}")
    return CODECS[name]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for i, name in enumerate(("b.png", "a.png")):
        save(tmp_path / "images" / name, i)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    return tmp_path / "images"


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load", load)


def test_settings() -> None:
    assert parse_codecs("coarse:3, fixed,coarse", load) == [
        CodecSetting("coarse", 3.0),
        CodecSetting("fixed", None),
        CodecSetting("coarse", 5.0),  # the default, by its value
    ]
    assert [str(setting) for setting in parse_codecs("jpeg:2..6..2,jpeg:1.5,jpeg:2,fixed", load)] == [
        "jpeg:2",
        "jpeg:4",
        "jpeg:6",
        "jpeg:1.5",
        "fixed",
    ]
    # 0.1 three times is 0.30000000000000004, still the end of the range
    assert [setting.quality for setting in parse_codecs("jpeg:1..1.3..0.1", load)] == [1, 1.1, 1.2, 1.3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "no codec is called nothing"),
        ("", "names no codec"),
        (" , ", "names no codec"),
        ("jpeg:9", "quality 9, jpeg takes 1 to 8"),
        ("jpeg:0.5", "quality 0.5, jpeg takes 1 to 8"),
        ("jpeg:", "needs a number"),
        ("jpeg:high", "needs a number"),
        ("jpeg:nan", "needs a number"),
        ("jpeg:1..2", "needs a number"),
        ("jpeg:3..1..1", "needs a number"),
        ("jpeg:1..8..0", "needs a number"),
        ("jpeg:1..8..1e-9", "needs a number"),
        ("fixed:3", "has one only"),
    ],
)
def test_wrong_settings_are_one_sentence(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_codecs(text, load)
    assert "\n" not in str(caught.value)


def test_images_are_found_by_name_order(images: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "z.png", 9)
    assert [path.name for path in find_images([other, images, other])] == ["z.png", "a.png", "b.png"]
    assert [path.name for path in find_images([images], max_images=1)] == ["a.png"]
    for wrong in ([tmp_path / "none.png"], [images / "missing"], []):
        with pytest.raises(ConfigError):
            find_images(wrong)
    with pytest.raises(ConfigError, match="max_images"):
        find_images([images], max_images=0)
    kept = hold_back(list_items([images]), 1)[1]
    assert [str(path) for path in find_images([images], holdback=1)] == [str(item) for item in kept]
    with pytest.raises(ConfigError, match="holdback"):
        find_images([images], holdback=9)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no image"):
        find_images([tmp_path / "empty"])


def test_records_are_those_of_the_files(images: Path) -> None:
    seen: list[Record] = []
    records = evaluate(find_images([images]), "coarse:8,coarse:3,fixed", load=load, progress=seen.append)
    assert records == seen
    assert [(record.image, record.setting) for record in records] == [
        (image, setting) for image in ("a.png", "b.png") for setting in ("coarse:8", "coarse:3", "fixed")
    ]
    for record in records:
        assert (record.error, record.exit_code) == (None, 0)
        assert (record.width, record.height) == (64, 48)
        assert record.bytes is not None
        assert record.values["bpp"] == 8 * record.bytes / (64 * 48)
        assert (record.values["encode_s"] or 0) > 0
        assert record.values["ms_ssim"] is None  # the images are too small
    assert records[0].values["psnr"] == math.inf
    assert records[0].to_json()["psnr"] is None
    assert records[0].values["ssimulacra2"] == 100
    # the error of dropping 5 bits is uniform in -16…15: mean square (32^2 + 2) / 12
    assert records[1].values["psnr"] == pytest.approx(10 * math.log10(255**2 / 85.5), abs=0.3)


def test_codecs_see_pixels_alone_and_warm_up_once(tmp_path: Path) -> None:
    codec = Coarse()
    paths = [save(tmp_path / name, alpha=True) for name in ("a.png", "b.png")]
    evaluate(paths, [CodecSetting("coarse", 3), CodecSetting("coarse", 4)], load=lambda _: codec)
    assert all(picture.alpha is None and picture.exif is None for picture in codec.seen)
    assert codec.calls == ["encode", "decode"] * (1 + 4)


def test_a_failing_image_does_not_stop_the_others(images: Path) -> None:
    (images / "aa.png").write_bytes(b"not an image")
    records = evaluate(find_images([images]), "broken,fixed", load=load)
    by_key = {(record.image, record.setting): record for record in records}
    assert len(by_key) == len(records) == 6
    assert by_key["a.png", "fixed"].error is None
    assert by_key["b.png", "fixed"].error is None
    assert by_key["a.png", "broken"].error == "the file is truncated"
    assert by_key["aa.png", "fixed"].error
    assert by_key["aa.png", "fixed"].exit_code == ImageError.exit_code
    assert worst_exit_code(records) == FormatError.exit_code
    assert worst_exit_code(record for record in records if not record.error) == 0
    assert [row["images"] for row in mean_rows(records)] == [0, 2]
    assert [row["failed"] for row in mean_rows(records)] == [3, 1]


def test_a_defect_in_a_codec_is_recorded_too(images: Path) -> None:
    records = evaluate(find_images([images]), "defect,fixed", load=load)
    assert records[0].error == "ZeroDivisionError: by zero"
    assert worst_exit_code(records) == 1
    assert records[1].error is None


def test_two_images_of_one_name_are_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"named a\.png"):
        evaluate([images / "a.png", save(tmp_path / "more" / "a.png")], "fixed", load=load)


def test_report(images: Path, tmp_path: Path) -> None:
    (images / "c.png").write_bytes(b"not an image")
    records = evaluate(find_images([images]), "jpeg:1..4..1,coarse:2..6..1,fixed,coarse:8", load=load)
    folder = tmp_path / "report"
    paths = write_report(records, folder, command="difflate eval x")
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)

    def no_constant(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    result = json.loads(paths[0].read_text(), parse_constant=no_constant)
    assert result == json.loads(json.dumps(as_json(records, "difflate eval x")))
    assert len(result["records"]) == len(records) == 3 * 11
    assert result["records"][0]["bytes"] == records[0].bytes
    assert result["protocol"]["command"] == "difflate eval x"
    assert result["protocol"]["versions"]["torch"]
    assert set(result["bd_rate_percent"]) == {"coarse"}
    text = paths[1].read_text()
    assert "| fixed | 2 of 3 |" in text
    assert "| ∞ |" in text  # coarse:8 is lossless
    assert text.count("- c.png: ") == 1  # once, not for each setting
    with Image.open(paths[2]) as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
    with pytest.raises(OutputExists):
        write_report(records, folder)
    write_report(records[:1], folder, force=True)
    assert len(json.loads(paths[0].read_text())["records"]) == 1
    with pytest.raises(ConfigError, match="is a file"):
        write_report(records, paths[0])


@pytest.mark.usefixtures("fake_hub")
def test_eval_command(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, code = command("eval", images, "--codecs", "fixed,jpeg:3", "--out", tmp_path / "report")
    out, err = capsys.readouterr()
    assert code == 0
    assert err == ""
    assert out.count("\n") == 4
    assert (tmp_path / "report" / "results.md").read_text().count(out) == 1
    with pytest.raises(OutputExists):
        command("eval", images, "--codecs", "fixed", "--out", tmp_path / "report")
    (images / "c.png").write_bytes(b"not an image")
    _, code = command("eval", images, "--codecs", "fixed", "--json", "--out", tmp_path / "report", "-f")
    out, err = capsys.readouterr()
    assert code == ImageError.exit_code
    assert err.startswith("difflate: c.png: ")
    assert json.loads(out) == json.loads((tmp_path / "report" / "results.json").read_text())
    _, code = command("eval", images, "--codecs", "fixed", "--max-images", "1")
    assert code == 0


def test_commands_import_the_standard_library_alone() -> None:
    import subprocess

    script = (
        "import sys; before = set(sys.modules); import difflate.cli.eval, difflate.cli.reproduce;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names);"
        "sys.exit(str(new)) if new - {'difflate'} else None"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
