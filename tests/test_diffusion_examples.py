"""The examples of docs/diffusion.md, of the docstrings and in two dimensions run."""

import ast
import doctest
import importlib.util
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import difflate.diffusion


def test_docstring():
    assert doctest.testmod(difflate.diffusion).failed == 0


def test_docs(pytestconfig, capsys):
    text = (pytestconfig.rootpath / "docs" / "diffusion.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    names = {}
    for block in blocks:
        exec(block, names)
    assert names["images"].shape == (3, 3, 16, 16)
    assert names["indices"].shape == (2, 3, 8, 8)
    assert names["loss"].isfinite()
    assert capsys.readouterr().out.splitlines()[-1] == "20 of 20, t = 0.00"


def test_diffusion_imports_nothing_else_of_difflate():
    """As its files say, those of difflate.errors too; nowhere is anything imported by a name made at run time."""
    root = Path(difflate.__file__).parent
    files = [*(root / "diffusion").glob("*.py"), root / "errors.py"]
    assert len(files) > 5
    named = set()
    for node in itertools.chain.from_iterable(ast.walk(ast.parse(file.read_text("utf-8"))) for file in files):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            named |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "difflate" else {node.module}
            )
        elif isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
    ours = {name for name in named if name.split(".")[0] == "difflate"}
    assert {name for name in ours if not name.startswith("difflate.diffusion")} == {"difflate.errors"}
    assert "importlib" not in named


@pytest.fixture
def one_thread():
    """For work too small to share: threads that wait for each other take longer than one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_the_toy_learns(pytestconfig, tmp_path, capsys):
    script = pytestconfig.rootpath / "examples" / "toy_diffusion.py"
    assert len(script.read_text(encoding="utf-8").splitlines()) < 200
    spec = importlib.util.spec_from_file_location("toy_diffusion", script)
    assert spec is not None
    assert spec.loader is not None
    toy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(toy)
    distances = toy.main(steps=250, n=1000, out=tmp_path / "out" / "toy.png")
    for sampler in ("ddpm, 100", "ddim, 20", "heun, 10 (19)", "dpmpp_2m, 20"):
        assert distances[sampler] < distances["noise"] / 2
    first, last = map(float, re.findall(r"loss ([\d.]+) .* ([\d.]+) in", capsys.readouterr().out)[0])
    assert last < first
    with Image.open(tmp_path / "out" / "toy.png") as picture:
        assert picture.size == (7 * 220, 236)


@pytest.mark.slow
def test_the_toy_as_documented(pytestconfig, tmp_path):
    script = pytestconfig.rootpath / "examples" / "toy_diffusion.py"
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shares = dict(re.findall(r"^(.+?) {2,}[\d.]+ +([\d.]+) %$", done.stdout, re.MULTILINE))
    assert float(shares["noise"]) < 50
    assert float(shares["dpmpp_2m, 20"]) > 80
