"""Latents as bits without side information. BITSTREAM: all of it."""

import numpy as np

from difflate.entropy.coder import SymbolReader, SymbolWriter
from difflate.entropy.latent import Latent, channel_index, from_decoder, to_symbols
from difflate.entropy.tables import Tables

_NO_Z = np.empty((0, 0, 0), np.int16)


class FactorizedCoder:
    """Writes and reads latents with a table for each channel (Ballé et al. 2017)."""

    def __init__(self, tables: Tables):
        self.tables = tables
        self.latent_channels = len(tables)

    def exact_tensors(self) -> dict[str, np.ndarray]:
        """The tables, integers."""
        return self.tables.to_tensors("y_tables")

    def encode(self, y: np.ndarray, z: np.ndarray, quality: int, writer: SymbolWriter) -> Latent:
        """Writes ``y: (M, h, w)`` float32, rounded; ``z`` and ``quality`` have no meaning here."""
        q = to_symbols(np.rint(y))
        writer.write(q, self.tables, channel_index(q.shape))
        return Latent(_NO_Z, q)

    def decode(self, height: int, width: int, quality: int, reader: SymbolReader) -> Latent:
        """The latent of h x w = ``height`` x ``width`` sites. Raises DesyncError for symbols that cannot be."""
        shape = (self.latent_channels, height, width)
        q = from_decoder(reader.read(int(np.prod(shape)), self.tables, channel_index(shape))).reshape(shape)
        return Latent(_NO_Z, q)
