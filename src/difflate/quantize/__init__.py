"""Quantizers: vectors (N, n) float32 to codes (N, m) int64 and back, with codebooks or channel by channel."""

from difflate.quantize.binary import BinaryQuantizer
from difflate.quantize.ordering import order_along_principal_axis
from difflate.quantize.product import ProductQuantizer
from difflate.quantize.residual import ResidualQuantizer
from difflate.quantize.scalar import FiniteScalarQuantizer

Quantizer = ProductQuantizer | ResidualQuantizer

__all__ = [
    "BinaryQuantizer", "FiniteScalarQuantizer", "ProductQuantizer", "Quantizer", "ResidualQuantizer",
    "order_along_principal_axis",
]  # fmt: skip
