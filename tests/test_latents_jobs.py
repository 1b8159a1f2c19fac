"""Shards of latents by several workers: those of one process, and only those that are not there."""

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from bulk_helpers import in_this_process
from difflate.bulk import workers as bulk_workers
from difflate.bulk.latents import latent_shards
from difflate.cli.main import main
from difflate.data.items import list_items
from difflate.data.latent_writer import plan_shards
from difflate.data.latents import Latents, shard_files, shard_name
from latent_helpers import BlockMeans, squares

WORDS = ("--shard-images", "3", "--batch", "2")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other processes."""
    monkeypatch.setattr(bulk_workers, "in_processes", in_this_process)


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``cats/`` of eight squares, of which one is none, in the working folder."""
    monkeypatch.chdir(tmp_path)
    return squares(Path("cats"), 8, broken=(4,))


def shards(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shard_files(Path(folder))}


def go(out: str, *words: str) -> int:
    return main(["latents", "cats", "-o", out, *WORDS, *words])


def kept(capsys: pytest.CaptureFixture[str], *words: str) -> int:
    """How many shards in ``many`` a further run keeps; all are then those of one process."""
    capsys.readouterr()
    assert go("many", "--jobs", "1", "--json", *words) == 0
    assert shards("many") == shards("one")
    return json.loads(capsys.readouterr().out)["kept"]


def test_two_processes_write_the_files_of_one(cats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert go("one", "--workers", "0") == 0
    capsys.readouterr()
    assert go("two", "--jobs", "2") == 0
    both = capsys.readouterr()
    assert shards("one") == shards("two")
    assert both.err.startswith("difflate: skipped: cats/004.png: ")
    assert both.err.count("\n") == 1
    assert both.out.startswith("two: 7 images (1 cannot be read), ")
    assert both.out.endswith(" images/s; 0 of 3 shards kept, 0 failed\n")
    assert sorted(path.name for path in Path("two").iterdir()) == [*shards("one"), "manifest.jsonl"]
    _, *entries = map(json.loads, Path("two/manifest.jsonl").read_text().splitlines())
    (entry,) = (entry for entry in entries if entry["output"] == shard_name(1))  # they come in any order
    assert (entry["source"], entry["images"]) == ("cats/003.png and 2 more", 2)
    assert [name for name, _ in entry["failed"]] == ["cats/004.png"]
    assert len(Latents.open(["two"])) == 7


@pytest.mark.usefixtures("here")
def test_a_second_run_makes_what_is_missing(cats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = Path("many/manifest.jsonl")
    assert go("one", "--workers", "0") == 0
    assert kept(capsys) == 0
    assert kept(capsys) == 3
    Path("many", shard_name(1)).unlink()
    assert kept(capsys) == 2
    Path("many", shard_name(0)).write_bytes(b"cut")
    assert kept(capsys) == 2
    (cats / "000.png").touch()  # an image of the first shard has changed
    assert kept(capsys) == 2
    manifest.write_bytes(manifest.read_bytes()[:-9])
    assert kept(capsys) == 2
    # it was killed between the last shard and its line
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:3]))
    assert kept(capsys) == 1

    squares(cats, 5)  # the broken one can be read now, and there are as many
    assert go("one", "--workers", "0", "-f") == 0
    assert kept(capsys) == 1


@pytest.mark.usefixtures("here")
def test_other_settings_are_refused_without_force(cats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert go("many", "--jobs", "1") == 0
    before = shards("many")
    for words, said in ((("--no-flips",), "flips True, not False"), (("--size", "8"), "image_px 16, not 8")):
        capsys.readouterr()
        assert go("many", "--jobs", "1", *words) == 2
        assert f"made with other settings ({said})" in capsys.readouterr().err
    assert shards("many") == before
    assert go("many", "--jobs", "1", "--shard-images", "8", "-f") == 0
    assert list(shards("many")) == [shard_name(0)]
    # what no manifest knows stays
    Path("many/manifest.jsonl").unlink()
    assert go("many", "--jobs", "1") == 6
    assert go("many", "--jobs", "1", "--workers", "1") == 2
    assert go("many", "--jobs", "0") == 2


@pytest.mark.usefixtures("here")
def test_if_no_image_can_be_read(cats: Path, capsys: pytest.CaptureFixture[str]) -> None:
    squares(cats, 8, broken=tuple(range(8)))
    assert go("many", "--size", "16", "--jobs", "1") == 3
    assert "cats: none of its 8 images can be read" in capsys.readouterr().err
    assert list(Path("many").iterdir()) == []


def test_what_workers_have_died_over(cats: Path) -> None:
    items, out = list_items([cats]), Path("out")
    out.mkdir()
    space = BlockMeans()
    shard = latent_shards(plan_shards(items, space, sources=[cats], shard_images=8, batch=4), items, out)[0]
    path = out / "0.safetensors"
    died = path.with_suffix(".at")
    # an image is left out, the others stay
    died.write_text("2 2\n2 2\n6 6\n")
    entry = shard.task(0, "0.safetensors", path).perform(space)
    assert load_file(path)["numbers"].tolist() == [0, 1, 3, 5, 6, 7]
    assert (entry.images, entry.error) == (6, None)
    assert entry.failed[0] == ("cats/002.png", "cats/002.png: 2 workers died over it; look at it alone")
    assert not died.exists()
    # the second batch cannot be encoded, whatever is in it
    path.unlink()
    died.write_text("-5 -5\n-5 -5\n")
    entry = shard.task(0, "0.safetensors", path).perform(space)
    assert entry.error == "cats/000.png and 7 more: 2 workers died over it; look at it alone"
    assert not path.exists()
