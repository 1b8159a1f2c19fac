"""Files of tensors, packed without loss: what quantized weights have of redundancy is in how often their values occur.

A tensor NAME is stored as the uint8 vector NAME.deflate, (bytes,), a zlib stream (RFC 1950) of its numbers, row by row:
first the lowest byte of each, then the second of each, and so on. The file is a safetensors file like any other; what
the tensors are stands in its metadata, as one JSON object under "deflate":

    {"conv.weight": ["I8", [64, 32, 3, 3]]}

Tensors that it saves little of are stored as they are, under their own names.
"""

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from difflate.errors import ModelError
from difflate.files import atomic_path

END = ".deflate"
"""Of the names of packed tensors; no tensor of a module is called so, for a tensor holds no others."""
_METADATA = "deflate"
_TYPES = {
    "I8": torch.int8, "U8": torch.uint8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_MOST_SIDES = 16
_LEAST_SAVED, _HEAD_BYTES = 0.03, 128
"""Share that packing a tensor must save, and bytes more: about what its entry in the metadata takes."""
_MOST_SAVED = 8
"""Huffman codes have a bit at least: no stream of ours is less than an eighth of its bytes."""


class Head(NamedTuple):
    """What a tensor in a file is, once it is unpacked."""

    dtype: str
    """As safetensors says it: F32, F16, BF16, I8 …"""
    shape: tuple[int, ...]


class TensorFile:
    """A safetensors file that is open, packed or not, with its tensors as they were."""

    def __init__(self, path: Path):
        """Raises SafetensorError, OSError, or ModelError for packed tensors that do not fit what is said of them."""
        self._path = path
        self._file = safe_open(str(path), "pt")
        heads = {}
        for name in self._file.keys():  # noqa: SIM118
            head = self._file.get_slice(name)
            heads[name] = Head(head.get_dtype(), tuple(head.get_shape()))
        packed = self._packed()
        if packed.keys() != {name.removesuffix(END) for name in heads if name.endswith(END)}:
            raise self._wrong("the packed tensors are not those that its metadata name")
        for name, head in packed.items():
            stream = heads.pop(name + END)
            # checked before anything is made of that size
            fits = 1 <= _size_bytes(head) <= _MOST_SAVED * math.prod(stream.shape)
            if stream.dtype != "U8" or len(stream.shape) != 1 or not fits or name in heads:
                raise self._wrong(f"{name} does not fit its metadata")
        self.heads: dict[str, Head] = heads | packed
        """Of each tensor."""
        self._are_packed = packed.keys()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.__exit__(kind, error, trace)

    def read(self, name: str) -> Tensor:
        """The tensor. Raises ModelError if it is packed and damaged."""
        if name not in self._are_packed:
            return self._file.get_tensor(name)
        head, stream = self.heads[name], self._file.get_tensor(name + END)
        size, decompressor = _size_bytes(head), zlib.decompressobj()
        try:
            data = decompressor.decompress(stream.numpy(), size + 1)
        except zlib.error as error:
            raise self._wrong(f"{name}, {error}") from error
        if len(data) != size or not decompressor.eof or decompressor.unused_data:
            raise self._wrong(f"{name} has not the length that it must have")
        dtype = _TYPES[head.dtype]
        items = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1).T.copy()
        return torch.from_numpy(items).view(dtype).reshape(head.shape)

    def _packed(self) -> dict[str, Head]:
        """What the metadata say of packed tensors."""
        text = (self._file.metadata() or {}).get(_METADATA, "{}")
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._wrong("its metadata are no JSON") from error
        if not isinstance(entries, dict) or not all(map(_is_head, entries.values())):
            raise self._wrong("its metadata do not say what the packed tensors are")
        return {name: Head(dtype, tuple(shape)) for name, (dtype, shape) in entries.items()}

    def _wrong(self, what: str) -> ModelError:
        return ModelError(f"{self._path}: damaged ({what}); get the model folder again")


def deflate(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """What is stored of ``tensors``, and the metadata to store with it; None where no tensor is packed."""
    stored, packed = {}, {}
    for name, value in tensors.items():
        stream = _deflated(value) if value.dtype in _NAMES else b""
        if stream and len(stream) + _HEAD_BYTES <= (1 - _LEAST_SAVED) * value.numel() * value.element_size():
            stored[name + END] = torch.frombuffer(stream, dtype=torch.uint8)
            packed[name] = Head(_NAMES[value.dtype], tuple(value.shape))
        else:
            stored[name] = value.contiguous()
    # one key: safetensors writes several in an order that changes, and files with them
    return stored, {_METADATA: json.dumps(packed, sort_keys=True)} if packed else None


def deflate_file(path: Path) -> None:
    """Packs the tensors of a safetensors file, where that saves something."""
    tensors, metadata = deflate(load_tensors(path))
    if metadata:
        with atomic_path(path) as temporary:  # the tensors may be views of the file
            save_file(tensors, temporary, metadata)


def save_arrays(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Writes ``arrays`` as a file of packed tensors, complete or not at all."""
    tensors, metadata = deflate({name: torch.tensor(value) for name, value in arrays.items()})
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, packed or not. Raises as `TensorFile`."""
    with TensorFile(path) as file:
        return {name: file.read(name) for name in file.heads}


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file, packed or not; TypeError for bfloat16. Raises as `TensorFile`."""
    return {name: value.numpy() for name, value in load_tensors(path).items()}


def _deflated(value: Tensor) -> bytearray:
    if not value.numel():
        return bytearray()
    items = value.detach().cpu().contiguous().reshape(-1, 1).view(torch.uint8)
    # quantized weights repeat nothing: a search for repetitions takes longer and finds none
    compressor = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1, zlib.Z_HUFFMAN_ONLY)
    return bytearray(compressor.compress(items.t().contiguous().numpy().data) + compressor.flush())


def _is_head(entry: Any) -> bool:
    """Whether ``entry`` of the metadata is a type and a shape."""
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], list):
        return False
    dtype, shape = entry
    sides = len(shape) <= _MOST_SIDES and all(type(side) is int and 0 < side < 1 << 63 for side in shape)
    return sides and isinstance(dtype, str) and dtype in _TYPES


def _size_bytes(head: Head) -> int:
    return math.prod(head.shape) * _TYPES[head.dtype].itemsize
