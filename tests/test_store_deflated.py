"""Packed files of tensors: without loss, smaller, and damage is told before memory is taken."""

import json
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import difflate
from coder_helpers import photo
from difflate.codecs.learned import LearnedCodec
from difflate.codecs.loading import load
from difflate.errors import ModelError
from difflate.media.picture import Picture
from difflate.models.exact import EXACT
from difflate.registry import WEIGHTS
from difflate.store.deflated import END, TensorFile, deflate, deflate_file, load_arrays, load_tensors, save_arrays

DTYPES = [
    torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float32,
    torch.float64, torch.bool,
]  # fmt: skip


def bits(value: Tensor) -> bytes:
    """Those of the numbers: NaN and -0 too are what they were."""
    return value.contiguous().reshape(-1, 1).view(torch.uint8).numpy().tobytes() if value.numel() else b""


def weights(*shape: int, seed: int = 0) -> Tensor:
    """Integers of 8 bits as trained kernels have them: most are small."""
    return (20 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).clamp(-127, 127).to(torch.int8)


def written(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, path)
    deflate_file(path)
    return path


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 40), max_size=4),
    spread=st.sampled_from([0.0, 1.0, 30.0, 1e6]),
    seed=st.integers(0, 1000),
    turned=st.booleans(),
)
def test_tensors_of_all_types_and_shapes_come_back(dtype, shape, spread, seed, turned, tmp_path_factory) -> None:
    draw = spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    value = draw.nan_to_num().clamp(-128, 127).to(dtype) if dtype in (torch.int8, torch.uint8) else draw.to(dtype)
    value = value.T if turned and value.ndim == 2 else value
    path = tmp_path_factory.mktemp("files") / "x.safetensors"
    stored, metadata = deflate({"x": value, "y": torch.zeros(2)})
    save_file(stored, path, metadata)
    restored = load_tensors(path)
    assert restored.keys() == {"x", "y"}
    assert (restored["x"].dtype, restored["x"].shape) == (value.dtype, value.shape)
    assert bits(restored["x"]) == bits(value)


@pytest.mark.parametrize("dtype", DTYPES[:-1])
def test_each_type_is_packed_in_planes_of_bytes(dtype: torch.dtype, tmp_path: Path) -> None:
    value = weights(40, 5, 7).to(dtype)
    stored, _ = deflate({"x": value})
    assert stored.keys() == {"x" + END}
    data = zlib.decompress(stored["x" + END].numpy().tobytes())
    items = np.frombuffer(bits(value), np.uint8).reshape(-1, dtype.itemsize)
    assert data == b"".join(items[:, i].tobytes() for i in range(dtype.itemsize))
    special = (
        torch.tensor([0.0, -0.0, torch.nan, torch.inf]).repeat(1000).to(dtype) if dtype.is_floating_point else value
    )
    assert bits(load_tensors(written(tmp_path / "x", {"x": special}))["x"]) == bits(special)


def test_only_what_saves_something_is_packed(tmp_path: Path) -> None:
    noise = torch.randint(-128, 128, (5000,), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    tensors = {"noise": noise, "tiny": torch.zeros(30), "empty": torch.zeros(0, 4), "one": torch.tensor(3.0)}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    before = path.read_bytes()
    deflate_file(path)
    assert path.read_bytes() == before
    written(path, tensors | {"kernel": weights(64, 64)})
    assert load_file(path).keys() == tensors.keys() | {"kernel" + END}
    assert load_tensors(path)["one"].shape == ()
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["deflate"]) == {"kernel": ["I8", [64, 64]]}


def test_packing_twice_is_packing_once(tmp_path: Path) -> None:
    tensors = {f"kernel.{i}": weights(64, 64, seed=i) for i in range(9)}
    data = [written(tmp_path / name, tensors).read_bytes() for name in ("a", "b")]
    assert data[0] == data[1]
    deflate_file(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == data[0]
    assert len(data[0]) < 0.85 * 9 * 64 * 64


def test_arrays_come_back_from_packed_files_and_from_plain_ones(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(4000, dtype=np.int16).reshape(40, 100).T,
        "b": np.array(3, np.int32),
        "c": np.zeros((0, 2)),
    }
    save_arrays(arrays, tmp_path / "packed")
    save_file({name: torch.tensor(value).contiguous() for name, value in arrays.items()}, tmp_path / "plain")
    assert "a" + END in load_file(tmp_path / "packed")
    for name in ("packed", "plain"):
        restored = load_arrays(tmp_path / name)
        assert restored.keys() == arrays.keys()
        for key, value in arrays.items():
            assert restored[key].dtype == value.dtype
            np.testing.assert_array_equal(restored[key], value)


def _stream(change: Callable[[bytes], bytes]) -> Callable[[dict, dict], None]:
    def forge(tensors: dict[str, Tensor], heads: dict) -> None:
        data = change(tensors["x" + END].numpy().tobytes())
        tensors["x" + END] = torch.tensor(list(data), dtype=torch.uint8)

    return forge


def _head(entry: object) -> Callable[[dict, dict], None]:
    return lambda tensors, heads: heads.update(x=entry)


def _bomb(tensors: dict[str, Tensor], heads: dict) -> None:
    """128 MiB in 130 KiB; the metadata say what can be true of the vector's length."""
    one = zlib.compressobj(9)
    stream = b"".join(one.compress(bytes(1 << 20)) for _ in range(1 << 7)) + one.flush()
    tensors["x" + END] = torch.frombuffer(bytearray(stream), dtype=torch.uint8)
    heads["x"] = ["I8", [4 * len(stream)]]


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (_stream(lambda data: data[:-1]), "x has not the length"),
        (_stream(lambda data: data[: len(data) // 2]), "x has not the length"),
        (_stream(lambda data: data + b"\0"), "x has not the length"),
        (_stream(lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:]), "x, Error|x has not the length"),
        (_stream(lambda data: data[:-1] + bytes([data[-1] ^ 1])), "x, Error"),
        (_stream(lambda data: b"\xff" * len(data)), "x, Error"),
        (_stream(lambda data: b""), "x does not fit"),
        (_stream(lambda data: zlib.compress(bytes(10**7))), "x has not the length|x does not fit"),
        (_bomb, "x has not the length"),
        (_head(["I8", [10**12]]), "x does not fit"),
        (_head(["F64", [2**62, 2**62]]), "x does not fit"),
        (_head(["I8", [64, 63]]), "x has not the length"),
        (_head(["I8", [65, 64]]), "x has not the length"),
        (_head(["I16", [64, 64]]), "x has not the length"),
        (_head(["I8", [64, 64, 0]]), "do not say what"),
        (_head(["I8", [-64, -64]]), "do not say what"),
        (_head(["I8", [64.0, 64]]), "do not say what"),
        (_head(["I8", [True, 4096]]), "do not say what"),
        (_head(["I8", [1] * 1000]), "do not say what"),
        (_head(["I8", [10**4000]]), "do not say what"),
        (_head(["BOOL", [64, 64]]), "do not say what"),
        (_head([["I8"], [64, 64]]), "do not say what"),
        (_head(["I8", 4096]), "do not say what"),
        (_head("I8"), "do not say what"),
        (lambda tensors, heads: heads.clear(), "not those that its metadata name"),
        (lambda tensors, heads: heads.update(z=["I8", [3]]), "not those that its metadata name"),
        (lambda tensors, heads: tensors.pop("x" + END), "not those that its metadata name"),
        (lambda tensors, heads: tensors.update(x=torch.zeros(3)), "x does not fit"),
        (lambda tensors, heads: tensors.update({"x" + END: tensors["x" + END].char()}), "x does not fit"),
        (lambda tensors, heads: tensors.update({"x" + END: tensors["x" + END][None]}), "x does not fit"),
    ],
)
def test_what_is_forged_is_refused_at_once(forge: Callable[[dict, dict], None], message: str, tmp_path: Path) -> None:
    tensors, _ = deflate({"x": weights(64, 64), "y": torch.zeros(2)})
    heads: dict = {"x": ["I8", [64, 64]]}
    forge(tensors, heads)
    save_file(tensors, tmp_path / "x.safetensors", {"deflate": json.dumps(heads)})
    started = time.perf_counter()
    with pytest.raises(ModelError, match=rf"x\.safetensors: damaged \(.*({message})") as caught:
        load_tensors(tmp_path / "x.safetensors")
    assert time.perf_counter() - started < 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"x": ["I8", [' + "9" * 5000 + "]]}"])
def test_metadata_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    save_file({"x" + END: torch.zeros(3, dtype=torch.uint8)}, tmp_path / "x", {"deflate": text})
    with pytest.raises(ModelError, match="damaged"):
        TensorFile(tmp_path / "x")


@pytest.mark.parametrize("name", ["hyperprior-small", "diffae-small", "opq-32-8-8"])
def test_bundled_models_are_packed_and_load_from_plain_folders_too(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(WEIGHTS / name, tmp_path / "plain"))
    config = json.loads((folder / "config.json").read_text())
    for path in folder.glob("*.safetensors"):
        packed = path.stat().st_size
        save_file(load_tensors(path), path)
        assert packed < 0.92 * path.stat().st_size
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "sha256"}))
    ours, theirs = load(folder), load(name)
    assert isinstance(ours, LearnedCodec)
    assert isinstance(theirs, LearnedCodec)
    assert ours.fingerprint == theirs.fingerprint
    picture = Picture(photo(40, 48))
    assert ours.encode(picture) == theirs.encode(picture)


def test_damage_to_a_packed_folder_is_told(tmp_path: Path) -> None:
    for file in ("model.safetensors", EXACT):
        folder = Path(shutil.copytree(WEIGHTS / "hyperprior-small", tmp_path / file))
        data = bytearray((folder / file).read_bytes())
        data[len(data) // 2] ^= 4
        (folder / file).write_bytes(data)
        with pytest.raises(ModelError, match="get the"):
            difflate.load(folder)
