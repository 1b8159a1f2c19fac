"""Rate-distortion runs over real files, and their reports. Nothing heavy is imported until it is used."""

from typing import TYPE_CHECKING

from difflate.extras import import_on_use

if TYPE_CHECKING:
    from difflate.evaluate.records import Record, worst_exit_code
    from difflate.evaluate.run import evaluate, find_images
    from difflate.evaluate.settings import CodecSetting, parse_codecs

__all__ = ["CodecSetting", "Record", "evaluate", "find_images", "parse_codecs", "worst_exit_code"]
__getattr__ = import_on_use(
    __name__,
    {
        "difflate.evaluate.records": ["Record", "worst_exit_code"],
        "difflate.evaluate.run": ["evaluate", "find_images"],
        "difflate.evaluate.settings": ["CodecSetting", "parse_codecs"],
    },
)
