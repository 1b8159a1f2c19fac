"""Workers that are given several inputs at once make of each what they make of it alone."""

import json
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bulk_helpers import Capitals, in_this_process, inputs, load_capitals, members, outcome, shard
from cli_helpers import Run, files, picture
from difflate.bulk import workers
from difflate.bulk.run import run_bulk
from difflate.bulk.shards import convert
from difflate.bulk.workers import Workers
from difflate.errors import ConfigError


def test_a_batch_over_which_a_worker_dies_is_done_one_by_one(tmp_path: Path) -> None:
    low, out, log = tmp_path / "low", tmp_path / "up", tmp_path / "log"
    low.mkdir()
    for name, text in {"a": "abc", "b": "bad", "c": "cde", "x": "xyz", "y": "die", "z": "zzz"}.items():
        (low / f"{name}.low").write_text(text)
    done = [*run_bulk(inputs(low, out), out, load_capitals(log, 3), {}, Workers(2, batch=8))]
    found = outcome(done)
    assert found.pop("b") == f"{low / 'b.low'}: is bad; make it better"
    assert found.pop("y") == f"{low / 'y.low'}: 2 workers died over it (signal 9); look at it alone"
    assert found == dict.fromkeys(("a", "c", "x", "z"), "made")
    assert (out / "c.up").read_text() == "CDE"
    lines = log.read_text().split()
    assert sorted(line for line in lines if "+" in line) == ["a.low+b.low+c.low", "x.low+y.low+z.low"]
    assert [line for line in lines if line[0] in "abc"] == ["a.low+b.low+c.low"]
    assert files(out) == ["a.up", "c.up", "manifest.jsonl", "x.up", "z.up"]
    for wrong in (dict(jobs=0), dict(batch=0)):
        with pytest.raises(ConfigError, match="must be at least 1"):
            Workers(**wrong)


def test_a_shard_in_batches_is_the_same(tmp_path: Path) -> None:
    given = {
        "1.low": "abc", "1.txt": "a caption", "2.low": "bad", "2.up": "kept", "._3.low": "of a Mac", "4.low": "d",
        "4.up": "late", "5.low": 600 * "e", "6.low": "f", "6.txt": "an end",
    }  # fmt: skip
    source, log = shard(tmp_path / "s.tar", given), tmp_path / "log"
    alone = convert(source, tmp_path / "1.tar", Capitals(log))
    log.unlink()
    assert convert(source, tmp_path / "3.tar", Capitals(log, 3)) == alone
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "3.tar").read_bytes()
    assert list(members(tmp_path / "3.tar")) == ["1.up", "1.txt", "2.up", "4.up", "5.up", "6.up", "6.txt"]
    assert [name for name, _ in alone.failed] == ["2.low", "4.up"]
    assert log.read_text().split() == ["load", "1.low+2.low+4.low", "5.low+6.low"]
    source.write_bytes(source.read_bytes()[: 7 * 1024 + 700])  # within 5.low
    done = convert(source, tmp_path / "3.tar", Capitals(log, 3))
    assert done == convert(source, tmp_path / "1.tar", Capitals(log))
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "3.tar").read_bytes()
    assert list(members(tmp_path / "3.tar")) == ["1.up", "1.txt", "2.up", "4.up"]
    assert [name for name, _ in done.failed] == ["2.low", "4.up", "5.low", ""]


def test_a_member_that_kills_its_workers_costs_its_batch_nothing(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "up"
    shard(source / "s.tar", {"1.low": "abc", "2.low": "die", "3.txt": "hi", "3.low": "def", "4.low": "g"})
    done = [*run_bulk(inputs(source, out, ".tar"), out, load_capitals(tmp_path / "log", 3), {}, Workers())]
    assert members(out / "s.tar") == {"1.up": "ABC", "3.txt": "hi", "3.up": "DEF", "4.up": "G"}
    assert done[0].entry.failed == (("2.low", "2.low: 2 workers died over it; look at it alone"),)
    assert files(out) == ["manifest.jsonl", "s.tar"]


def manifest(folder: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return sorted(({**line, "seconds": 0} for line in lines), key=str)


@pytest.mark.parametrize("codec", ["opq-32-8-8", "jpeg"])
def test_the_commands_in_batches_give_the_same_files(
    run: Run, folder: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "in_processes", in_this_process)
    (folder / "in").mkdir()
    for number in range(3):
        picture().resize((48, 40)).rotate(180 * number).save(folder / "in" / f"{number}.png")
    picture().resize((40, 33)).convert("LA").save(folder / "in" / "grey.png")
    (folder / "in" / "bad.png").write_text("Dear Sir")
    for batch in (1, 3):
        out, back = f"small-{batch}", f"back-{batch}"
        code, _, error = run("compress", "in", "-o", out, "--codec", codec, "--jobs", "1", "--batch", f"{batch}")
        assert (code, error.count("\n")) == (3, 1)
        if codec == "opq-32-8-8":
            (folder / out / "bad.dfl").write_text("Dear Sir")
            code, _, error = run("decompress", out, "-o", back, "--jobs", "1", "--batch", f"{batch}")
            assert (code, error.count("\n")) == (3, 1)
            (folder / out / "bad.dfl").unlink()
    for name in files(folder / "small-1"):
        if name != "manifest.jsonl":
            assert (folder / "small-1" / name).read_bytes() == (folder / "small-3" / name).read_bytes()
    assert [*map(str, manifest(folder / "small-1"))] == [*map(str, manifest(folder / "small-3"))]
    if codec == "opq-32-8-8":
        for name in ("0.png", "1.png", "2.png", "grey.png"):
            images = [np.asarray(Image.open(folder / f"back-{batch}" / name)) for batch in (1, 3)]
            assert np.array_equal(*images)


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_batches_that_cannot_be(run: Run, folder: Path, command: str) -> None:
    code, _, error = run(command, "photo.png", "-o", "out", "--batch", "0")
    assert (code, error) == (2, "difflate: --batch (=0) must be at least 1\n")
    code, _, error = run(command, "photo.png", "--batch", "2")
    assert code == 2
    assert "a folder as output" in error


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_batches_on_a_cluster_of_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray.data")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    low, out = tmp_path / "low", tmp_path / "up"
    low.mkdir()
    for name, text in {"a": "abc", "b": "bad", "c": "cde", "x": "xyz", "y": "die", "z": "zzz"}.items():
        (low / f"{name}.low").write_text(text)
    load = load_capitals(tmp_path / "log", 3)
    found = outcome([*run_bulk(inputs(low, out), out, load, {}, Workers(2, "ray", batch=3))])
    assert [found[name] for name in "acxz"] == ["made"] * 4
    assert "2 workers died over it" in found["y"]
    assert "a.low+b.low+c.low" in (tmp_path / "log").read_text().split()


def test_tar_shards_of_a_learned_codec_in_batches(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "in_processes", in_this_process)
    (folder / "tars").mkdir()
    with tarfile.open(folder / "tars" / "a.tar", "w") as tar:
        for name in ("1.png", "2.png", "3.png"):
            tar.add("photo.png", name)
    for batch in ("1", "2"):
        words = ("compress", "tars", "-o", f"coded-{batch}", "--shards", "--codec", "opq-32-8-8", "--batch", batch)
        assert run(*words)[0] == 0
    assert (folder / "coded-1" / "a.tar").read_bytes() == (folder / "coded-2" / "a.tar").read_bytes()
