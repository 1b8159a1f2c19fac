"""An evaluation that is interrupted, and how far one says it is."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from difflate.cli import eval as eval_command
from difflate.cli.main import main
from difflate.codecs import loading
from difflate.evaluate import journal as journal_module
from difflate.evaluate.journal import Journal, model_digest
from difflate.evaluate.records import Record
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture
from fake_codecs import Coarse, command, save


class Interrupted(Coarse):
    """Raises KeyboardInterrupt at the n-th call of ``decode``."""

    stop_at: int | None = None

    def decode(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> Picture:
        if self.calls.count("decode") + 1 == self.stop_at:
            raise KeyboardInterrupt
        return super().decode(data, limits=limits)


@pytest.fixture
def codec(monkeypatch: pytest.MonkeyPatch) -> Interrupted:
    codec = Interrupted("coarse")
    monkeypatch.setattr(loading, "load", lambda name: codec)
    monkeypatch.setattr("difflate.evaluate.report.rate_distortion_png", lambda records: b"not drawn here")
    monkeypatch.setattr("difflate.evaluate.html.report_page", lambda *_, **__: "not made here")
    return codec


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command of 3 images and 2 settings, of which one is lossless."""
    monkeypatch.chdir(tmp_path)
    for i in range(3):
        save(tmp_path / "images" / f"{i}.png", i)
    return ["eval", "images", "--codecs", "coarse:4,coarse:8", "--out", "report"]


def interrupt(codec: Interrupted, words: list[str]) -> list[str]:
    """Runs the command until its fifth record; the lines that it kept."""
    codec.stop_at = 1 + 5  # once to warm up
    assert main(words) == 130
    codec.stop_at = None
    codec.calls.clear()
    assert not Path("report/results.json").exists()
    return Path("report/records.jsonl").read_text().splitlines()


def results() -> dict:
    assert sorted(path.name for path in Path("report").iterdir()) == [
        "images",
        "rate_distortion.png",
        "report.html",
        "results.json",
        "results.md",
    ]
    return json.loads(Path("report/results.json").read_text())


def test_an_interrupted_run_goes_on(codec: Interrupted, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = interrupt(codec, words)
    assert [(json.loads(line)["image"], json.loads(line)["setting"]) for line in lines] == [
        ("0.png", "coarse:4"), ("0.png", "coarse:8"), ("1.png", "coarse:4"), ("1.png", "coarse:8"),
    ]  # fmt: skip
    err = capsys.readouterr().err
    assert "report/records.jsonl has what was measured; the same command without --force goes on from there" in err
    assert err.endswith("difflate: interrupted\n")
    assert main(words) == 0
    assert codec.calls == ["encode", "decode"] * (1 + 2)
    assert capsys.readouterr().err == "difflate: 4 of 6 were measured before the interruption\n"
    gone_on = results()
    kept = [{key: json.loads(line)["values"][key] for key in ("encode_s", "bpp")} for line in lines]
    assert [{key: record[key] for key in ("encode_s", "bpp")} for record in gone_on["records"][:4]] == kept
    assert main([*words, "--force"]) == 0
    whole = results()
    for result in (gone_on, whole):
        for part in (*result["means"], *result["records"]):
            del part["encode_s"], part["decode_s"]
    assert gone_on == whole
    assert [row["lossless"] for row in whole["means"]] == [0, 3]


def test_force_starts_anew(codec: Interrupted, words: list[str]) -> None:
    interrupt(codec, words)
    assert main([*words, "--force"]) == 0
    assert codec.calls == ["encode", "decode"] * (1 + 6)


def test_a_run_that_replaces_a_report_goes_on_without_force(codec: Interrupted, words: list[str]) -> None:
    assert main(words) == 0
    assert main(words) == 6
    codec.calls.clear()
    codec.stop_at = 1 + 5
    assert main([*words, "--force"]) == 130
    codec.stop_at = None
    codec.calls.clear()
    assert main(words) == 0
    assert codec.calls == ["encode", "decode"] * (1 + 2)
    assert len(results()["records"]) == 6


def other_image(words: list[str], patch: pytest.MonkeyPatch) -> list[str]:
    save(Path("images/0.png"), 7)
    return words


def other_model(words: list[str], patch: pytest.MonkeyPatch) -> list[str]:
    patch.setattr("difflate.evaluate.run.model_digest", lambda name: "other")
    return words


def other_version(words: list[str], patch: pytest.MonkeyPatch) -> list[str]:
    patch.setattr("difflate.evaluate.run.versions", lambda: {"torch": "9"})
    return words


def another_setting(words: list[str], patch: pytest.MonkeyPatch) -> list[str]:
    return [word.replace("coarse:8", "coarse:7") for word in words]


def another_measure(words: list[str], patch: pytest.MonkeyPatch) -> list[str]:
    patch.setattr("difflate.metrics.dists.dists_with", lambda: lambda reference, restored: 0.5)
    return [*words, "--dists"]


def no_pictures(words: list[str], patch: pytest.MonkeyPatch) -> list[str]:
    return [*words, "--no-pictures"]


@pytest.mark.parametrize(
    ("change", "measured"),
    [
        (other_image, 4), (other_model, 6), (other_version, 6), (another_setting, 4), (another_measure, 6),
        (no_pictures, 6),
    ],
)  # fmt: skip
def test_what_has_changed_is_measured_again(
    change: Callable, measured: int, codec: Interrupted, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(codec, words)
    assert main(change(words, monkeypatch)) == 0
    assert codec.calls == ["encode", "decode"] * (1 + measured)
    records = results()["records"]
    assert len(records) == 6
    # in all records or in none: no mean of some of the images
    assert {record["dists"] for record in records} == {0.5 if change is another_measure else None}


def test_a_model_is_known_by_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    save_file({"a": torch.zeros(3)}, folder / "model.safetensors")
    first = model_digest(str(folder))
    assert len(first) == 64
    assert model_digest(f"{folder}+steps=1") == first
    (folder / "README.md").write_text("a card")
    assert model_digest(str(folder)) == first
    save_file({"a": torch.ones(3)}, folder / "model.safetensors")
    assert model_digest(str(folder)) != first
    assert model_digest("jpeg") == ""
    assert len(model_digest("cdc-small+steps=1")) == 64


def test_lines_are_complete_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "records.jsonl"
    journal = Journal(path)
    records = [
        Record(f"{i}.png", "x", None, "x", 3, 4, 5, {"psnr": np.inf, "ssim": None, "bpp": 0.1}) for i in range(3)
    ]
    for record in records[:2]:
        journal.add(record.image, record)
    journal.add("failed", Record("0.png", "x", None, "x", error="too large", exit_code=5))
    path.write_bytes(path.read_bytes()[:-9])  # killed while it wrote the second
    journal = Journal(path)
    assert (journal.record("0.png"), journal.record("1.png"), journal.record("failed")) == (records[0], None, None)
    journal.add("2.png", records[2])
    for line in path.read_text().splitlines():
        assert json.loads(line, parse_constant=pytest.fail)["width"] == 3
    path.write_bytes(b'\xff\n[]\n{"key": "a"}\n7\n' + path.read_bytes())
    journal = Journal(path)
    assert (journal.kept, journal.record("0.png"), journal.record("2.png")) == (2, records[0], records[2])


def test_a_full_disk_ends_the_run(
    codec: Interrupted, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_module.os, "fsync", full)
    assert main([*words, "--no-pictures"]) == 1
    err = capsys.readouterr().err
    assert err == "difflate: report/records.jsonl: cannot be written (No space left on device); choose another folder\n"
    assert main(words) == 1
    err = capsys.readouterr().err
    said = "report/images/0.png/original.webp: cannot be written (No space left on device); choose another output"
    assert err == f"difflate: {said}\n"


# How far it is


def test_without_a_terminal_lines_say_how_far_it_is(
    codec: Interrupted, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    said, codec.stop_at = threading.Event(), None
    decode = codec.decode

    def say(text: str) -> None:
        lines.append(text)
        said.set()

    def wait(data: bytes, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> Picture:
        said.clear()
        assert said.wait(20)  # a line comes while a codec is at work
        return decode(data, limits=limits)

    monkeypatch.setattr(eval_command, "INTERVAL_S", 1e-3)
    monkeypatch.setattr(eval_command, "_say", say)
    monkeypatch.setattr(codec, "decode", wait)
    command(*words[:-2])
    assert lines[0] == "0 of 6 measured"
    assert any(line.startswith("3 of 6 measured, ") and line.endswith(" s left") for line in lines)


def test_the_time_left_is_that_of_what_is_measured(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "records.jsonl")
    progress = eval_command.Progress(100, journal)
    progress.done, journal.reused = 40, 40
    assert progress.line(5) == "40 of 100 measured"
    progress.done = 50
    assert progress.line(30) == "50 of 100 measured, 2 min left"
    assert progress.line(12) == "50 of 100 measured, 60 s left"
    assert progress.line(3600) == "50 of 100 measured, 5.0 h left"
