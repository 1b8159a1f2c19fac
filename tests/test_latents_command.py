"""The command `difflate latents`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from difflate.cli.main import main
from difflate.data.latents import Latents, read_header, shard_name
from latent_helpers import CODEC, OTHER, hand_made, squares

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """``run(*words) -> (exit code, stdout, stderr)`` of `difflate latents`, in this process."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = main(["latents", *map(str, words)])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def test_the_command_says_what_it_has_done(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    squares(tmp_path / "cats", 5, broken=(3,))
    code, out, err = run("cats", "-o", "shards/", "--shard-images", "2", "--workers", "0")
    assert code == 0
    size = sum(path.stat().st_size for path in (tmp_path / "shards").iterdir())
    said = f"shards/: 4 images (1 cannot be read), {size / 4:.0f} bytes an image and its mirrored one, "
    assert out.startswith(said)
    assert out.endswith(" images/s\n")
    assert "skipped: cats/003.png" in err
    code, out, _ = run("cats", "-o", "plain", "--no-flips", "--codec", OTHER, "--size", "8", "--json")
    found = json.loads(out)
    size = (tmp_path / "plain" / shard_name(0)).stat().st_size
    assert found.pop("seconds") > 0
    assert found.pop("images_per_s") > 0
    assert found == {
        "output": "plain", "codec": OTHER, "flips": False, "images": 4, "skipped": 1, "shards": 1, "image_px": 8,
        "bytes": size, "bytes_per_image": size / 4,
    }  # fmt: skip
    assert len(Latents.open([tmp_path / "shards"])) == 4
    assert Latents.open([tmp_path / "plain"]).header.codec == OTHER


@pytest.mark.parametrize(
    ("code", "words", "message"),
    [
        (
            2,
            ["cats", "--codec", "jpeg"],
            "codec 'jpeg' has no finite latent space of images; choose one that has, such as",
        ),
        (2, ["cats", "--codec", "nothing"], "codec 'nothing' is unknown"),
        (2, ["cats", "--size", "20"], f"20x20 px are not whole patches of 8x8 px, as {CODEC} has them; give --size"),
        (2, ["odd"], "images of 12x12 px are not whole patches"),
        (2, ["none"], "none: no such file or folder"),
        (2, ["cats", "--device", "abacus"], "--device (=abacus) cannot be used"),
        (2, ["cats", "--batch", "0"], "batch (=0) must be at least 1"),
        (3, ["broken"], "broken: none of its 2 images can be read"),
        (6, ["cats", "-o", "there"], f"there/{shard_name(0)}: exists already; use --force"),
        (1, ["cats", "-o", "file"], f"file/{shard_name(0)}: cannot be written ("),
    ],
)
def test_errors_are_one_line(
    run: Run, code: int, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    squares(tmp_path / "cats", 2)
    squares(tmp_path / "odd", 2, side=12)
    squares(tmp_path / "broken", 2, broken=(0, 1))
    hand_made(tmp_path / "there" / shard_name(0), [0])
    (tmp_path / "file").touch()
    ended, out, err = run("-o", "shards", "--workers", "0", *words)
    assert (ended, out) == (code, "")
    assert err.startswith("difflate: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "shards").exists()


def test_force_replaces_shards(run: Run, tmp_path: Path) -> None:
    hand_made(tmp_path / "there" / shard_name(0), [0])
    assert run(squares(tmp_path / "cats", 2), "-o", tmp_path / "there", "-f", "--workers", "0")[0] == 0
    assert read_header(tmp_path / "there").images == 2
