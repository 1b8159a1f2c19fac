"""Weights in 8 or 10 bits with scales: close, stable, refused when forged; integers as they were."""

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

import difflate
from coder_helpers import PHOTO, photo
from difflate.codecs.loading import load
from difflate.errors import ConfigError, DifflateError, ModelError
from difflate.media.picture import Picture
from difflate.models.exact import EXACT
from difflate.models.refiner import Refiner
from difflate.models.transform_coder import TransformModel
from difflate.nn.entropy_network import HyperpriorConfig
from difflate.nn.transforms import TransformConfig
from difflate.nn.unet import UNetConfig
from difflate.store.deflated import load_tensors
from difflate.store.weights import LOW, SCALE, dequantize, differs, pack, quantize, unpack
from difflate.train.output import holds_model

PICTURE = Picture(photo(48, 40, 200, 300))
KERNEL, COARSE = "synthesis.pixel.blocks.0.conv_in.weight", "entropy.analysis.4.weight"
"""A tensor in 8 bits, and one in 10."""
NETWORK = UNetConfig(widths=(16, 32), blocks=(1, 1), patch=2)


def coder(seed: int = 0) -> TransformModel:
    """Not trained; large enough for kernels in 8 bits, in the entropy model too."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        shape = TransformConfig("dct", latent_channels=64, widths=(24, 24, 24), blocks=(1, 1, 1))
        model = TransformModel(shape, HyperpriorConfig(channels=16, width=32, features=32))
        for value in model.parameters():
            value.add_(0.01 * torch.randn_like(value))
        model.get_parameter(COARSE)[:, 0, 0, 0] = 0.2
        return model.eval()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "whole"
    coder().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def light(whole: Path) -> Path:
    path = whole.parent / "light"
    coder().save_pretrained(path, dtype="int8")
    return path


def stored(folder: Path) -> dict[str, Tensor]:
    return load_tensors(folder / "model.safetensors")


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 7),
    seed=st.integers(0, 1000),
    exponent=st.integers(-30, 30),
    bits=st.sampled_from([8, 10]),
)
def test_a_number_is_within_half_a_step_and_quantizing_twice_is_quantizing_once(
    rows, columns, seed, exponent, bits
) -> None:
    values = torch.randn(rows, columns, 2, generator=torch.Generator().manual_seed(seed)) * 10.0**exponent
    values[0, 0] = 0
    integers, scales = quantize(values, bits)
    assert (integers.dtype, integers.shape, scales.shape) == (torch.int16, values.shape, (rows,))
    restored = dequantize(integers, scales)
    assert ((restored - values).abs().flatten(1) <= (0.501 if bits == 8 else 0.51) * scales[:, None]).all()
    again = quantize(restored, bits)
    assert torch.equal(again[0], integers)
    assert torch.equal(again[1], scales)


def test_a_tensor_is_in_8_bits_where_it_costs_little() -> None:
    torch.manual_seed(0)
    outlier = torch.randn(64, 64)
    outlier[:, 0] = 1e3
    broken = torch.randn(64, 64)
    broken[3, 3] = torch.inf
    state = {
        "kernel": torch.randn(64, 16, 2, 2), "small": torch.randn(8, 8), "bias": torch.randn(8192), "outlier": outlier,
        "broken": broken, "huge": 1e5 * outlier, "count": torch.arange(3), "zero": torch.zeros(64, 64),
    }  # fmt: skip
    packed = pack(state, torch.int8)
    assert {name.removesuffix(SCALE) for name in packed if name.endswith(SCALE)} == {"kernel", "zero"}
    assert {name for name, value in packed.items() if value.dtype == torch.float16} == {"bias", "outlier"}
    restored = unpack(packed)
    assert restored.keys() == state.keys()
    for name in ("small", "huge", "broken", "count", "zero"):
        assert torch.equal(restored[name], state[name]), name
    error = (restored["kernel"] - state["kernel"]).norm() / state["kernel"].norm()
    assert 0.001 < error < 0.01


def test_what_is_too_coarse_in_8_bits_is_in_10() -> None:
    torch.manual_seed(0)
    plain, odd, rough = torch.randn(15, 31, 3, 3), torch.randn(65, 65), torch.randn(64, 64)
    rough[:, 0] = 1e3
    state = {"plain": plain, "cubes": plain**3, "odd": odd**3, "rough": rough}
    packed = pack(state, torch.int8)
    assert {name: value.shape[0] for name, value in packed.items() if name.endswith(LOW)} == {
        "cubes" + LOW: -(-plain.numel() // 4),
        "odd" + LOW: -(-odd.numel() // 4),
    }
    assert packed["rough"].dtype == torch.float16
    for name in ("cubes", "odd"):
        assert torch.equal(unpack(packed)[name], dequantize(*quantize(state[name], 10)))
    again = pack(unpack(packed), torch.int8)
    assert again.keys() == packed.keys()
    assert all(torch.equal(value, packed[name]) for name, value in again.items())


def test_the_low_bits_stand_as_the_format_says() -> None:
    values = torch.randn(15, 311, generator=torch.Generator().manual_seed(0)) ** 3
    packed = pack({"x": values}, torch.int8)
    integers, scales = quantize(values, 10)
    assert torch.equal(packed["x" + SCALE], scales)
    for n, q in enumerate(integers.flatten().tolist()):
        low = int(packed["x" + LOW][n // 4]) >> 2 * (n % 4) & 3
        assert q == 4 * int(packed["x"].flatten()[n]) + low


def test_bits_that_a_tensor_was_loaded_with_stay() -> None:
    """Even where fewer would do."""
    values = torch.randn(64, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    loaded = dequantize(*quantize(values, 10))
    assert "x" + LOW not in pack({"x": values}, torch.int8)
    assert torch.equal(unpack(pack({"x": loaded}, torch.int8))["x"], loaded)


def test_a_folder_in_8_bits_is_a_quarter_and_keeps_the_integers(whole: Path, light: Path, tmp_path: Path) -> None:
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (light, whole)]
    assert sizes[0] < 0.45 * sizes[1]  # the small tensors of this small model are a fifth of it
    assert json.loads((light / "config.json").read_text())["format"] == "int8"
    assert COARSE + LOW in stored(light)
    integers = {f"entropy.{name}" for name in coder().entropy.fixed_names}
    assert stored(whole).keys() > integers
    assert stored(light).keys().isdisjoint(integers)  # they are in exact.safetensors
    for folder in (light, tmp_path / "again", tmp_path / "half", tmp_path / "float"):
        if folder != light:  # saved, loaded and saved in each type
            dtype = {"again": "int8", "half": torch.float16, "float": None}[folder.name]
            TransformModel.from_pretrained(light).save_pretrained(folder, dtype=dtype)
        assert (folder / EXACT).read_bytes() == (whole / EXACT).read_bytes()
        assert TransformModel.from_pretrained(folder).fingerprint == coder().fingerprint
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (light / "model.safetensors").read_bytes()
    anew = TransformModel(coder().transform, coder().hyperprior)
    anew.load_state_dict(TransformModel.from_pretrained(light).state_dict())
    assert anew.fingerprint == coder().fingerprint


def test_a_folder_that_holds_the_entropy_model_twice_is_read(light: Path, tmp_path: Path) -> None:
    """As those in 8 bits once did; their integers have more digits, and stay."""
    shutil.copytree(light, tmp_path / "twice")
    packed = pack(coder().state_dict(), torch.int8)
    save_file({name: value.contiguous() for name, value in packed.items()}, tmp_path / "twice" / "model.safetensors")
    _config(sha256=None)(tmp_path / "twice")
    ours, theirs = (TransformModel.from_pretrained(folder) for folder in (tmp_path / "twice", light))
    assert ours.fingerprint == theirs.fingerprint
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    assert differs(theirs, light, theirs.names_beside()) is None
    assert str(differs(theirs, light)).startswith("entropy.")
    ours.save_pretrained(tmp_path / "again", dtype="int8")
    assert stored(tmp_path / "again").keys() == stored(light).keys()


def test_files_of_one_are_files_of_the_other(whole: Path, light: Path) -> None:
    data = load(whole).encode(PICTURE, quality=60, learned_only=True)
    theirs, ours = (load(folder).decode(data).pixels.astype(int) for folder in (whole, light))
    assert not np.array_equal(ours, theirs)
    assert np.abs(ours - theirs).mean() < 1


def test_what_is_trained_on_from_8_bits_is_another_model(light: Path, tmp_path: Path) -> None:
    model = TransformModel.from_pretrained(light)
    assert next(model.parameters()).dtype == torch.float32
    before = model.fingerprint
    model.train()
    images = torch.from_numpy(photo(64, 64))[None].float() / 127.5 - 1
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    made = model(images, torch.tensor([0.5]))
    (made.coded.y_bits.sum() + made.coded.z_bits.sum() + (made.image - images).square().sum()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    model.save_pretrained(tmp_path, dtype="int8")
    trained = TransformModel.from_pretrained(tmp_path)
    assert trained.fingerprint == model.fingerprint != before


def test_shards_may_part_a_tensor_from_its_scales(light: Path, tmp_path: Path) -> None:
    coder().save_pretrained(tmp_path, dtype=torch.int8, max_shard_size="30KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 3
    ours, theirs = (TransformModel.from_pretrained(folder).state_dict() for folder in (tmp_path, light))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_training_knows_the_model_that_it_has_saved(light: Path) -> None:
    assert holds_model(light, coder(), torch.int8)
    assert not holds_model(light, coder(), torch.float32)
    assert not holds_model(light, coder(1), torch.int8)
    other = coder()
    with torch.no_grad():
        other.entropy.get_parameter("hidden.weight").add_(0.01)
    assert not holds_model(light, other, torch.int8)


def test_types_that_weights_cannot_have_are_named(tmp_path: Path) -> None:
    for dtype in ("int4", torch.int16, "float64"):
        with pytest.raises(ConfigError, match=r"`dtype` \(=.*\) must be float32, float16, bfloat16, int8 or None"):
            coder().save_pretrained(tmp_path, dtype=dtype)


def _tensor(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    def forge(folder: Path) -> None:
        tensors = stored(folder)
        save_file(tensors | {name: change(tensors[name]).contiguous()}, folder / "model.safetensors")

    return forge


def _without(name: str) -> Callable[[Path], None]:
    def forge(folder: Path) -> None:
        save_file({k: v for k, v in stored(folder).items() if k != name}, folder / "model.safetensors")

    return forge


def _config(**entries: object) -> Callable[[Path], None]:
    def forge(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | entries
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))

    return forge


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (_tensor(KERNEL + SCALE, lambda x: x * torch.nan), f"{KERNEL}.scale must be finite"),
        (_tensor(KERNEL + SCALE, lambda x: x / 0), f"{KERNEL}.scale must be finite"),
        (_tensor(KERNEL + SCALE, lambda x: -x), f"{KERNEL}.scale must be finite"),
        (_tensor(KERNEL + SCALE, lambda x: x[:-1]), f"do not fit config.json \\({KERNEL}.scale\\)"),
        (_tensor(COARSE + SCALE, lambda x: -x), f"{COARSE}.scale must be finite"),
        (_tensor(COARSE + LOW, lambda x: x[:-1]), f"do not fit config.json \\({COARSE}.low\\)"),
        (_tensor(COARSE + LOW, lambda x: x.short()), f"do not fit config.json \\({COARSE}.low\\)"),
        (_tensor(KERNEL + SCALE, lambda x: x[:, None]), f"do not fit config.json \\({KERNEL}.scale\\)"),
        (_tensor(KERNEL + SCALE, lambda x: x.int()), f"do not fit config.json \\({KERNEL}.scale\\)"),
        (_tensor(KERNEL, lambda x: x[:-1]), f"do not fit config.json \\({KERNEL}\\)"),
        (_tensor(KERNEL, lambda x: x.short()), f"do not fit config.json \\({KERNEL}"),
        (_tensor("gain", lambda x: x.char()), "do not fit config.json \\(gain"),
        (_without("gain"), "do not fit config.json \\(gain"),
        (_without("entropy.analysis.0.weight"), "do not fit config.json \\(entropy.analysis.0.weight"),
        (_without(KERNEL + SCALE), f"do not fit config.json \\({KERNEL}.scale\\)"),
        (_config(format=None), "do not fit config.json"),
        (_config(format="int3"), r"format \(=int3\) is unknown to this version"),
        (_config(format=["int8"]), "format .* is unknown to this version"),
    ],
)
def test_forged_weights_are_refused(forge: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    coder().save_pretrained(tmp_path, dtype="int8")
    forge(tmp_path)
    with pytest.raises(ModelError, match=message) as caught:
        TransformModel.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_converted(light: Path, whole: Path, tmp_path: Path, capsys, pytestconfig) -> None:
    script = runpy.run_path(str(pytestconfig.rootpath / "examples" / "convert_weights.py"))
    (tmp_path / "training.yaml").write_text("recipe: refiner\n")
    torch.manual_seed(0)
    Refiner(NETWORK, "opq-32-8-8", "00" * 32).save_pretrained(tmp_path, card="Mine.")
    for folder, dtype in ((tmp_path, "int8"), (whole, "int8"), (light, "float16")):
        script["main"]([str(folder), str(tmp_path / "out"), "--dtype", dtype])
        assert capsys.readouterr().out.count(" MiB") == 2
    script["main"]([str(tmp_path), str(tmp_path / "refiner")])
    assert (tmp_path / "refiner" / "training.yaml").is_file()
    assert Refiner.from_pretrained(tmp_path / "refiner").card == "Mine."
    codebooks = difflate.registry.WEIGHTS / "opq-32-8-8"
    for words, message in (
        ([str(codebooks), str(tmp_path / "x")], "codebooks are stored as they are"),
        ([str(PHOTO.parent), str(tmp_path / "x")], "config.json is missing"),
        ([str(whole), str(tmp_path / "x"), "--dtype", "int2"], r"`dtype` \(=int2\)"),
        ([str(whole), str(tmp_path / "x"), "--refer", "coder=whole"], "has no part 'coder' that is a model"),
    ):
        with pytest.raises(SystemExit, match=message):
            script["main"](words)
    with pytest.raises(DifflateError):
        script["convert"](tmp_path / "nothing", tmp_path / "x", "int8", {})


def test_a_folder_of_models_is_packed_as_it_is_stored(tmp_path: Path, capsys, pytestconfig) -> None:
    """A decoder still finds the coder that it names by the digest of its files."""
    main = runpy.run_path(str(pytestconfig.rootpath / "examples" / "convert_weights.py"))["main"]
    plain = tmp_path / "plain"
    for name in ("hyperprior-small", "cdc-small", "opq-32-8-8"):
        shutil.copytree(difflate.registry.WEIGHTS / name, plain / name)
        for path in (plain / name).glob("*.safetensors"):
            save_file(load_tensors(path), path)
    main([str(plain), str(tmp_path / "packed"), "--dtype", "stored"])
    assert capsys.readouterr().out.count(" MiB") == 2
    for path in plain.rglob("*"):
        if path.is_file():
            name = path.relative_to(plain)
            assert (tmp_path / "packed" / name).read_bytes() == (difflate.registry.WEIGHTS / name).read_bytes(), name
    assert difflate.load(tmp_path / "packed" / "cdc-small").fingerprint == difflate.load("cdc-small").fingerprint
    with pytest.raises(SystemExit, match="holds no folders of models"):
        main([str(tmp_path / "packed" / "cdc-small"), str(tmp_path / "x"), "--dtype", "stored"])
