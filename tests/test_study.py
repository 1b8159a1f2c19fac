"""Pairs of pictures for people to choose from, and the score of what they chose."""

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from difflate.cli.main import main
from difflate.errors import ConfigError, FormatError
from difflate.evaluate import Record
from difflate.evaluate.answers import preferences, read_answers, wilson
from difflate.evaluate.results import read_results
from difflate.evaluate.study import Pairing, pairs
from report_helpers import small_report


def record(image: str, codec: str, quality: int, size: int, psnr: float = 30.0) -> Record:
    return Record(image, codec, quality, f"{codec}:{quality}", 8, 8, size, {"bpp": size / 8, "psnr": psnr})


RECORDS = [
    *(record(image, "x", i, 100 * i) for image in "abc" for i in (1, 2, 3)),
    *(record(image, "y", i, 100 * i + 4) for image in "abc" for i in (1, 2, 3)),
    *(record(image, "z", 1, 190) for image in "ab"),
    record("a", "png", 1, 300, math.inf),
]


def names(found: list[tuple[Record, Record]]) -> set[tuple[str, str, str]]:
    return {(first.image, first.setting, second.setting) for first, second in found}


def test_pairs_are_the_nearest_in_size() -> None:
    found = pairs(RECORDS, Pairing())
    assert names(found) == {(image, "x:3", "y:3") for image in "abc"}  # 304 to 300, nearer than 204 to 200
    found = pairs(RECORDS, Pairing(tolerance=0.1))
    assert {("a", "x:2", "z:1"), ("b", "y:2", "z:1")} <= names(found)
    assert len(found) == 7
    assert all(max(a.bytes, b.bytes) <= 1.1 * min(a.bytes, b.bytes) for a, b in found)  # pyright: ignore
    assert names(pairs(RECORDS, Pairing(bpp_range=(10, 20)))) == {(image, "x:1", "y:1") for image in "abc"}
    assert names(pairs(RECORDS, Pairing(tolerance=0.1, codecs=("y", "z")))) == {
        ("a", "y:2", "z:1"), ("b", "y:2", "z:1"),
    }  # fmt: skip


def test_few_pairs_are_of_all_codecs_in_turn_and_follow_the_seed() -> None:
    few = pairs(RECORDS, Pairing(tolerance=0.1, most=3))
    assert {(a.codec, b.codec) for a, b in few} == {("x", "y"), ("x", "z"), ("y", "z")}
    assert few == pairs(RECORDS, Pairing(tolerance=0.1, most=3))
    assert any(names(few) != names(pairs(RECORDS, Pairing(tolerance=0.1, most=3, seed=seed))) for seed in range(1, 9))


def test_no_pair_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="within 0% of each other's size"):
        pairs(RECORDS, Pairing(tolerance=0))
    with pytest.raises(ConfigError, match=r"\(=w\) is not in the report, which has x, y, z, png"):
        pairs(RECORDS, Pairing(codecs=("w",)))
    for wrong in ({"tolerance": -1}, {"most": 0}, {"bpp_range": (2, 1)}):
        with pytest.raises(ConfigError):
            Pairing(**wrong)


def test_wilson_has_known_values() -> None:
    # R: prop.test(8, 10, correct = FALSE), prop.test(0, 10, correct = FALSE)
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0, 0.2775328), abs=1e-6)
    low, high = wilson(10, 10)
    assert (low, high) == pytest.approx((1 - 0.2775328, 1), abs=1e-6)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    small_report(folder)
    return folder / "report"


def answers(
    report: str, chosen: str = "xxyx", session: str = "s", question: str = "better", **changes: object
) -> dict[str, Any]:
    """Of one image each; x stands on the left of the first, on the right of the second and so on."""
    items = []
    for i, codec in enumerate(chosen):
        sides = {"left": {"codec": "xy"[i % 2]}, "right": {"codec": "yx"[i % 2]}}
        side = "left" if sides["left"]["codec"] == codec else "right"
        items.append({"trial": i, "image": f"{i}.png", **sides, "chosen": side, "ms": 1000 + i})
    data = {"format": "difflate-answers", "version": 1, "report": report, "question": question, "session": session}
    return {**data, "trials": 5, "answers": items, **changes}


def written(path: Path, data: dict[str, Any]) -> Path:
    path.write_text(json.dumps(data))
    return path


def test_a_page_has_what_its_answers_need_and_shows_no_name(report: Path, tmp_path: Path, run: Any) -> None:
    out = tmp_path / "page.html"
    code, text, _ = run("study", report, "--tolerance", "50", "-o", out)
    assert code == 0
    assert b"3 pairs" in text
    page = out.read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["report"] == read_results(report).digest
    assert "jpeg" not in page.replace("image/jpeg", "")
    for trial in data["trials"]:
        hidden = json.loads(base64.b64decode(trial["key"]))
        assert sorted(side["codec"] for side in hidden["sides"]) == ["jpeg", "webp"]
        for side, name in zip(hidden["sides"], trial["pictures"], strict=True):
            source = base64.b64decode(data["sources"][name].partition(",")[2])
            kept = report / "images" / hidden["image"].replace("<", "_") / f"{side['setting'].replace(':', '@')}.webp"
            assert not kept.exists() or kept.read_bytes() == source
        assert trial["original"] is None
    assert run("study", report, "-o", out, "--tolerance", "50")[0] == 6
    assert run("study", report, "-o", out, "--tolerance", "50", "-f", "--original")[0] == 0


def test_preferences_of_several_people(tmp_path: Path, run: Any) -> None:
    first = written(tmp_path / "1.json", answers("r", "xxyx", "1"))
    second = written(tmp_path / "2.json", answers("r", "xxxx", "2"))
    [preference] = preferences([read_answers(first), read_answers(second)])
    assert (preference.codec, preference.against) == ("x", "y")
    assert (preference.chosen, preference.answers, preference.images) == (7, 8, 4)
    assert preference.wilson == pytest.approx(wilson(7, 8))
    assert preference.bootstrap is not None
    low, high = preference.bootstrap
    assert 0.5 <= low < 7 / 8 < high == 1  # an image of four was decided 1 to 1
    code, out, _ = run("study", "--score", first, second)
    assert code == 0
    text = out.decode()
    assert "| x over y | 7 of 8 | 4 | 88 % | 53 to 98 % |" in text
    assert "2 people" in text
    assert "2 pairs not answered" in text
    code, out, _ = run("study", "--score", first, "--json")
    score = json.loads(out)
    assert (score["people"], score["preferences"][0]["chosen"], score["left_share"]) == (1, 3, 0.25)
    assert score["preferences"][0]["share"] == 0.75


def cut(data: dict[str, Any]) -> bytes:
    return json.dumps(data).encode()[:-20]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, "is not complete JSON"),
        (lambda data: b"{}", "is no answers of a study"),
        (lambda data: json.dumps({**data, "version": 2}).encode(), "has version 2 of answers"),
        (lambda data: json.dumps({**data, "answers": []}).encode(), "has no answer"),
        (lambda data: json.dumps({**data, "answers": [{}]}).encode(), "is damaged"),
        (lambda data: json.dumps({**data, "answers": [7]}).encode(), "is damaged"),
        (lambda data: json.dumps({**data, "answers": 2 * data["answers"]}).encode(), "two answers to one pair"),
        (lambda data: json.dumps({**data, "trials": 3}).encode(), "a pair that its study has not"),
        (lambda data: json.dumps({**data, "question": "worse"}).encode(), "a question that is not known"),
        (lambda data: json.dumps({**data, "report": "other"}).encode(), "belongs to another report"),
    ],
)
def test_other_answers_are_refused_in_one_line(
    change: Callable[[dict], bytes], message: str, report: Path, tmp_path: Path, run: Any
) -> None:
    path = tmp_path / "answers.json"
    path.write_bytes(change(answers(read_results(report).digest)))
    code, out, err = run("study", "--score", path, "--report", report)
    assert (code, out) == (3, b"")
    assert message in err
    assert err.count("\n") == 1


def test_answers_that_do_not_go_together(report: Path, tmp_path: Path, run: Any) -> None:
    first = written(tmp_path / "1.json", answers("r", session="1"))
    assert run("study", "--score", first)[0] == 0
    code, _, err = run("study", "--score", first, written(tmp_path / "2.json", answers("other", session="2")))
    assert (code, "belongs to another report than" in err) == (3, True)
    code, _, err = run("study", "--score", first, first)
    assert (code, "again" in err) == (2, True)
    other = written(tmp_path / "3.json", answers("r", session="3", question="closer"))
    code, _, err = run("study", "--score", first, other)
    assert (code, "another question" in err) == (2, True)
    assert run("study", "--score", tmp_path / "none.json")[0] == 2
    with pytest.raises(FormatError):
        read_answers(report / "results.json")


@pytest.mark.parametrize(
    "words", [[], ["--json"], ["--report", "r"], ["report", "--score", "a"], ["--score", "a", "--original"]]
)
def test_wrong_options(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", *words]) == 2
