"""Rate-distortion runs over real files, and their reports."""

from difflate.evaluate.run import CodecSetting, Record, evaluate, find_images, parse_codecs, worst_exit_code

__all__ = ["CodecSetting", "Record", "evaluate", "find_images", "parse_codecs", "worst_exit_code"]
