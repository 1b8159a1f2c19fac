"""The weights of a model's folder: the types that they are stored in, and reading them.

A float tensor is stored as float32, float16 or bfloat16, or in 8 bits with a scale per output channel:

    W[i, …] = scale[i] · q[i, …],   q integers from -127 to 127,   scale[i] = max |W[i, …]| / 127

as the int8 tensor NAME, of the shape of W, and the float32 tensor NAME.scale, (rows,). config.json then has
``"format": "int8"``. Models are loaded to float32 whatever they are stored in.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from difflate.errors import ConfigError, ModelError
from difflate.store.config import CONFIG

FORMAT, INT8 = "format", "int8"
"""Key of config.json, and its value for weights in 8 bits; without the key weights are floats."""
SCALE = ".scale"
"""End of the name of the scales; no tensor of a module is called so, for a tensor holds no others."""
_SAVED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int8": torch.int8}
_LEAST_NUMBERS = 1 << 12
"""Smaller tensors stay as they are: all of them together are about a percent of a model."""
_MAX_ERROR = 0.02
"""Largest rms error of a tensor in 8 bits, relative to its mean absolute value, in which outliers count little.
Of 194 trained tensors 191 have .005 to .0197. Above were basis images with small learned margins: in 8 bits they cost
.04 dB at 36 dB, all others together .01 (measured)."""
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
    mean absolute value; else, if it fits them, in float16. What is smaller stays as it is.
    """
    packed = {}
    for name, value in state.items():
        if dtype is None or not value.is_floating_point():
            packed[name] = value
        elif dtype != torch.int8:
            packed[name] = value.to(dtype)
        elif value.numel() < _LEAST_NUMBERS:
            packed[name] = value
        elif value.ndim > 1 and _error(value, dequantize_rows(*quantize_rows(value))) <= _MAX_ERROR:
            packed[name], packed[name + SCALE] = quantize_rows(value)
        elif _error(value, value.half()) <= _MAX_ERROR_16:
            packed[name] = value.half()
        else:
            packed[name] = value
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is loaded of the tensors that `pack` gives."""
    scales = {name + SCALE for name in packed if name + SCALE in packed}
    return {
        name: dequantize_rows(value, packed[name + SCALE]) if name + SCALE in scales else value
        for name, value in packed.items()
        if name not in scales
    }


def quantize_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """(int8 of the shape of ``values``, float32 scales (rows,)) of ``values: (rows, …)`` floats.

    What was loaded from 8 bits gives the same integers and scales again.
    """
    rows = values.detach().float().flatten(1)
    # rounded to 17 binary digits: 127 · scale is then exact in float32, so that quantizing twice is quantizing once
    scales = (((rows.abs().amax(1) / 127).view(torch.int32) + 0x40) & ~0x7F).view(torch.float32)
    steps = rows / scales.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    return steps.round().clamp(-127, 127).to(torch.int8).reshape(values.shape), scales


def dequantize_rows(integers: Tensor, scales: Tensor) -> Tensor:
    """Float32 of the shape of ``integers: (rows, …)``, with ``scales: (rows,)``."""
    return (integers.flatten(1) * scales[:, None]).reshape(integers.shape)


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
    others. Raises ModelError if there are none, SafetensorError if they are damaged.
    """
    paths = weight_files(folder)
    if not paths:
        raise ModelError(f"{folder}: model.safetensors is missing; get the model folder again")
    found: dict[str, Stored] = {}
    for path in paths:
        with safe_open(str(path), "pt") as file:
            for name in file.keys():  # noqa: SIM118
                head = file.get_slice(name)
                found[name] = Stored(path, head.get_dtype(), tuple(head.get_shape()))
    return found


def count_numbers(stored: Mapping[str, Stored]) -> int:
    """How many numbers ``stored`` are."""
    return sum(math.prod(tensor.shape) for tensor in stored.values())


def load_weights(
    module: nn.Module, folder: Path, format: str | None, stored_here: Callable[[str], bool] = lambda name: True
) -> None:
    """Puts the folder's weights into ``module``, after names, shapes and types have been compared.

    ``format``: that of config.json. ``stored_here``: whether a tensor of that name is in the folder. Raises ModelError
    if weights are missing or do not fit, SafetensorError if they are damaged.
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
        if stored_here(name):
            expected[name] = tuple(value.shape), value.is_floating_point()
            if name in in_8_bits:
                expected[name + SCALE] = tuple(value.shape)[:1], True
    found = {name: (tensor.shape, "F" in tensor.dtype or name in in_8_bits) for name, tensor in stored.items()}
    if found != expected:
        wrong = min(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise ModelError(f"{folder}: the weights do not fit {CONFIG} ({wrong}); get the folder again")
    scales = _read(stored, [name + SCALE for name in in_8_bits])
    for name, value in scales.items():
        if not bool((value.isfinite() & (value >= 0)).all()):
            raise ModelError(f"{folder}: {name} must be finite and not below 0; get the folder again")
    for path in weight_files(folder):
        names = [name for name, tensor in stored.items() if tensor.file == path and name not in scales]
        tensors = _read(stored, names)
        for name in in_8_bits.intersection(names):
            tensors[name] = dequantize_rows(tensors[name], scales[name + SCALE])
        module.load_state_dict(tensors, strict=False)


def differs(module: nn.Module, folder: Path) -> str | None:
    """A tensor of ``module`` that is not, rounded as the folder's is, the folder's own; None: all are.

    Raises as `stored_tensors`.
    """
    stored = stored_tensors(folder)
    saved = _read(stored, list(stored))
    for name, value in module.state_dict().items():
        if name not in saved:
            return name
        if name + SCALE in saved:
            ours = dict(zip((name, name + SCALE), quantize_rows(value.cpu()), strict=True))
        else:
            ours = {name: value.cpu().to(saved[name].dtype)}
        if not all(torch.equal(tensor, saved[key]) for key, tensor in ours.items()):
            return name
    return None


def _read(stored: Mapping[str, Stored], names: list[str]) -> dict[str, Tensor]:
    tensors = {}
    for path in {stored[name].file for name in names}:
        with safe_open(str(path), "pt") as file:
            tensors |= {name: file.get_tensor(name) for name in names if stored[name].file == path}
    return tensors
