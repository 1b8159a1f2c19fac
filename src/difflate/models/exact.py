"""An entropy model in integers, beside the network that it is made from: what files are written and read with."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from difflate.entropy.gaussian import gaussian_tables
from difflate.entropy.hyperprior import FactorizedCoder, HyperpriorCoder, coder_from
from difflate.errors import ModelError
from difflate.nn.entropy_network import HyperpriorNetwork
from difflate.nn.factorized_network import FactorizedNetwork
from difflate.store.config import read_config
from difflate.store.deflated import load_arrays, save_arrays
from difflate.store.fingerprint import fingerprint

EXACT = "exact.safetensors"
"""File in a model's folder: the entropy model in integers."""


class ExactEntropy:
    """The integers of ``entropy``: those that were stored with it, or made anew if it was trained since then."""

    def __init__(self, entropy: HyperpriorNetwork | FactorizedNetwork, architecture: str):
        """``architecture``: part of the fingerprint. BITSTREAM."""
        self.entropy, self.architecture = entropy, architecture
        self._stored: tuple[HyperpriorCoder | FactorizedCoder, bytes] | None = None
        """The integers that were loaded, and the digest of the network beside them."""

    @property
    def coder(self) -> HyperpriorCoder | FactorizedCoder:
        """What writes and reads latents. Raises ModelError for weights out of range."""
        if self._stored is not None and self._stored[1] == self._digest():
            return self._stored[0]
        tables = self.entropy.prior.tables()
        if isinstance(self.entropy, HyperpriorNetwork):
            return HyperpriorCoder(self.entropy.fixed_point(), tables, gaussian_tables())
        return FactorizedCoder(tables)

    def fingerprint_of(self, tensors: dict[str, np.ndarray]) -> bytes:
        """(32 bytes) of the integers of a coder, see `difflate.store.fingerprint`."""
        return fingerprint(self.architecture, tensors)

    @property
    def fingerprint(self) -> bytes:
        """(32 bytes) of `coder`. Raises as that."""
        return self.fingerprint_of(self.coder.exact_tensors())

    def keep(self, source: "ExactEntropy") -> None:
        """Has the integers of ``source``, whose weights it has, until it is trained.

        Made anew they would be others: the weights may have been rounded since, or another machine made them.
        """
        self._stored = source.coder, self._digest()

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes exact.safetensors into a model's folder; gives its entries of config.json."""
        tensors = self.coder.exact_tensors()
        save_arrays(tensors, folder / EXACT)
        return {"fingerprint": self.fingerprint_of(tensors).hex()}

    def load(self, folder: Path) -> None:
        """Reads what `save` has written. Raises ModelError if it is missing, damaged or altered."""
        path = folder / EXACT
        if not path.is_file():
            raise ModelError(f"{folder}: {EXACT} is missing; get the model folder again")
        tensors = load_arrays(path)
        if self.fingerprint_of(tensors).hex() != read_config(folder).get("fingerprint"):
            raise ModelError(f"{folder}: {EXACT} is not what the model was saved with; get the folder again")
        self._stored = coder_from(tensors), self._digest()

    def fill(self) -> None:
        """Makes the network in floating point from the integers that were loaded, where these have its weights.

        Raises ModelError if they are of another network.
        """
        coder = self.coder
        if isinstance(self.entropy, HyperpriorNetwork):
            if not isinstance(coder, HyperpriorCoder):
                raise ModelError(f"{EXACT} does not fit config.json; get the model folder again")
            self.entropy.fill(coder.tensors)
        self._stored = coder, self._digest()

    def _digest(self) -> bytes:
        digest = hashlib.sha256()
        for value in self.entropy.state_dict().values():
            # + 0: an average of -0 with itself is 0
            digest.update((value.detach().cpu().float() + 0.0).numpy().tobytes())
        return digest.digest()
