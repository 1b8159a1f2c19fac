"""Outputs are complete or not there, whatever happens while they are written."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from difflate.errors import ConfigError, DifflateError, OutputExists
from difflate.files import atomic_path, atomic_write, check_output


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "out.bin"
    atomic_write(path, b"data")
    assert path.read_bytes() == b"data"
    assert names(path.parent) == ["out.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing_new_and_the_old_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.write_bytes(b"old")
    for path in (new, old):
        with pytest.raises(error), atomic_path(path) as temporary:  # noqa: PT012
            temporary.write_bytes(b"half")
            raise error
    assert names(tmp_path) == ["old"]
    assert old.read_bytes() == b"old"


def test_what_exists_is_kept_without_force(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"old")
    with pytest.raises(OutputExists, match="--force"):
        atomic_write(path, b"new", force=False)
    assert path.read_bytes() == b"old"
    atomic_write(path, b"new", force=True)
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["out"]


def test_what_another_process_made_meanwhile_is_kept_without_force(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with pytest.raises(OutputExists), atomic_path(path, force=False) as temporary:  # noqa: PT012
        temporary.write_bytes(b"ours")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs"
    assert names(tmp_path) == ["out"]


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "no hard links")

    monkeypatch.setattr(os, "link", refuse)
    atomic_write(tmp_path / "out", b"data", force=False)
    assert names(tmp_path) == ["out"]


def test_a_new_file_follows_the_umask_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "new", b"1")
        atomic_write(tmp_path / "private", b"1")
        (tmp_path / "private").chmod(0o600)
        atomic_write(tmp_path / "private", b"2")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600


def test_a_symbolic_link_stays_and_what_it_points_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    link, target = tmp_path / "link", tmp_path / "sub" / "target"
    link.symlink_to(target)
    atomic_write(link, b"1", force=False)
    with pytest.raises(OutputExists):
        atomic_write(link, b"2", force=False)
    atomic_write(link, b"3")
    assert link.is_symlink()
    assert target.read_bytes() == b"3"
    assert names(tmp_path / "sub") == ["target"]


def test_what_cannot_be_a_file_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for path, kind, message in (
        (tmp_path, ConfigError, "is a folder"),
        (tmp_path / "pipe", ConfigError, "not a regular file"),
        (Path(os.devnull), ConfigError, "not a regular file"),
        (tmp_path / "file" / "x", DifflateError, "is not a folder"),
        (tmp_path / "file" / "x" / "y", DifflateError, "is not a folder"),
        (tmp_path / "loop", DifflateError, "symbolic links"),
        (tmp_path / ("n" * 300), DifflateError, "too long"),
    ):
        for function in (check_output, lambda p, force: atomic_write(p, b"", force)):
            with pytest.raises(kind, match=message) as caught:
                function(path, True)
            assert str(caught.value).startswith(f"{path}: ")
    assert names(tmp_path) == ["file", "loop", "pipe"]


def test_a_folder_without_permission_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DifflateError, match="no permission to write in"):
        check_output(tmp_path / "new" / "out", False)


def test_a_name_of_full_length_can_be_written(tmp_path: Path) -> None:
    atomic_write(tmp_path / ("n" * 255), b"data")
    assert names(tmp_path) == ["n" * 255]


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_killed_process_leaves_no_half_file(tmp_path: Path, old: bytes | None) -> None:
    path = tmp_path / "out"
    if old is not None:
        path.write_bytes(old)
    script = (
        "import sys, time; from pathlib import Path; from difflate.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half'); print('writing', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert (path.read_bytes() if path.exists() else None) == old
    assert all(name == "out" or name.endswith(".tmp") for name in names(tmp_path))
