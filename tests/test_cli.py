"""The command line: the commands and their help, what they tell, and what they import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli_helpers import VQ, Run, files, picture
from difflate import DEFAULT_CODEC
from difflate.cli.main import build_parser

COMMANDS = (
    "compress", "decompress", "info", "verify", "codecs", "eval", "latents", "train", "sample", "distance", "reproduce"
)  # fmt: skip


def test_the_parser_knows_every_command() -> None:
    parser = build_parser()
    for command in COMMANDS:
        assert parser.parse_args(_least(command)).command == command


def _least(command: str) -> list[str]:
    """The shortest command line that it takes."""
    special = {
        "codecs": [],
        "reproduce": ["table1", "--images", "x"],
        "latents": ["x", "-o", "x/"],
        "sample": ["x", "-o", "x.png"],
        "distance": ["x", "y"],
    }
    return [command, *special.get(command, ["x"])]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"examples:\n  difflate {command}" in out.decode()


def test_inputs_may_stand_behind_options(run: Run, folder: Path) -> None:
    (folder / "b.png").write_bytes((folder / "photo.png").read_bytes())
    code, out, _ = run("compress", "photo.png", "--codec", "jpeg", "-f", "b.png")
    assert (code, len(out.splitlines())) == (0, 2)
    code, out, _ = run("compress", "--codec", "jpeg", "-o", "new/", "--", "photo.png", "b.png")
    assert (code, len(out.splitlines())) == (0, 2)


def test_help_tells_the_exit_codes(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert "130 interrupted" in out.decode()
    assert all(command in out.decode() for command in COMMANDS)


def test_info(run: Run, folder: Path, dfl: bytes) -> None:
    (folder / "x.dfl").write_bytes(dfl)
    code, out, _ = run("info", "x.dfl", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["file"], found["version"], found["bytes"]) == ("x.dfl", "1.0", len(dfl))
    assert (found["width"], found["height"], found["colour"], found["alpha"]) == (40, 24, "rgb", False)
    assert (found["model"], found["bpp"]) == (DEFAULT_CODEC, 8 * len(dfl) / 960)
    assert found["overhead_bytes"] + sum(s["bytes"] for s in found["sections"]) == len(dfl)
    text = run("info", "x.dfl")[1].decode()
    assert f"{len(dfl)} bytes" in text
    assert f"{DEFAULT_CODEC} ({found['model_id']})" in text


def test_codecs(run: Run) -> None:
    code, out, _ = run("codecs", "--json")
    listed = json.loads(out)
    assert code == 0
    assert listed["default"] == DEFAULT_CODEC
    assert {"jpeg", "webp", "avif", "png", "jxl", DEFAULT_CODEC} <= {codec["name"] for codec in listed["codecs"]}
    assert all(codec["about"] and codec["suffix"] for codec in listed["codecs"])
    text = run("codecs")[1].decode()
    assert f"* {DEFAULT_CODEC}" in text
    assert "-q 1 to 100, default 75" in text


def test_eval_writes_a_report(run: Run, folder: Path) -> None:
    for package in ("scipy", "ssimulacra2", "matplotlib"):
        pytest.importorskip(package)
    picture(size=(64, 48)).save("b.png")
    (folder / "bad.png").write_bytes(b"no image")
    words = ["eval", "photo.png", "b.png", "bad.png", "--codecs", f"jpeg:50,{VQ}"]
    code, out, err = run(*words, "--out", "report")
    assert code == 3
    assert err.startswith("difflate: bad.png: this is not an image format")
    assert err.count("\n") == 1
    assert "| jpeg:50 | 2 of 3 |" in out.decode()
    assert files(folder / "report") == [
        *(f"images/{image}/{name}.webp" for image in ("b.png", "photo.png") for name in (VQ, "jpeg@50", "original")),
        "rate_distortion.png", "report.html", "results.json", "results.md",
    ]  # fmt: skip
    report = json.loads((folder / "report" / "results.json").read_text())
    assert len(report["records"]) == 6
    code, out, err = run(*words[:3], *words[4:], "--json")
    assert (code, err) == (0, "")
    assert [row["images"] for row in json.loads(out)["means"]] == [2, 2]
    code, _, err = run(*words, "--out", "report")
    assert (code, err.count("\n")) == (6, 1)


def test_train_dry_run_prints_the_settings(run: Run, folder: Path) -> None:
    pytest.importorskip("jsonargparse")
    (folder / "vq.yaml").write_text("recipe: vq\nout: model\nmethod: pq\n")
    code, out, err = run("train", "vq.yaml", "images=photos", "bits=[16,8,8]", "--dry-run")
    assert (code, err) == (0, "")
    assert "method: pq" in out.decode()
    assert "bits: [16, 8, 8]" in out.decode()
    assert files(folder) == ["photo.png", "vq.yaml"]


@pytest.mark.parametrize(
    ("words", "banned"),
    [
        (["--help"], ["torch", "numpy", "PIL", "tqdm"]),
        (["compress", "--help"], ["torch", "numpy", "PIL", "tqdm"]),
        (["codecs"], ["torch"]),
        (["info", "x.dfl"], ["torch"]),
        (["verify", "--quick", "x.dfl"], ["torch", "numpy", "PIL"]),
        (["compress", "photo.png", "--codec", "jpeg"], ["torch"]),
    ],
)
def test_what_needs_no_model_imports_no_torch(folder: Path, dfl: bytes, words: list[str], banned: list[str]) -> None:
    (folder / "x.dfl").write_bytes(dfl)
    script = (
        "import sys; from difflate.cli.main import main\n"
        "try: code = main(sys.argv[2:])\n"
        "except SystemExit as exit: code = exit.code\n"
        "assert not code, code\n"
        "loaded = set(sys.argv[1].split()) & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", script, " ".join(banned), *words], check=True, stdout=subprocess.PIPE)
