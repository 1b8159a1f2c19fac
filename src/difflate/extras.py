"""What is imported when it is used: optional packages, with an error that names the extra, and names of a package."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from difflate.errors import ConfigError


def require(module: str, extra: str) -> ModuleType:
    """The imported ``module``. Raises ConfigError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{module} is not installed; run: pip install 'difflate[{extra}]'") from error


def import_on_use(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """A ``__getattr__`` for ``package``: the names that ``modules`` define, each imported when it is used."""
    homes = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return get
