"""What tells one model from another."""

import hashlib
from collections.abc import Mapping

import numpy as np


def fingerprint(architecture: str, tensors: Mapping[str, np.ndarray]) -> bytes:
    """(32 bytes) SHA-256 of the architecture string and of each tensor's name, type, shape and little-endian bytes.

    BITSTREAM: files carry the first 4 bytes. Only what the decoded symbols and their meaning depend on goes in.
    """
    digest = hashlib.sha256(architecture.encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        tensor = tensor.astype(tensor.dtype.newbyteorder("<"), copy=False)
        digest.update(f"\0{name} {tensor.dtype.name} {list(tensor.shape)}\0".encode())
        digest.update(tensor.tobytes())
    return digest.digest()
