"""The weights of a model's folder: the types that they are stored in, and reading them.

A float tensor is stored as float32, float16 or bfloat16, or in 8 bits with a scale per output channel:

    W[i, …] = scale[i] · q[i, …],   q integers from -127 to 127,   scale[i] = max |W[i, …]| / 127

as the int8 tensor NAME, of the shape of W, and the float32 tensor NAME.scale, (rows,). Where that is too coarse, in 10
bits: q, from -511 to 511, is 4 · NAME + low. The two bits of low, 0 to 3, of four numbers each are a byte of the uint8
tensor NAME.low, (⌈numbers / 4⌉,), those of the first number lowest. config.json then has ``"format": "int8"``, and the
file is packed (`difflate.store.deflated`). Models are loaded to float32 whatever they are stored in.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.errors import ConfigError, ModelError
from difflate.store.config import CONFIG
from difflate.store.deflated import TensorFile

FORMAT, INT8 = "format", "int8"
"""Key of config.json, and its value for weights in 8 bits; without the key weights are floats."""
SCALE, LOW = ".scale", ".low"
"""Ends of the names of the scales and of the low bits; no tensor of a module is called so, for a tensor holds no
others."""
_LOW_BITS = 2
_SAVED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int8": torch.int8}
_LEAST_NUMBERS = 1 << 12
"""Smaller tensors stay as they are: all of them together are about a percent of a model."""
_MAX_ERROR = 0.02
"""Largest rms error of a tensor in 8 bits, relative to its mean absolute value, in which outliers count little.
Of 194 trained tensors 191 have .005 to .0197. Above were basis images with small learned margins: in 8 bits they cost
.04 dB at 36 dB, with a scale for each of their kernels .02, all others together .01 (measured)."""
_MAX_ERROR_16 = 2.0**-10
_FILE = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, from the head of the file."""

    file: Path
    dtype: str
    """As safetensors says it: F32, F16, BF16, I8 …"""
    shape: tuple[int, ...]


def saved_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """The type of ``save_pretrained(dtype=…)``, given as torch's or by its name. Raises ConfigError."""
    known = [*_SAVED, *_SAVED.values(), None]
    if dtype not in known:
        raise ConfigError(f"`dtype` (={dtype}) must be {', '.join(_SAVED)} or None")
    return _SAVED[dtype] if isinstance(dtype, str) else dtype


def pack(state: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The tensors to store of ``state``, floats as ``dtype``; None: as they are.

    torch.int8: matrices and kernels of at least 4096 numbers are in 8 bits if their rms error is at most 2 % of their
    mean absolute value; else in 10 bits, if it is then; else, if it fits them, in float16. What is smaller stays as it
    is.
    """
    packed = {}
    for name, value in state.items():
        if dtype is None or not value.is_floating_point():
            packed[name] = value
        elif dtype != torch.int8:
            packed[name] = value.to(dtype)
        elif value.numel() < _LEAST_NUMBERS:
            packed[name] = value
        elif bits := _bits_for(value):
            packed |= _in_bits(name, value, bits)
        elif _error(value, value.half()) <= _MAX_ERROR_16:
            packed[name] = value.half()
        else:
            packed[name] = value
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is loaded of the tensors that `pack` gives."""
    beside = {name + end for name in packed for end in (SCALE, LOW) if name + SCALE in packed}
    return {
        name: _restored(name, value, packed) if name + SCALE in packed else value
        for name, value in packed.items()
        if name not in beside
    }


def quantize(values: Tensor, bits: int = 8) -> tuple[Tensor, Tensor]:
    """(int16 of the shape of ``values``, float32 scales (rows,)) of ``values: (rows, …)`` floats.

    What was loaded from so many bits gives the same integers and scales again.
    """
    largest, rows = (1 << bits - 1) - 1, values.detach().float().flatten(1)
    # rounded to 25 - bits binary digits: `largest` · scale is then exact in float32, so that quantizing twice is
    # quantizing once
    scales = (rows.abs().amax(1) / largest).view(torch.int32)
    scales = ((scales + (1 << bits - 2)) & ~largest).view(torch.float32)
    steps = rows / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    return steps.round().clamp(-largest, largest).to(torch.int16).reshape(values.shape), scales


def dequantize(integers: Tensor, scales: Tensor) -> Tensor:
    """Float32 of the shape of ``integers: (rows, …)``, with ``scales: (rows,)``."""
    return (integers.flatten(1) * scales[:, None]).reshape(integers.shape)


def _in_bits(name: str, value: Tensor, bits: int) -> dict[str, Tensor]:
    """What is stored of the tensor ``name`` in 8 or 10 bits."""
    integers, scales = quantize(value, bits)
    if bits == 8:
        return {name: integers.to(torch.int8), name + SCALE: scales}
    low = (integers & (1 << _LOW_BITS) - 1).flatten()
    low = F.pad(low, (0, -len(low) % len(_PLACES))).unflatten(0, (-1, len(_PLACES)))
    low = (low << _PLACES).sum(1).to(torch.uint8)
    return {name: (integers >> _LOW_BITS).to(torch.int8), name + SCALE: scales, name + LOW: low}


def _restored(name: str, value: Tensor, beside: Mapping[str, Tensor]) -> Tensor:
    """Float32 of the int8 ``value`` of the tensor ``name``, with what is stored ``beside`` it."""
    if name + LOW in beside:
        low = (beside[name + LOW].short()[:, None] >> _PLACES) & (1 << _LOW_BITS) - 1
        value = (value.short() << _LOW_BITS) + low.flatten()[: value.numel()].reshape(value.shape)
    return dequantize(value, beside[name + SCALE])


_PLACES = torch.arange(0, 8, _LOW_BITS, dtype=torch.int16, device="cpu")
"""Of the low bits of four numbers in a byte."""


def _bits_for(value: Tensor) -> int:
    """8 or 10, what ``value`` is stored in; 0: they would be too coarse."""
    if value.ndim < 2:
        return 0
    errors = {bits: _error(value, dequantize(*quantize(value, bits))) for bits in (8, 8 + _LOW_BITS)}
    # without an error: it was loaded from so many bits, and is stored in them again
    return next((bits for limit in (0.0, _MAX_ERROR) for bits in errors if errors[bits] <= limit), 0)


def _error(values: Tensor, rounded: Tensor) -> float:
    """Rms of what ``rounded`` is wrong by, relative to the mean absolute value; no number, if one is not finite."""
    mean = float(values.float().abs().mean())
    return float((rounded.float() - values).square().mean().sqrt()) / mean if mean else 0.0


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights: model.safetensors or its shards, and no other."""
    return sorted(path for path in folder.glob("model*.safetensors") if _FILE.fullmatch(path.name))


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Each tensor of the folder's weights, from the heads of the files.

    Only `weight_files` are opened, and as safetensors only: the index of shards, a file from anywhere, could name
    others. Raises ModelError if there are none, SafetensorError or ModelError if they are damaged.
    """
    paths = weight_files(folder)
    if not paths:
        raise ModelError(f"{folder}: model.safetensors is missing; get the model folder again")
    return _heads(paths)


def _heads(paths: Sequence[Path]) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    for path in paths:
        with TensorFile(path) as file:
            found |= {name: Stored(path, *head) for name, head in file.heads.items()}
    return found


def count_numbers(folder: Path, beside: Sequence[str] = ()) -> int:
    """How many numbers the folder's weights are, and its files ``beside`` them, where it has them. Raises as
    `stored_tensors`."""
    others = _heads([folder / name for name in beside if (folder / name).is_file()])
    return sum(math.prod(tensor.shape) for tensor in (*stored_tensors(folder).values(), *others.values()))


def load_weights(
    module: nn.Module,
    folder: Path,
    format: str | None,
    stored_here: Callable[[str], bool] = lambda name: True,
    beside: Set[str] = frozenset(),
) -> None:
    """Puts the folder's weights into ``module``, after names, shapes and types have been compared.

    ``format``: that of config.json. ``stored_here``: whether a tensor of that name is in the folder. ``beside``: names
    that may be missing from weights in 8 bits; these tensors of ``module`` are then left as they are. Raises ModelError
    if weights are missing or do not fit, that or SafetensorError if they are damaged.
    """
    if format not in (None, INT8):
        raise ModelError(
            f"{folder / CONFIG}: {FORMAT} (={format}) is unknown to this version; update difflate or get another model"
        )
    stored = stored_tensors(folder)
    in_8_bits = {
        name for name, tensor in stored.items() if format == INT8 and tensor.dtype == "I8" and len(tensor.shape) >= 2
    }
    expected = {}
    for name, value in module.state_dict().items():
        if format == INT8 and name in beside and name not in stored:
            continue
        if stored_here(name):
            expected[name] = tuple(value.shape), value.is_floating_point()
            if name in in_8_bits:
                expected[name + SCALE] = tuple(value.shape)[:1], True
                if name + LOW in stored and stored[name + LOW].dtype == "U8":
                    expected[name + LOW] = (-(-value.numel() * _LOW_BITS // 8),), False
    found = {name: (tensor.shape, "F" in tensor.dtype or name in in_8_bits) for name, tensor in stored.items()}
    if found != expected:
        wrong = min(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise ModelError(f"{folder}: the weights do not fit {CONFIG} ({wrong}); get the folder again")
    beside_them = _read(stored, [name + end for name in in_8_bits for end in (SCALE, LOW) if name + end in stored])
    for name, value in beside_them.items():
        if value.is_floating_point() and not bool((value.isfinite() & (value >= 0)).all()):
            raise ModelError(f"{folder}: {name} must be finite and not below 0; get the folder again")
    for path in weight_files(folder):
        names = [name for name, tensor in stored.items() if tensor.file == path and name not in beside_them]
        tensors = _read(stored, names)
        for name in in_8_bits.intersection(names):
            tensors[name] = _restored(name, tensors[name], beside_them)
        module.load_state_dict(tensors, strict=False)


def differs(module: nn.Module, folder: Path, beside: Set[str] = frozenset()) -> str | None:
    """A tensor of ``module`` that is not, rounded as the folder's is, the folder's own; None: all are.

    ``beside``: names that the folder's weights need not have. Raises as `stored_tensors`.
    """
    stored = stored_tensors(folder)
    saved = _read(stored, list(stored))
    for name, value in module.state_dict().items():
        if name not in saved:
            if name in beside:
                continue
            return name
        if name + SCALE in saved:
            ours = _in_bits(name, value.cpu(), 8 + _LOW_BITS if name + LOW in saved else 8)
        else:
            ours = {name: value.cpu().to(saved[name].dtype)}
        if not all(torch.equal(tensor, saved[key]) for key, tensor in ours.items()):
            return name
    return None


def _read(stored: Mapping[str, Stored], names: list[str]) -> dict[str, Tensor]:
    tensors = {}
    for path in {stored[name].file for name in names}:
        with TensorFile(path) as file:
            tensors |= {name: file.read(name) for name in names if stored[name].file == path}
    return tensors
