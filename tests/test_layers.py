"""Imports never go in a circle, and what needs no tensors imports none."""

import subprocess
import sys

import pytest


def test_no_module_imports_itself_over_others() -> None:
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("difflate", exclude_type_checking_imports=True, cache_dir=None)
    left = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    while ready := {name for name, imports in left.items() if not imports & left.keys()}:
        left = {name: imports for name, imports in left.items() if name not in ready}
    assert not left, f"circles among {sorted(left)}"


def test_bytes_pixels_and_rows_need_no_torch() -> None:
    code = (
        "import sys, pkgutil, importlib, difflate\n"
        "for name in ('media', 'format', 'entropy', 'options', 'registry'):\n"
        "    module = importlib.import_module('difflate.' + name)\n"
        "    for found in pkgutil.iter_modules(getattr(module, '__path__', [])):\n"
        "        importlib.import_module(f'difflate.{name}.{found.name}')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
