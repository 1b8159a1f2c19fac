"""Many files: workers that die, runs that go on where another ended, manifests that are damaged, shards."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from bulk_helpers import (
    Capitals,
    Faulty,
    in_this_process,
    inputs,
    load_capitals,
    load_none,
    load_nothing,
    load_once,
    members,
    outcome,
    shard,
)
from cli_helpers import Run, files, picture
from difflate.bulk import workers as bulk_workers
from difflate.bulk.manifest import Manifest
from difflate.bulk.run import Done, run_bulk
from difflate.bulk.shards import convert
from difflate.bulk.workers import Workers
from difflate.errors import ConfigError, DifflateError, FormatError, OutputExists

SETTINGS = {"command": "capitals", "level": 1}
ONE = Workers(1)


@pytest.fixture
def low(tmp_path: Path) -> Path:
    """A folder of three inputs."""
    folder = tmp_path / "low"
    folder.mkdir()
    for name in ("abcd", "efgh", "ij"):
        (folder / f"{name}.low").write_text(name)
    return folder


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other processes."""
    monkeypatch.setattr(bulk_workers, "in_processes", in_this_process)


def go(low: Path, workers: Workers = ONE, settings: dict[str, object] = SETTINGS, force: bool = False) -> list[Done]:
    out = low.parent / "up"
    return [*run_bulk(inputs(low, out), out, load_capitals(low.parent / "log"), settings, workers, force=force)]


def logged(low: Path) -> list[str]:
    """What was loaded and made since it was last asked for."""
    path = low.parent / "log"
    lines = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def test_processes_of_which_some_die(low: Path) -> None:
    (low / "once.low").write_text(f"die once {low.parent / 'flag'}")
    (low / "poison.low").write_text("die")
    (low / "wrong.low").write_text("bad")
    done = go(low, Workers(2))
    found = outcome(done)
    assert [found.pop(name) for name in ("abcd", "efgh", "ij", "once")] == ["made"] * 4
    assert found == {
        "poison": f"{low / 'poison.low'}: 2 workers died over it (signal 9); look at it alone",
        "wrong": f"{low / 'wrong.low'}: is bad; make it better",
    }
    assert files(low.parent / "up") == ["abcd.up", "efgh.up", "ij.up", "manifest.jsonl", "once.up"]
    assert (low.parent / "up" / "ij.up").read_text() == "IJ"
    assert logged(low).count("load") <= 2 + 3  # once for each process, of which three had to be replaced
    by_name = {Path(each.entry.source).stem: each.entry for each in done}
    assert (by_name["ij"].width, by_name["ij"].height, by_name["ij"].notes) == (2, 2, ("it is short",))
    assert max(each.entry.code for each in done) == 3


def test_a_worker_that_cannot_begin(low: Path, tmp_path: Path) -> None:
    out = tmp_path / "up"
    with pytest.raises(DifflateError, match=r"died while it began \(exit code 3\)"):
        list(run_bulk(inputs(low, out), out, load_nothing, SETTINGS, ONE))
    with pytest.raises(ConfigError, match="jobs"):
        Workers(0)
    assert files(out) == ["manifest.jsonl"]


def test_one_of_two_workers_cannot_begin(low: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out, load = tmp_path / "up", load_once(tmp_path / "flag", tmp_path / "log")
    done = [*run_bulk(inputs(low, out), out, load, SETTINGS, Workers(2))]
    assert set(outcome(done).values()) == {"made"}
    assert caplog.messages == ["a worker died while it began (exit code 3); 1 goes on"]


def test_an_error_that_is_no_answer_ends_all(tmp_path: Path) -> None:
    tasks = [Faulty(0), Faulty(1)]
    with pytest.raises(DifflateError, match="unexpected Awkward: 1 2"):
        list(Workers(2).perform(tasks, load_none, tmp_path))


@pytest.mark.usefixtures("here")
def test_a_second_run_makes_what_is_missing_and_checks_what_is_there(low: Path) -> None:
    out = low.parent / "up"
    (low / "wrong.low").write_text("bad")
    assert set(outcome(go(low)).values()) == {"made", f"{low / 'wrong.low'}: is bad; make it better"}
    logged(low)
    assert list(outcome(go(low)).values())[:3] == ["kept"] * 3
    assert logged(low) == ["load", "wrong.low"]  # what failed is tried again

    (low / "wrong.low").write_text("good")
    (low / "abcd.low").write_text("changed")
    (out / "efgh.up").unlink()
    (out / "ij.up").write_text("iJ")
    assert outcome(go(low)) == dict.fromkeys(("abcd", "efgh", "ij", "wrong"), "made")
    assert [(out / f"{name}.up").read_text() for name in ("abcd", "efgh", "ij")] == ["CHANGED", "EFGH", "IJ"]
    assert set(outcome(go(low)).values()) == {"kept"}
    assert set(outcome(go(low, force=True)).values()) == {"made"}
    assert len((out / "manifest.jsonl").read_text().splitlines()) == 5


@pytest.mark.usefixtures("here")
def test_what_is_there_and_was_not_made_here_stays(low: Path) -> None:
    out = low.parent / "up"
    out.mkdir()
    (out / "abcd.up").write_text("mine")
    for _ in range(2):
        found = outcome(go(low))
        assert found["abcd"].startswith(f"{out / 'abcd.up'}: exists already; use --force")
        assert (out / "abcd.up").read_text() == "mine"
    assert outcome(go(low, force=True))["abcd"] == "made"
    assert (out / "abcd.up").read_text() == "ABCD"


@pytest.mark.usefixtures("here")
def test_a_manifest_that_was_cut(low: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = low.parent / "up" / "manifest.jsonl"
    go(low)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for kept in (len(whole) - 1, len(whole) - 20, len(b"".join(lines[:3])), len(lines[0]), len(lines[0]) - 3, 0):
        path.write_bytes(whole[:kept])
        caplog.clear()
        found = outcome(go(low))
        # the outputs are there without their entries: they are made again and found to be the same
        if kept >= len(lines[0]):
            assert list(found.values()).count("made") == 3 - whole[:kept].count(b"\n") + 1
            assert set(found.values()) <= {"made", "kept"}
        assert bool(caplog.messages) == (not whole[:kept].endswith(b"\n") and kept > 0)
        path.write_bytes(whole)


@pytest.mark.usefixtures("here")
def test_manifests_that_are_refused(low: Path) -> None:
    path = low.parent / "up" / "manifest.jsonl"
    go(low)
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    later = lines[0].replace('"version": 1', '"version": 2')
    for text, error, said in (
        (lines[0] + "{}\n" + lines[1], FormatError, "line 2 is damaged"),
        (lines[0] + lines[1].replace('"width": 4', '"width": "4"') + lines[2], FormatError, "line 2 is damaged"),
        (lines[0] + lines[1][9:] + lines[2], FormatError, "line 2 is damaged"),
        ("[]\n", FormatError, "is no manifest"),
        ("Dear Sir\n", FormatError, "is no manifest"),
        (later, FormatError, "has version 2, not 1"),
    ):
        path.write_text(text)
        with pytest.raises(error, match=said) as caught:
            go(low)
        assert "\n" not in str(caught.value)
        assert path.read_text() == text
    path.write_text(whole)
    with pytest.raises(ConfigError, match=r"other settings \(level 1, not 2\)"):
        go(low, settings={**SETTINGS, "level": 2})
    held = Manifest(path.parent, SETTINGS)
    with pytest.raises(OutputExists, match="another process is writing here"):
        go(low)
    held.close()
    assert set(outcome(go(low)).values()) == {"kept"}
    path.write_text("Dear Sir\n")
    assert set(outcome(go(low, force=True)).values()) == {"made"}


def test_stopped_and_killed_in_the_middle(low: Path) -> None:
    out, script = low.parent / "up", Path(__file__).with_name("bulk_helpers.py")
    (low / "zzz.low").write_text("slow")
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen([sys.executable, str(script), str(low), str(out)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not under_way(low, "zzz.low") or len(list(out.glob("*.up"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        process.wait(10)
        logged(low)
        visible = [name for name in files(out) if not name.startswith(".difflate")]
        assert visible == ["abcd.up", "efgh.up", "ij.up", "manifest.jsonl"]
        if number == signal.SIGINT:
            assert files(out) == visible
    (low / "zzz.low").write_text("fast")
    done = [*run_bulk(inputs(low, out), out, load_capitals(low.parent / "log"), {}, ONE)]
    assert outcome(done) == {"abcd": "kept", "efgh": "kept", "ij": "kept", "zzz": "made"}
    assert files(out) == ["abcd.up", "efgh.up", "ij.up", "manifest.jsonl", "zzz.up"]


def under_way(low: Path, name: str) -> bool:
    log = low.parent / "log"
    return log.exists() and name in log.read_text()


# Shards


def test_a_shard_keeps_names_order_and_what_is_no_image(tmp_path: Path) -> None:
    given = {"a/1.low": "abc", "a/1.txt": "a caption", "a/2.low": "bad", "._3.low": "of a Mac", "1.low": "d"}
    source, target = shard(tmp_path / "s.tar", {**given, "1.up": "e"}), tmp_path / "t.tar"
    done = convert(source, target, Capitals(tmp_path / "log"))
    assert members(target) == {"a/1.up": "ABC", "a/1.txt": "a caption", "1.up": "D"}
    assert done.failed == [
        ("a/2.low", "a/2.low: is bad; make it better"),
        ("1.up", "1.up: there is a 1.up already; give the members different names"),
    ]
    assert (done.images, done.pixels, done.hidden, done.code) == (2, 8, 1, 3)
    whole = target.read_bytes()
    convert(source, target, Capitals(tmp_path / "log"))
    assert target.read_bytes() == whole

    source.write_bytes(source.read_bytes()[: 3 * 1024 + 700])
    done = convert(source, target, Capitals(tmp_path / "log"))
    assert list(members(target)) == ["a/1.up", "a/1.txt"]
    assert done.failed[-1][0] == ""
    assert "is damaged" in done.failed[-1][1]
    source.write_text("Dear Sir")
    with pytest.raises(ConfigError, match="is not an uncompressed tar archive"):
        convert(source, target, Capitals(tmp_path / "log"))


def test_a_member_that_kills_its_workers_costs_no_other(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "up"
    shard(source / "s.tar", {"1.low": "abc", "2.low": "die", "3.low": "def"})
    done = [*run_bulk(inputs(source, out, ".tar"), out, load_capitals(tmp_path / "log"), SETTINGS, ONE)]
    assert members(out / "s.tar") == {"1.up": "ABC", "3.up": "DEF"}
    assert done[0].entry.failed == (("2.low", "2.low: 2 workers died over it; look at it alone"),)
    assert (done[0].entry.error, done[0].entry.code, done[0].entry.images) == (None, 1, 2)
    assert files(out) == ["manifest.jsonl", "s.tar"]
    again = [*run_bulk(inputs(source, out, ".tar"), out, load_capitals(tmp_path / "log"), SETTINGS, ONE)]
    assert [(each.kept, each.entry) for each in again] == [(True, done[0].entry)]


# The command line


def test_the_commands_in_two_processes_give_the_same_files(run: Run, folder: Path) -> None:
    (folder / "in" / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png", "deep/b.bmp"):
        picture().save(folder / "in" / name)
    (folder / "in" / "text.jpg").write_text("Dear Sir")
    words = ("compress", "in", "-o", "small", "--codec", "webp", "--jobs", "2")
    code, out, error = run(*words)
    assert code == 3
    assert out.startswith(b"2 made (")
    assert b", 0 kept, 2 failed; " in out
    assert [line.split(":")[1] for line in sorted(error.splitlines())] == [" in/deep/b.png", " in/text.jpg"]
    code, out, _ = run(*words)
    assert (code, out[:29]) == (3, b"0 made (0 -> 0 bytes), 2 kept")
    assert run("compress", "in", "-o", "plain", "--codec", "webp")[0] == 3
    for name in ("a.webp", "deep/b.webp"):
        assert (folder / "small" / name).read_bytes() == (folder / "plain" / name).read_bytes()
    header = json.loads((folder / "small" / "manifest.jsonl").read_text().splitlines()[0])
    assert (header["command"], header["codec"], header["shards"]) == ("compress", "webp", False)
    code, _, error = run("decompress", "small", "-o", "small", "--jobs", "1")
    assert code == 2
    assert "made with other settings" in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("compress", "photo.png", "--jobs", "2"), "a folder as output"),
        (("compress", "-", "-o", "out", "--jobs", "2"), "need files as inputs"),
        (("compress", "photo.png", "-o", "out", "--jobs", "0"), "--jobs (=0) must be at least 1"),
        (("compress", "photo.png", "-o", "out", "--shards", "--codec", "jpeg"), "photo.png: is no .tar file"),
        (("decompress", "photo.png", "-o", "out", "--jobs", "2", "--format", "zip"), "is no image format"),
        (("compress", "photo.png", "-o", "out", "--codec", "webp", "--device", "cpu"), "webp has no networks"),
    ],
)
def test_what_does_not_go_together(run: Run, folder: Path, words: tuple[str, ...], said: str) -> None:
    code, _, error = run(*words)
    assert code == 2
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_shards_by_a_learned_codec(run: Run, folder: Path) -> None:
    (folder / "tars").mkdir()
    with tarfile.open(folder / "tars" / "a.tar", "w") as tar:
        tar.add("photo.png")
    words = ("compress", "tars", "-o", "coded", "--shards", "--codec", "opq-32-8-8", "--jobs", "1")
    assert run(*words)[0] == 0
    assert run("decompress", "coded", "-o", "back", "--shards")[0] == 0
    assert run("compress", "photo.png", "--codec", "opq-32-8-8")[0] == 0
    with tarfile.open(folder / "coded" / "a.tar") as tar:
        assert tar.extractfile("photo.dfl").read() == (folder / "photo.dfl").read_bytes()  # pyright: ignore
    with tarfile.open(folder / "back" / "a.tar") as tar:
        assert tar.getnames() == ["photo.png"]


# Ray


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_on_a_cluster_of_ray(low: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray.data")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # its workers need the helpers of this file
    (low / "once.low").write_text(f"die once {low.parent / 'flag'}")
    (low / "poison.low").write_text("die")
    (low / "wrong.low").write_text("bad")
    found = outcome(go(low, Workers(2, "ray")))
    assert [found.pop(name) for name in ("abcd", "efgh", "ij", "once")] == ["made"] * 4
    assert list(found) == ["poison", "wrong"]
    assert "2 workers died over it" in found["poison"]
    assert files(low.parent / "up") == ["abcd.up", "efgh.up", "ij.up", "manifest.jsonl", "once.up"]
    assert outcome(go(low, Workers(2, "ray")))["abcd"] == "kept"
    new = low.parent / "new"
    found = outcome([*run_bulk(inputs(low, new)[:1], new, load_nothing, {}, Workers(engine="ray"))])
    assert "2 workers died over it" in found["abcd"]
