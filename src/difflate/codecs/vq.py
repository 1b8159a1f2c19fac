"""The model-based codec (Scribano et al. 2023): patches of Y, Cr and Cb as the indices of their nearest codewords.

    encode   pixels ─ `CodebookModel.to_latent` ─▶ indices ─ `IndexCoder.write` ─▶ section "indices"
    decode   pixels ◀─ `LookUp.restore` ─ indices ◀─ `IndexCoder.read` ─ section "indices"

The look-up may be followed by a refiner. What is between is `difflate.codecs.learned`.
"""

from pathlib import Path
from typing import Self

from difflate import registry
from difflate.codecs.indices import IndexCodec
from difflate.models.codebooks import CodebookModel


class VqCodec(IndexCodec):
    """Pictures to .dfl files and back, with a `CodebookModel`."""

    space: CodebookModel

    def __init__(self, model: CodebookModel):
        super().__init__(model.name, registry.KINDS["vq"], model, model.context, model.neutral)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The codec of a model's folder. Raises ModelError if a file is missing, or altered since it was written."""
        return cls(CodebookModel.load(folder))
