"""Several inputs on one command line: folders, the names of outputs, and errors that do not stop the rest."""

import json
import os
import shutil
from pathlib import Path

import pytest

import difflate
from cli_helpers import VQ, Run, files, picture


def test_folders_keep_their_shape(run: Run, folder: Path) -> None:
    (folder / "in" / "deep").mkdir(parents=True)
    (folder / "in" / "x.png").mkdir()
    for name in ("a.png", "deep/b c.PNG", "deep/d.jpg"):
        picture().save(folder / "in" / name)
    (folder / "in" / "notes.txt").write_text("no image")
    code, out, err = run("compress", "in", "-o", "small")
    assert (code, err, out.count(b"\n")) == (0, "", 3)
    assert files(folder / "small") == ["a.dfl", "deep/b c.dfl", "deep/d.dfl"]
    assert run("decompress", "small", "-o", "back", "--format", "jpg")[0] == 0
    assert files(folder / "back") == ["a.jpg", "deep/b c.jpg", "deep/d.jpg"]
    assert run("verify", *(folder / "small").rglob("*.dfl"))[0] == 0


def test_a_batch_goes_on_and_ends_with_the_worst_code(run: Run, folder: Path) -> None:
    (folder / "text.txt").write_text("Dear Sir")
    (folder / "empty").mkdir()
    code, out, err = run("compress", "missing.png", "text.txt", "empty", "photo.png", "-o", "out", "--codec", "jpeg")
    assert code == 3
    assert out.startswith(b"photo.png -> out/photo.jpg: ")
    lines = err.splitlines()
    assert [line.split(":")[1] for line in lines] == [" missing.png", " text.txt", " empty"]
    code, out, err = run("verify", "--quick", "photo.png", "missing.dfl")
    assert (code, out, err.count("\n")) == (3, b"", 2)


def test_an_unforeseen_error_does_not_stop_a_batch(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save("b.png")

    opened = difflate.open_image("photo.png")
    outcomes = iter([ZeroDivisionError("division by zero"), opened])

    def sometimes(*_: object, **__: object) -> object:
        if isinstance(outcome := next(outcomes), Exception):
            raise outcome
        return outcome

    monkeypatch.setattr("difflate.media.picture.open_image", sometimes)
    code, out, err = run("compress", "photo.png", "b.png", "--codec", "jpeg")
    assert (code, files(folder)) == (1, ["b.jpg", "b.png", "photo.png"])
    assert out.startswith(b"b.png -> b.jpg")
    assert err == "difflate: unexpected ZeroDivisionError: division by zero; run again with --verbose for details\n"


def test_two_inputs_of_one_output(run: Run, folder: Path) -> None:
    picture().save("photo.jpg")
    code, out, err = run("compress", "photo.png", "photo.jpg", "./photo.png", "--codec", "webp", "-f")
    assert (code, out.count(b"\n")) == (2, 1)
    assert err.splitlines() == [
        f"difflate: {name}: photo.webp is already made from photo.png; name another with -o"
        for name in ("photo.jpg", "photo.png")
    ]


@pytest.mark.parametrize("output", ["new/", "old", "old/"])
def test_an_output_folder_for_one_input(run: Run, folder: Path, output: str) -> None:
    (folder / "old").mkdir()
    assert run("compress", "photo.png", "-o", output, "--codec", "jpeg")[0] == 0
    assert files(folder) == sorted(["photo.png", f"{output.rstrip('/')}/photo.jpg"])


def test_links_and_odd_names(run: Run, folder: Path) -> None:
    odd = os.fsdecode(b"odd \xff.png")
    shutil.copy("photo.png", odd)
    (folder / "link.png").symlink_to("photo.png")
    code, out, err = run("compress", odd, "link.png", "--codec", "jpeg")
    assert (code, err) == (0, "")
    assert out.startswith(b"odd \\udcff.png -> odd \\udcff.jpg: ")
    assert {os.fsdecode(b"odd \xff.jpg"), "link.jpg"} <= set(files(folder))
    code, _, err = run("compress", "link.png", "--codec", "png", "-o", "photo.png", "--force")
    assert code == 2
    assert "the output would be the input itself" in err


def test_force_overwrites_and_nothing_else_does(run: Run, folder: Path, dfl: bytes) -> None:
    (folder / "photo.dfl").write_bytes(b"old")
    assert run("compress", "photo.png")[0] == 6
    assert (folder / "photo.dfl").read_bytes() == b"old"
    assert run("compress", "photo.png", "-f")[0] == 0
    assert (folder / "photo.dfl").read_bytes() == dfl


def test_a_folder_of_another_codecs_files_is_restored_and_hidden_files_are_not(run: Run, folder: Path) -> None:
    (folder / "album").mkdir()
    (folder / "photo.png").rename(folder / "album" / "a.png")
    assert run("compress", "album/", "--codec", "avif", "-o", "small/")[0] == 0
    (folder / "small" / "._a.avif").write_bytes(b"of a Mac")
    code, _, error = run("decompress", "small/", "-o", "restored/")
    assert code == 0, error
    assert files(folder / "restored") == ["a.png"]
    assert run("compress", "album/", "--codec", VQ, "-o", "small/")[0] == 0
    assert run("decompress", "small/", "-o", "again/")[0] == 0
    assert files(folder / "again") == ["a.png"]  # of the .dfl alone


def test_info_and_verify_take_several_files_and_folders(run: Run, folder: Path, dfl: bytes) -> None:
    (folder / "packed" / "deep").mkdir(parents=True)
    for name in ("a.dfl", "deep/b.dfl"):
        (folder / "packed" / name).write_bytes(dfl)
    (folder / "bad.dfl").write_bytes(dfl[:-1])
    code, out, _ = run("verify", "packed/")
    assert (code, out.count(b"verified")) == (0, 2)
    shown = json.loads(run("info", "packed/", "--json")[1])["files"]
    assert [row["file"] for row in shown] == ["packed/a.dfl", "packed/deep/b.dfl"]
    assert shown[0]["settings"] == {"quality": 50.0, "steps": 1, "gamma": 1.0, "seed": 0}
    code, out, error = run("info", "packed/a.dfl", "bad.dfl")
    assert code == 3
    assert b"settings  quality 50.0, steps 1, gamma 1.0, seed 0" in out
    assert "bad.dfl: the file ends too early" in error
    (folder / "empty").mkdir()
    assert run("info", "empty/")[0] == 2


def test_a_rate_that_is_out_of_reach_and_what_an_image_loses_is_said(run: Run, folder: Path) -> None:
    frames = [picture(), picture("L").convert("RGB")]
    frames[0].save("two.gif", save_all=True, append_images=frames[1:])
    code, out, error = run("compress", "two.gif", "--codec", "hyperprior-small", "--bpp", "30")
    assert code == 0
    assert b"the most that hyperprior-small gives" in out
    assert error.startswith("difflate: two.gif: ")
    assert "frame" in error
