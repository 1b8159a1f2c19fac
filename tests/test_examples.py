"""The README's and the docstrings' examples run."""

import doctest
import importlib
import re
import subprocess
import sys

import pytest
from PIL import Image

from difflate.cli.main import main


@pytest.mark.parametrize("module", ["difflate", "difflate.integrations.pillow"])
def test_docstrings(module, monkeypatch, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_the_demo_runs(pytestconfig, tmp_path):
    script = pytestconfig.rootpath / "examples" / "demo.py"
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[2].split() == ["codec", "bytes", "ratio", "bpp", "PSNR", "dB", "MS-SSIM", "encode", "s", "decode", "s"]
    assert [line.split()[0] for line in lines[3:6]] == ["eopq-32-8-8", "jpeg", "avif"]
    assert (tmp_path / "out" / "demo.png").stat().st_size > 100_000
    assert (tmp_path / "out" / "demo.dfl").stat().st_size == int(lines[3].split()[1])


def test_the_commands_of_the_readme_run(pytestconfig, tmp_path, monkeypatch, capsys):
    """Those that compress and compare, on small pictures; training has tests of its own."""
    root = pytestconfig.rootpath
    commands = re.findall(r"^(?: {4})?difflate (.+?)(?:\s+#.*)?$", (root / "README.md").read_text(), re.MULTILINE)
    wanted = [c.split() for c in commands if "runs/mine" not in c and "configs/" not in c]
    assert {c[0] for c in wanted} == {"compress", "decompress", "info", "verify", "codecs", "eval"}
    monkeypatch.chdir(tmp_path)
    photo = Image.open(root / "examples" / "kodim23.png").crop((150, 100, 350, 290))
    for folder in ("album", "kodak"):
        (tmp_path / folder).mkdir()
        photo.save(tmp_path / folder / "a.png")
    photo.save("photo.jpg", quality=95)
    for arguments in wanted:
        if "--out" in arguments:
            arguments = [*arguments, "--force"]
        assert main(arguments) == 0, (arguments, capsys.readouterr().err)
    for made in ("photo.dfl", "restored.png", "packed/a.dfl", "photo.avif", "report/results.json"):
        assert (tmp_path / made).exists(), made
