"""Packages that only some tests need, imported when one of these runs: collecting all tests imports none of them."""

from typing import Any

import pytest


class Lazy:
    """A module by its name; a test that asks something of it is skipped where its package is not installed."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # what pytest asks of every name of a test module
            raise AttributeError(attribute)
        return getattr(pytest.importorskip(self._name), attribute)
