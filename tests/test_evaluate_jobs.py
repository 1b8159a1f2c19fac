"""An evaluation by several workers: what they give is what one process does, and one that dies costs one record."""

import functools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from difflate.bulk.workers import Workers
from difflate.cli.main import main
from difflate.evaluate import evaluate
from difflate.evaluate.journal import Journal
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture
from fake_codecs import Coarse, save


class Deadly(Coarse):
    """Ends its process at quality 3 of images of 8 px, until there is a file."""

    def __init__(self, flag: Path):
        super().__init__("deadly")
        self.flag = flag

    def encode(
        self, picture: Picture, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> bytes:
        if quality == 3 and picture.height == 8 and not self.flag.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(picture, quality=quality)


def load(name: str) -> Coarse:
    return Deadly(Path(name.removeprefix("deadly-")))


def test_the_report_of_two_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(2):
        save(Path(f"images/{i}.png"), i)
    Path("images/a.jpg").write_text("Dear Sir")
    for out, words in (("one", ()), ("two", ("--jobs", "2"))):
        assert main(["eval", "images", "--codecs", "jpeg:50,webp:20..60..40", "--out", out, *words]) == 3
    said = capsys.readouterr()
    assert said.err.count("a.jpg: ") == 2  # once in each run
    assert said.out.count("Times of 2 workers at once, with one thread each; those of other runs do not compare.") == 1
    one, two = (json.loads(Path(out, "results.json").read_text()) for out in ("one", "two"))
    assert (one["protocol"]["jobs"], two["protocol"]["jobs"]) == (None, 2)
    assert two["protocol"]["command"].endswith(" --jobs 2")
    assert two["protocol"]["peak_memory_bytes"] > 1e7
    for result in (one, two):
        for part in (*result["means"], *result["records"]):
            del part["encode_s"], part["decode_s"]
    assert one["records"] == two["records"]  # in the same order
    assert one["means"] == two["means"]
    kept = {
        out: {p.relative_to(out): p.read_bytes() for p in Path(out, "images").rglob("*.webp")} for out in ("one", "two")
    }
    assert kept["one"] == kept["two"]
    assert len(kept["one"]) == 2 * 4
    assert not [*Path("two").glob(".difflate*"), *Path("two").glob("records.jsonl")]


def test_a_worker_that_dies_costs_one_record(tmp_path: Path) -> None:
    images = [save(tmp_path / "a.png", 0, 8), save(tmp_path / "b.png", 1, 16)]
    flag = tmp_path / "flag"
    go = functools.partial(evaluate, images, [f"deadly-{flag}:{q}" for q in (3, 4, 5)], load=load)
    journal = Journal(tmp_path / "records.jsonl")
    records = go(workers=Workers(2), journal=journal)
    assert [(record.image, record.quality) for record in records] == [(p.name, q) for p in images for q in (3, 4, 5)]
    assert (records[0].error, records[0].exit_code) == ("2 workers died over it (signal 9); look at it alone", 1)
    assert [record.error for record in records[1:]] == [None] * 5
    assert [record.jobs for record in records] == [2] * 6

    # what was measured is taken over by a run without workers, what failed is tried again
    flag.touch()
    journal, seen = Journal(journal.path), []
    again = go(journal=journal, progress=seen.append)
    assert (journal.kept, journal.reused) == (6, 5)
    assert again[1:] == records[1:]
    assert (again[0].error, again[0].jobs) == (None, None)
    assert seen == [*again[1:], again[0]]


def test_a_picture_that_cannot_be_kept_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("a.png"))
    Path("report").mkdir()
    Path("report/images").touch()
    assert main(["eval", "a.png", "--codecs", "jpeg:50", "--out", "report", "--jobs", "1"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("difflate: report/images/a.png/original.webp: cannot be written (")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--jobs", "0"), "--jobs (=0) must be at least 1"),
        (("--engine", "ray"), "--engine ray needs a folder that all machines see; add --out REPORT"),
    ],
)
def test_what_does_not_go_together(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("difflate.extras.require", lambda *_: None)
    assert main(["eval", str(save(tmp_path / "a.png")), *words]) == 2
    assert capsys.readouterr().err == f"difflate: {said}\n"
