"""A model as a folder: config.json, model.safetensors, README.md."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from difflate.codecs.base import Codec
from difflate.codecs.cdc import CdcCodec
from difflate.codecs.hyperprior import HyperpriorCodec
from difflate.codecs.vq import VqCodec
from difflate.entropy import ContextModel
from difflate.errors import ModelError
from difflate.files import atomic_path, atomic_write
from difflate.models.diffusion_decoder import DiffusionDecoder
from difflate.models.refiner import Refiner
from difflate.models.transform_coder import TransformModel
from difflate.quantize import ProductQuantizer, Quantizer, ResidualQuantizer
from difflate.store import config as config_json
from difflate.store.config import CARD, CONFIG

WEIGHTS = "model.safetensors"


def read_config(folder: Path) -> dict[str, Any]:
    """The checked config.json of a model folder. Raises ModelError."""
    config = config_json.read_config(folder)
    path = folder / CONFIG
    if config.get("codec") != "vq":
        raise ModelError(f'{path}: codec (={config.get("codec")}) must be "vq"')
    for key in ("name", "method", "fingerprint"):
        if not isinstance(config.get(key), str):
            raise ModelError(f"{path}: {key} (={config.get(key)}) must be a text; get the model folder again")
    return config


def save_model(codec: VqCodec, folder: Path, method: str, card: str) -> None:
    """Writes a model folder, each file complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "codec": "vq",
        "name": codec.name,
        "method": method,
        "patch_px": codec.patch_px,
        "neutral": list(codec.neutral.values()),
        "plane_bits": codec.context.plane_bits,
        "fingerprint": codec.fingerprint.hex(),
    }
    with atomic_path(folder / WEIGHTS) as temporary:
        save_file(codec.exact_tensors(), str(temporary), metadata={"format": "np"})
    atomic_write(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    atomic_write(folder / CARD, card.encode())


def load_model(folder: Path) -> Codec:
    """The codec of a model folder. Raises ModelError if a file is missing, or altered since it was written."""
    kind = config_json.read_config(folder).get("kind")
    if kind == TransformModel.kind:
        model = TransformModel.from_pretrained(folder)
        return HyperpriorCodec(folder.name, model, model.exact_coder)
    if kind == DiffusionDecoder.kind:
        return CdcCodec(folder.name, DiffusionDecoder.from_pretrained(folder))
    if kind == Refiner.kind:
        raise ModelError(f"{folder}: is a refiner, not a codec; difflate decompress takes it with --refiner")
    if kind is not None:
        raise ModelError(f"{folder}: is a generator ({kind}), not a codec; difflate sample takes it")
    return _load_vq(folder)


def _load_vq(folder: Path) -> VqCodec:
    config = read_config(folder)
    path = folder / WEIGHTS
    try:
        tensors = load_file(str(path))
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: {WEIGHTS} is missing; get the model folder again") from error
    except (OSError, SafetensorError, ValueError, KeyError, struct.error) as error:
        raise ModelError(f"{path}: damaged ({error}); get the model folder again") from error
    try:
        codec = _build(config, tensors)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}; get the model folder again") from error
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RuntimeError) as error:
        raise ModelError(f"{folder}: {CONFIG} and {WEIGHTS} do not fit together ({error}); get them again") from error
    if codec.fingerprint.hex() != config.get("fingerprint"):
        raise ModelError(f"{folder}: the weights are not those that the model was saved with; get the folder again")
    return codec


def _build(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> VqCodec:
    quantizers = [_quantizer(config["method"], i, tensors) for i in range(3)]
    plane_bits = [int(b) for b in config["plane_bits"]]
    sizes = [size for q in quantizers for size in q.sizes]
    if any(not 1 <= b <= 16 for b in plane_bits) or sizes != [2**b for b in plane_bits]:
        raise ModelError(f"plane_bits (={plane_bits}) do not fit the codebooks of {sizes} entries")
    patch_px = int(config["patch_px"])
    for q in quantizers:
        length = q.decode(torch.zeros(1, len(q.sizes), dtype=torch.int64)).shape[1]
        if length != patch_px**2:
            raise ModelError(f"codewords of {length} values do not fit patches of {patch_px}x{patch_px} px")
    neutral = [int(v) for v in config["neutral"]]
    chroma_bits = plane_bits[len(quantizers[0].sizes) :]
    if len(neutral) != len(chroma_bits) or any(not 0 <= v < 2**b for v, b in zip(neutral, chroma_bits, strict=True)):
        raise ModelError(f"neutral (={neutral}) must hold an index for each plane of Cr and Cb")
    prefix = "context."
    context = ContextModel(plane_bits, {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    return VqCodec(str(config["name"]), patch_px, quantizers, neutral, context)


def _quantizer(method: str, channel: int, tensors: dict[str, np.ndarray]) -> Quantizer:
    start = f"quantizers.{channel}."
    books = []
    while (name := f"{start}codebooks.{len(books)}") in tensors:
        book = tensors[name]
        if book.ndim != 2 or book.dtype != np.float32 or not np.isfinite(book).all():
            raise ModelError(f"tensor {name} must be a finite float32 matrix")
        books.append(torch.from_numpy(book.copy()))
    if not books:
        raise ModelError(f"tensor {start}codebooks.0 is missing")
    if method == "rq":
        return ResidualQuantizer(books)
    rotation = tensors.get(start + "rotation")
    return ProductQuantizer(books, None if rotation is None else torch.from_numpy(rotation.copy()))
