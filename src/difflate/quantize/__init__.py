"""Vector quantizers: vectors (N, n) float32 to codes (N, m) int64 and back."""

from difflate.quantize.ordering import order_along_principal_axis
from difflate.quantize.product import ProductQuantizer
from difflate.quantize.residual import ResidualQuantizer

Quantizer = ProductQuantizer | ResidualQuantizer

__all__ = ["ProductQuantizer", "Quantizer", "ResidualQuantizer", "order_along_principal_axis"]
