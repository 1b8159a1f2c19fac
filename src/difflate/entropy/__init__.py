"""Lossless coding of integer symbols; the package's one entrance to a range coder.

`coder` writes and reads whole tensors; `tables` holds integer frequency tables; `context` predicts planes of
codebook indices from what is decoded already. Nothing here imports torch: the exact stage of decoding is numpy only.
"""

from difflate.entropy.coder import SymbolReader, SymbolWriter
from difflate.entropy.context import ContextModel
from difflate.entropy.tables import Tables

__all__ = ["ContextModel", "SymbolReader", "SymbolWriter", "Tables"]
