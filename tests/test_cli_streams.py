"""Standard input and output of the command line: pipes, a terminal, a full disk, interruption."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli_helpers import Run, files
from difflate.cli import batch


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_standard_input_to_standard_output(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, dfl: bytes) -> None:
    stdin(monkeypatch, (folder / "photo.png").read_bytes())
    assert run("compress", "-") == (0, dfl, "")
    stdin(monkeypatch, dfl)
    code, out, err = run("decompress", "-", "-o", "-", "--format", "webp")
    assert (code, err, out[8:12]) == (0, "", b"WEBP")
    stdin(monkeypatch, dfl)
    assert run("decompress", "-", "-o", "x.png") == (0, b"stdin -> x.png: 40x24 px\n", "")
    stdin(monkeypatch, dfl)
    assert run("decompress", "-", "-o", "new/")[0] == 0
    stdin(monkeypatch, dfl)
    assert run("verify", "-")[1].startswith(b"stdin: verified")
    stdin(monkeypatch, dfl)
    assert json.loads(run("info", "-", "--json")[1])["bytes"] == len(dfl)
    assert files(folder) == ["new/stdin.png", "photo.png", "x.png"]
    stdin(monkeypatch, b"Dear Sir")
    code, out, err = run("decompress", "-")
    assert (code, out) == (3, b"")
    assert err.startswith("difflate: standard input: neither a .dfl")
    assert run("compress", "photo.png", "-o", "-") == (0, dfl, "")


def test_files_are_not_shown_on_a_terminal(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, err = run("compress", "photo.png", "-o", "-", "--codec", "png")
    assert (code, out) == (2, b"")
    assert "terminal" in err


def test_input_without_an_end_is_refused(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_INPUT_BYTES", 3 << 20)
    code, _, err = run("info", "/dev/zero")
    assert code == 5
    assert err.startswith("difflate: /dev/zero: more than 3145728 bytes")


# Processes


def process(*words: str | Path, **options: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "difflate", *map(str, words)]
    streams: dict[str, object] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # tests that a shell runs in the background ignore Ctrl-C, and so would what they start
    streams["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, **(streams | options))  # pyright: ignore[reportCallIssue, reportArgumentType]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(folder: Path, number: int) -> None:
    os.mkfifo("pipe.png")
    with process("compress", "pipe.png", "--codec", "jpeg") as running:
        with open("pipe.png", "wb") as pipe:  # waits until the command opens its input
            pipe.write(b"\x89PNG")
            pipe.flush()
            running.send_signal(number)
        out, err = running.communicate(timeout=120)
    assert (running.returncode, out, err) == (130, b"", b"difflate: interrupted\n")
    assert files(folder) == ["photo.png"]


def test_a_reader_that_goes_away(folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with process("compress", "photo.png", "-o", "-", "--codec", "png", stdout=write) as running:
        os.close(write)
        _, err = running.communicate(timeout=120)
    assert (running.returncode, err) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output() -> None:
    with open("/dev/full", "wb") as full, process("codecs", stdout=full) as running:
        _, err = running.communicate(timeout=120)
    assert running.returncode == 1
    assert err.startswith(b"difflate: standard output: cannot be written (No space")
    assert err.count(b"\n") == 1


def test_closed_standard_output() -> None:
    with process("codecs", preexec_fn=lambda: os.close(1)) as running:
        _, err = running.communicate(timeout=120)
    assert (running.returncode, err) == (0, b"")
