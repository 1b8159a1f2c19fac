"""Imports never go in a circle; `make lint` holds the order of the layers."""

import pytest


def test_no_module_imports_itself_over_others() -> None:
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("difflate", exclude_type_checking_imports=True, cache_dir=None)
    left = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    while ready := {name for name, imports in left.items() if not imports & left.keys()}:
        left = {name: imports for name, imports in left.items() if name not in ready}
    assert not left, f"circles among {sorted(left)}"
