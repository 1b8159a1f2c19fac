"""Models that were bundled once: the version that had one reads the files that it wrote.

Until version 1 a bundled model may be replaced by a better one of the same name. Imports no torch.
"""

from typing import NamedTuple

from difflate import registry
from difflate.store.hub import bundled_models


class FormerModel(NamedTuple):
    """A model that a version of difflate had, and later ones have not."""

    name: str
    version: str
    """The last that had it."""

    def __str__(self) -> str:
        return f"{self.name} of difflate {self.version}"

    @property
    def error(self) -> str:
        """What is said of a file that it wrote."""
        return (
            f"written with {self}, which later versions have replaced; read it with that version: "
            f"pip install difflate=={self.version}"
        )


FORMER = {
    ("hyperprior", "fb72ec4d"): FormerModel("hyperprior-small", "0.1.0"),
    ("cdc", "fb72ec4d"): FormerModel("cdc-small", "0.1.0"),
    ("diffae-video", "717b22a3"): FormerModel("diffae-video-small", "0.2.0"),
}
"""By kind and model id. A row is written when the model is replaced, and stays."""


def former_model(codec: int, model_id: bytes) -> FormerModel | None:
    """The model of that id (4 bytes), for the codec of that number in files, if it is bundled no more."""
    kind = registry.kind_of_number(codec)
    if any(config.get("fingerprint", "").startswith(model_id.hex()) for config in bundled_models("codec").values()):
        return None
    return None if kind is None else FORMER.get((kind.name, model_id.hex()))
