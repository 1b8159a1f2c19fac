"""What stands between an encoder and a decoder: features to what files hold, and to the latent that decoders see.

A bottleneck is finite (indices of values or codewords) or counts in steps (numbers that are rounded, as those of a
transform coder). All work on features (B, C, h, w) of any encoder.
"""

from difflate.models.bottlenecks.base import Bottleneck, Passed
from difflate.models.bottlenecks.config import BOTTLENECKS, BottleneckConfig

__all__ = ["BOTTLENECKS", "Bottleneck", "BottleneckConfig", "Passed"]
