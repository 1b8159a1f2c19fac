"""Rate-distortion runs over real files, and their reports. Nothing heavy is imported until it is used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from difflate.evaluate.records import Record, worst_exit_code
    from difflate.evaluate.run import evaluate, find_images
    from difflate.evaluate.settings import CodecSetting, parse_codecs

__all__ = ["CodecSetting", "Record", "evaluate", "find_images", "parse_codecs", "worst_exit_code"]
_MODULES = {
    "CodecSetting": "settings",
    "Record": "records",
    "evaluate": "run",
    "find_images": "run",
    "parse_codecs": "settings",
    "worst_exit_code": "records",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
