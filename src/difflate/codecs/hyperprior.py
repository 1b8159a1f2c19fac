"""Transform coding with a scale hyperprior (Ballé, Minnen, Singh, Hwang, Johnston 2018), in one model for all rates.

    encode   pixels ─ `TransformSpace.analyse` ─▶ y ─ `HyperpriorLatents.write` ─▶ section "latent"
    decode   pixels ◀─ `Synthesis.restore` ─ ŷ ◀─ `HyperpriorLatents.read` ─ section "latent"

The parts are those of `difflate.codecs.transform`; what is between them is `difflate.codecs.learned`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from difflate import registry
from difflate.codecs.learned import largest
from difflate.codecs.transform import TransformCodec, TransformSpace, quality_of
from difflate.entropy.hyperprior import FactorizedCoder, HyperpriorCoder
from difflate.entropy.latent import Latent, Latents
from difflate.format.container import DflFile
from difflate.models.transform_coder import TransformModel
from difflate.nn.tiles import TILE_PX, Watch
from difflate.options import TransformDecoding


class HyperpriorCodec(TransformCodec):
    """Pictures to .dfl files and back, with a `TransformModel` and its entropy model in integers."""

    def __init__(self, name: str, model: TransformModel, exact: HyperpriorCoder | FactorizedCoder | None = None):
        """``exact``: the entropy model; None: what was stored with the networks. Raises ModelError."""
        space = TransformSpace(model)
        defaults = TransformDecoding(tile_px=TILE_PX)
        super().__init__(name, registry.KINDS["hyperprior"], model, space, Synthesis(space), defaults, exact)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The codec of a model's folder. Raises ModelError if a file is missing, or altered since it was written."""
        return cls(folder.name, TransformModel.from_pretrained(folder))


class Synthesis:
    """The image of the transform alone."""

    def __init__(self, space: TransformSpace):
        self.space = space

    def restore(
        self, latents: Sequence[Latent], files: Sequence[DflFile], options: Any, watch: Watch | None = None
    ) -> Tensor:
        """See `difflate.codecs.learned.Restorer`."""
        steps = [quality_of(dict(file.sections)) for file in files]
        return self.space.restore(Latents(latents), *largest(files), steps, options.tile_px)
