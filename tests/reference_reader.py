"""A second reader of .dfl files: plain and slow, written from docs/format.md and a model's folder alone.

It shares no code with the package, so that what both decode is what the page says.
"""

import binascii
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from reference_coder import ReferenceReader

CONTEXT, FIXED, ALPHA, EXIF, ICC, XMP = 1, 2, 3, 0x41, 0x42, 0x43
STREAM, GROUPS, AUDIO = 6, 7, 0x47
STEP = 8192
CENTRES = [(-1, -1), (-1, 1), (1, -1), (1, 1), (-3, -1), (-3, 1), (-1, -3), (-1, 3), (1, -3), (1, 3), (3, -1), (3, 1)]
BEHIND = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0), (0, 1), (1, -1), (1, 0), (1, 1)]
SIDES = [(-1, 0), (0, -1), (0, 1), (1, 0), (-2, -1), (-2, 1), (-1, -2), (-1, 2), (1, -2), (1, 2), (2, -1), (2, 1)]


@dataclass
class Decoded:
    symbols: np.ndarray  # (planes, rows, columns)
    pixels: np.ndarray  # (C, H, W) uint8
    alpha: np.ndarray | None  # (H, W) uint8
    sections: dict[int, bytes]


class Network:
    """The context model, with the names of the document."""

    def __init__(self, bits: list[int], tensors: dict[str, np.ndarray]):
        self.bits, self._context = bits, {name: tensor.astype(np.int64) for name, tensor in tensors.items()}

    def context(self, name: str) -> np.ndarray:
        return self._context[name]


def load_model_file(path: Path) -> dict[str, np.ndarray]:
    """The tensors, unpacked."""
    with safe_open(path, "np") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        packed = json.loads((file.metadata() or {}).get("deflate", "{}"))
    for name, (kind, shape) in packed.items():
        planes = np.frombuffer(zlib.decompress(stored.pop(f"{name}.deflate").tobytes()), np.uint8)
        stored[name] = np.empty(shape, f"<{kind[0].lower()}{int(kind[1:]) // 8}")
        for i, plane in enumerate(np.split(planes, stored[name].itemsize)):
            stored[name].reshape(-1, 1).view(np.uint8)[:, i] = plane
    return stored


class Model(Network):
    """What config.json and model.safetensors say, with the names of the document."""

    def __init__(self, folder: Path):
        self.config = json.loads((folder / "config.json").read_text("utf-8"))
        self.tensors = load_model_file(folder / "model.safetensors")
        start = "context."
        network = {name[len(start) :]: tensor for name, tensor in self.tensors.items() if name.startswith(start)}
        super().__init__(self.config["plane_bits"], network)
        self.patch: int = self.config["patch_px"]
        self.neutral: list[int] = self.config["neutral"]

    def codebooks(self, channel: int) -> list[np.ndarray]:
        start = f"quantizers.{channel}.codebooks."
        return [self.tensors[f"{start}{i}"] for i in range(sum(name.startswith(start) for name in self.tensors))]

    def fingerprint(self) -> bytes:
        kinds = ["ResidualQuantizer" if self.config["method"] == "rq" else "ProductQuantizer"] * 3
        sizes = [2**b for b in self.bits]
        neutral = {len(self.codebooks(0)) + i: index for i, index in enumerate(self.neutral)}
        architecture = f"vq patch={self.patch} quantizers={kinds} sizes={sizes} neutral={neutral}"
        digest = hashlib.sha256(architecture.encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"\0{name} {tensor.dtype.name} {list(tensor.shape)}\0".encode())
            digest.update(tensor.astype(tensor.dtype.newbyteorder("<")).tobytes())
        return digest.digest()


@dataclass
class Header:
    grey: bool
    width: int
    height: int
    sections: dict[int, bytes]
    seal: int  # CRC-32 that the section on a clip's frames must end with; 0 of an image
    check: int  # of symbols


@dataclass
class DecodedClip:
    rate: tuple[int, int]
    time_base: tuple[int, int]
    times: list[int]
    frames: list[Decoded]
    audio: bytes


def decode(data: bytes, model: Model) -> Decoded:
    """All that the file of an image holds; asserts that it is as the document says."""
    header = _header(data, model)
    sections = header.sections
    assert all(kind & 0x40 or kind in (CONTEXT, FIXED, ALPHA) for kind in sections)
    symbols = _symbols(header, sections, model)
    assert header.check == binascii.crc_hqx(symbols.astype("<u2").tobytes(), 0xFFFF)
    alpha = _read_alpha(sections[ALPHA], header.height, header.width) if ALPHA in sections else None
    return Decoded(symbols, _cropped(symbols, header, model), alpha, sections)


def decode_clip(data: bytes, model: Model) -> DecodedClip:
    """All that the file of a clip holds; asserts that it is as the document says."""
    header = _header(data, model)
    told, groups = header.sections[STREAM], header.sections[GROUPS]
    assert list(header.sections)[-1] == GROUPS
    assert int.from_bytes(told[-4:], "little") == header.seal
    at, numbers = 0, []
    for _ in range(8):
        number, at = _varint(told, at, 9)
        numbers.append(number)
    count, together, *fractions, first, step = numbers
    assert together == 1
    times = [first // 2 if first % 2 == 0 else -(first + 1) // 2]
    if step:
        times = [times[0] + n * step for n in range(count)]
    else:
        length, at = _varint(told, at, 9)
        listed, place = zlib.decompress(told[at : at + length]), 0
        at += length
        for _ in range(count - 1):
            step, place = _varint(listed, place, 9)
            times.append(times[-1] + step)
        assert place == len(listed)
    frames, start, check = [], 0, 0xFFFF
    for _ in range(count):
        size, at = _varint(told, at, 9)
        group = groups[start : start + size]
        assert int.from_bytes(told[at : at + 4], "little") == zlib.crc32(group)
        at, start = at + 4, start + size
        symbols = _symbols(header, {group[0]: group[1:]}, model)
        check = binascii.crc_hqx(symbols.astype("<u2").tobytes(), check)
        frames.append(Decoded(symbols, _cropped(symbols, header, model), None, {}))
    assert start == len(groups)
    assert check == header.check
    size, at = _varint(told, at, 9)
    audio = header.sections.get(AUDIO, b"")
    assert size == len(audio)
    if size:
        assert int.from_bytes(told[at : at + 4], "little") == zlib.crc32(audio)
        at += 4
    assert at == len(told) - 4
    return DecodedClip((fractions[0], fractions[1]), (fractions[2], fractions[3]), times, frames, audio)


def _header(data: bytes, model: Model) -> Header:
    assert data[:4] == b"\x8fDFL"
    assert data[4] >> 4 == 1
    features, model_id, at = data[5], data[6:10], 10
    width, at = _varint(data, at)
    height, at = _varint(data, at)
    sections: dict[int, bytes] = {}
    last, seal = False, 0
    while not last:
        last, kind = data[at] >= 0x80, data[at] & 0x7F
        length, at = _varint(data, at + 1)
        assert kind not in sections
        sections[kind] = data[at : at + length]
        at += length
        if kind == STREAM:
            seal = zlib.crc32(data[: at - 4])
    assert len(data) == at + 6
    assert int.from_bytes(data[at + 2 :], "little") == zlib.crc32(data[: at + 2])
    assert features & 0xE0 == 0
    assert features & 0x0F == 1
    assert model.fingerprint()[:4] == model_id
    return Header(bool(features & 0x10), width, height, sections, seal, int.from_bytes(data[at : at + 2], "little"))


def _symbols(header: Header, sections: dict[int, bytes], model: Model) -> np.ndarray:
    assert (CONTEXT in sections) != (FIXED in sections)
    grid = -(-header.height // model.patch), -(-header.width // model.patch)
    symbols = np.zeros((len(model.bits), *grid), np.int64)
    coded = len(model.codebooks(0)) if header.grey else len(model.bits)
    if header.grey:
        symbols[coded:] = np.reshape(model.neutral, (-1, 1, 1))
    if FIXED in sections:
        _read_fixed(sections[FIXED], symbols[:coded], model.bits)
    else:
        _read_context(ReferenceReader(sections[CONTEXT]), symbols, coded, model, None)
    return symbols


def _cropped(symbols: np.ndarray, header: Header, model: Model) -> np.ndarray:
    return _pixels(symbols, header.grey, model)[:, : header.height, : header.width]


def _varint(data: bytes, at: int, longest: int = 5) -> tuple[int, int]:
    """The number at ``at``, and where it ends."""
    value = 0
    for i in range(longest):
        value |= (data[at + i] & 0x7F) << 7 * i
        if data[at + i] < 0x80:
            return value, at + i + 1
    raise AssertionError(f"varint of more than {longest} bytes")


def _read_alpha(data: bytes, height: int, width: int) -> np.ndarray:
    values = np.frombuffer(zlib.decompress(data[1:]), np.uint8).reshape(height, width)
    # differences are undone by sums; the axis is the one along which they were taken
    return values if data[0] == 0 else np.cumsum(values, axis={1: 1, 2: 0}[data[0]], dtype=np.uint8)


def _read_fixed(data: bytes, symbols: np.ndarray, bits: list[int]) -> None:
    """Fill ``symbols: (coded planes, rows, columns)``."""
    at = 0
    for plane, b in zip(symbols, bits, strict=False):
        length = -(-plane.size * b // 8)
        text = "".join(f"{byte:08b}" for byte in data[at : at + length])
        plane.flat = [int(text[i * b : (i + 1) * b], 2) for i in range(plane.size)]
        assert "1" not in text[plane.size * b :]
        at += length
    assert at == len(data)


def _steps(rows: int, columns: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Kind, stride and (n, 2) sites of each step, in coding order."""

    def sites(row: int, column: int, apart: int) -> list[tuple[int, int]]:
        return [(r, c) for r in range(row, rows, apart) for c in range(column, columns, apart)]

    lists = [(0, 32, sites(0, 0, 32))]
    for t in (16, 8, 4, 2, 1):
        lists.append((3 if t == 1 else 1, t, sites(t, t, 2 * t)))
        lists.append((4 if t == 1 else 2, t, sites(t, 0, 2 * t) + sites(0, t, 2 * t)))
    for kind, stride, every in lists:
        for i in range(0, len(every), STEP):
            yield kind, stride, np.array(every[i : i + STEP])


def read_clip(data: bytes, count: int, rows: int, columns: int, network: Network) -> np.ndarray:
    """(count, planes, rows, columns) of a stream of a network that looks back."""
    coder, past = ReferenceReader(data), None
    grids = np.zeros((count, len(network.bits), rows, columns), np.int64)
    for grid in grids:
        past = _read_context(coder, grid, len(network.bits), network, past)
    return grids


def _read_context(
    coder: ReferenceReader, symbols: np.ndarray, coded: int, model: Network, past: np.ndarray | None
) -> np.ndarray:
    """Fill the first ``coded`` planes of ``symbols``; the others are known. The descriptors, as ``past`` has them."""
    descriptors = np.zeros((*symbols.shape[1:], 49), np.int64)
    for kind, stride, sites in _steps(*symbols.shape[1:]):
        r, c = sites.T
        inputs = _trunk(descriptors, past, kind, stride, sites, model)
        k = 0
        for plane in range(coded):
            index = np.zeros(len(sites), np.int64)
            for part, part_bits in enumerate(_split(model.bits[plane])):
                frequencies = _frequencies(inputs, k, index if part > 0 else None, model)
                index = index << part_bits | [coder.read(row) for row in frequencies.tolist()]
                k += 1
            symbols[plane, r, c] = index
            if plane + 1 < coded:
                inputs = np.concatenate([inputs, model.context(f"current.{plane}")[index]], axis=1)
        total = sum(model.context(f"describe.{p}")[indices[r, c]] for p, indices in enumerate(symbols))
        descriptors[r, c, :48] = np.clip(total, -127, 127)
        descriptors[r, c, 48] = 127
    return descriptors


def _split(bits: int) -> list[int]:
    """The bits of each part of an index."""
    n = -(-bits // 4)
    return [bits // n + (i < bits % n) for i in range(n)]


def _trunk(
    descriptors: np.ndarray, past: np.ndarray | None, kind: int, stride: int, sites: np.ndarray, model: Network
) -> np.ndarray:
    """(sites, 160)"""
    sums = np.tile(model.context("trunk.bias")[kind], (len(sites), 1))
    if kind > 0:
        distances = stride * np.array(CENTRES if kind in (1, 3) else SIDES)
        sums += _product(_features(descriptors, sites, distances), model.context("trunk.weight")[kind - 1])
    if past is not None:
        sums += _product(_features(past, sites, np.array(BEHIND)), model.context("past.weight")[kind])
    return _relu(sums)


def _features(descriptors: np.ndarray, sites: np.ndarray, distances: np.ndarray) -> np.ndarray:
    found = np.zeros((len(sites), len(distances), 49), np.int64)
    for n, distance in enumerate(distances):
        r, c = (sites + distance).T
        inside = (r >= 0) & (r < descriptors.shape[0]) & (c >= 0) & (c < descriptors.shape[1])
        found[inside, n] = descriptors[r[inside], c[inside]]
    return np.concatenate([found[:, :, :48].reshape(len(sites), -1), found[:, :, 48]], axis=1)


def _frequencies(inputs: np.ndarray, k: int, known: np.ndarray | None, model: Network) -> np.ndarray:
    """(sites, values) of part k, given the ``known`` bits of each site's index."""
    stage = f"stage.{k}."
    hidden = _product(inputs, model.context(stage + "hidden.weight")) + model.context(stage + "hidden.bias")
    if known is not None:
        hidden += 64 * model.context(stage + "prefix")[known]
    out = _product(_relu(hidden), model.context(stage + "out.weight")) + model.context(stage + "out.bias")
    logits = (out + 128) // 256
    weights = model.context("exp")[np.minimum(logits.max(axis=1, keepdims=True) - logits, 255)]
    free = 2**24 - logits.shape[1]
    counts = weights * free // weights.sum(axis=1, keepdims=True)
    counts[np.arange(len(counts)), logits.argmax(axis=1)] += free - counts.sum(axis=1)
    return counts + 1


def _relu(a: np.ndarray) -> np.ndarray:
    return np.clip((a + 32) // 64, 0, 127)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Matrix product of integers; exact in float64, and faster than numpy's for integers."""
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)


def _pixels(symbols: np.ndarray, grey: bool, model: Model) -> np.ndarray:
    """(C, rows * s, columns * s) uint8"""
    channels, planes = [], iter(symbols)
    for channel in range(3):
        words = [codebook[next(planes)] for codebook in model.codebooks(channel)]
        values = sum(words) if model.config["method"] == "rq" else np.concatenate(words, axis=-1)
        rotation = model.tensors.get(f"quantizers.{channel}.rotation")
        values = values if rotation is None else values @ rotation
        rows, columns, s = *symbols.shape[1:], model.patch
        channels.append(values.reshape(rows, columns, s, s).transpose(0, 2, 1, 3).reshape(rows * s, columns * s))
    y, cr, cb = channels
    red, blue = y + 1.402 * (cr - 128), y + 1.772 * (cb - 128)
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    rgb = np.clip(np.rint([red, green, blue]), 0, 255)
    return np.rint(rgb.mean(axis=0, keepdims=True) if grey else rgb).astype(np.uint8)
