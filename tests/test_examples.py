"""The README's and the docstrings' examples run."""

import doctest
import importlib
import subprocess
import sys

import pytest


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
