"""Networks in folders that a model names but does not hold, read when they are first used."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn


class StoredNetwork(ABC):
    """What a model needs of it to be built stands in config.json; building one, as for its cost, reads no weights."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._network: nn.Module | None = None

    @property
    @abstractmethod
    def digest(self) -> str:
        """What tells this model from others."""

    @abstractmethod
    def load(self) -> nn.Module:
        """The network, on the CPU. Raises ModelError."""

    def network(self, device: torch.device) -> Any:
        """The network, in evaluation mode, on ``device``. Raises ModelError."""
        if self._network is None:
            self._network = self.load().requires_grad_(False).eval()
        return self._network.to(device)


def digest_of(paths: Iterable[Path]) -> str:
    """The SHA-256 of the files, one after the other. Raises OSError."""
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                found.update(part)
    return found.hexdigest()
