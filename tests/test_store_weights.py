"""Weights in 8 bits with a scale per output channel: close, stable, refused when forged; integers as they were."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
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
from difflate.store.weights import SCALE, dequantize_rows, pack, quantize_rows, unpack
from difflate.train.output import holds_model

PICTURE = Picture(photo(48, 40, 200, 300))
NETWORK = UNetConfig(widths=(16, 32), blocks=(1, 1), patch=2)


def coder(seed: int = 0) -> TransformModel:
    """Not trained; large enough for kernels in 8 bits, in the entropy model too."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        shape = TransformConfig("dct", latent_channels=64, widths=(24, 24, 24), blocks=(1, 1, 1))
        model = TransformModel(shape, HyperpriorConfig(channels=16, width=32, features=32))
        for value in model.parameters():
            value.add_(0.01 * torch.randn_like(value))
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
    return load_file(folder / "model.safetensors")


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 7),
    seed=st.integers(0, 1000),
    exponent=st.integers(-30, 30),
)
def test_a_row_is_within_half_a_step_and_quantizing_twice_is_quantizing_once(rows, columns, seed, exponent) -> None:
    values = torch.randn(rows, columns, 2, generator=torch.Generator().manual_seed(seed)) * 10.0**exponent
    values[0, 0] = 0
    integers, scales = quantize_rows(values)
    assert (integers.dtype, integers.shape, scales.shape) == (torch.int8, values.shape, (rows,))
    restored = dequantize_rows(integers, scales)
    assert ((restored - values).abs().flatten(1) <= 0.501 * scales[:, None]).all()
    again = quantize_rows(restored)
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


def test_a_folder_in_8_bits_is_a_quarter_and_keeps_the_integers(whole: Path, light: Path, tmp_path: Path) -> None:
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (light, whole)]
    assert sizes[0] < 0.45 * sizes[1]  # the small tensors of this small model are a fifth of it
    assert json.loads((light / "config.json").read_text())["format"] == "int8"
    assert any(name.startswith("entropy.") and name.endswith(SCALE) for name in stored(light))
    for folder in (light, tmp_path / "again", tmp_path / "half", tmp_path / "float"):
        if folder != light:  # saved, loaded and saved in each type
            dtype = {"again": "int8", "half": torch.float16, "float": None}[folder.name]
            TransformModel.from_pretrained(light).save_pretrained(folder, dtype=dtype)
        assert (folder / EXACT).read_bytes() == (whole / EXACT).read_bytes()
        assert TransformModel.from_pretrained(folder).fingerprint == coder().fingerprint
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (light / "model.safetensors").read_bytes()
    # the integers that the weights in 8 bits would give are others, so this test can fail
    anew = TransformModel(coder().transform, coder().hyperprior)
    anew.load_state_dict(TransformModel.from_pretrained(light).state_dict())
    assert anew.fingerprint != coder().fingerprint


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


def test_types_that_weights_cannot_have_are_named(tmp_path: Path) -> None:
    for dtype in ("int4", torch.int16, "float64"):
        with pytest.raises(ConfigError, match=r"`dtype` \(=.*\) must be float32, float16, bfloat16, int8 or None"):
            coder().save_pretrained(tmp_path, dtype=dtype)


KERNEL = "synthesis.pixel.blocks.0.conv_in.weight"


def _tensor(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    def forge(folder: Path) -> None:
        tensors = stored(folder)
        save_file(tensors | {name: change(tensors[name]).contiguous()}, folder / "model.safetensors")

    return forge


def _without_scales(folder: Path) -> None:
    save_file({k: v for k, v in stored(folder).items() if k != KERNEL + SCALE}, folder / "model.safetensors")


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
        (_tensor(KERNEL + SCALE, lambda x: x[:, None]), f"do not fit config.json \\({KERNEL}.scale\\)"),
        (_tensor(KERNEL + SCALE, lambda x: x.int()), f"do not fit config.json \\({KERNEL}.scale\\)"),
        (_tensor(KERNEL, lambda x: x[:-1]), f"do not fit config.json \\({KERNEL}\\)"),
        (_tensor(KERNEL, lambda x: x.short()), f"do not fit config.json \\({KERNEL}"),
        (_tensor("gain", lambda x: x.char()), "do not fit config.json \\(gain"),
        (_without_scales, f"do not fit config.json \\({KERNEL}.scale\\)"),
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
