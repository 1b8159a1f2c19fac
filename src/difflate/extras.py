"""Optional packages: imported when used, with an error that names the extra."""

import importlib
from types import ModuleType

from difflate.errors import ConfigError


def require(module: str, extra: str) -> ModuleType:
    """The imported ``module``. Raises ConfigError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{module} is not installed; run: pip install 'difflate[{extra}]'") from error
