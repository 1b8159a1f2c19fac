"""A transform coder as a folder: its integers are stored, never made anew, and anything altered is told."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import difflate
from coder_helpers import GROUPS, one_rate_model, photo, tiny_codec, tiny_model
from difflate.cli.main import main
from difflate.codecs.hyperprior import HyperpriorCodec
from difflate.codecs.loading import load
from difflate.errors import ConfigError, ModelError
from difflate.media.picture import Picture
from difflate.models.exact import EXACT
from difflate.models.transform_coder import TransformModel
from difflate.nn.entropy_network import HyperpriorConfig
from difflate.nn.transforms import TransformConfig
from difflate.store.deflated import load_arrays, save_arrays
from difflate.store.fingerprint import fingerprint
from difflate.train.average import Average

PICTURE = Picture(photo(48, 40, 200, 300))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model().save_pretrained(path)
    return path


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def id_of(folder: Path) -> bytes:
    codec = load(folder)
    assert isinstance(codec, HyperpriorCodec)
    return codec.fingerprint


def set_exact(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """Forges exact.safetensors and the fingerprint that goes with it."""
    save_arrays(tensors, folder / EXACT)
    config = json.loads((folder / "config.json").read_text())
    config["fingerprint"] = fingerprint("hyperprior", tensors).hex()
    (folder / "config.json").write_text(json.dumps(config))


def test_a_folder_is_the_model_that_was_saved(folder: Path) -> None:
    codec, original = load(folder), tiny_codec()
    assert codec.name == "tiny"
    assert codec.fingerprint == original.fingerprint
    assert json.loads((folder / "config.json").read_text())["fingerprint"] == codec.fingerprint.hex()
    data = original.encode(PICTURE, quality=40)
    assert codec.encode(PICTURE, quality=40) == data
    np.testing.assert_array_equal(codec.decode(data).pixels, original.decode(data).pixels)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", EXACT, "README.md"}


def test_a_model_of_groups_is_a_folder_too(tmp_path: Path) -> None:
    original = tiny_codec(groups=GROUPS)
    original.model.save_pretrained(tmp_path / "groups")
    codec = difflate.load(tmp_path / "groups")
    assert codec.encode(PICTURE) == original.encode(PICTURE)
    assert codec.encode(PICTURE) != tiny_codec().encode(PICTURE)


def test_a_configuration_from_before_there_were_groups_is_read(copied: Path) -> None:
    path = copied / "config.json"
    config = json.loads(path.read_text())
    del config["hyperprior"]["groups"]
    path.write_text(json.dumps(config))
    assert load(copied).encode(PICTURE) == tiny_codec().encode(PICTURE)


def test_a_model_of_one_rate_is_a_folder_too(tmp_path: Path) -> None:
    one_rate_model().save_pretrained(tmp_path / "one")
    codec = difflate.load(tmp_path / "one")
    assert codec.quality_range is None
    assert codec.decode(codec.encode(PICTURE)).pixels.shape == PICTURE.pixels.shape


def test_half_precision_keeps_the_integers_through_saving_again(folder: Path, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "half", dtype=torch.float16)
    half = TransformModel.from_pretrained(tmp_path / "half")
    assert next(half.parameters()).dtype == torch.float32
    # what the rounded weights would give is something else, so this test can fail
    assert fingerprint("hyperprior", half.entropy.fixed_point()) != fingerprint(
        "hyperprior", tiny_model().entropy.fixed_point()
    )
    half.save_pretrained(tmp_path / "again")
    half.save_pretrained(tmp_path / "again-half", dtype=torch.float16)
    assert (tmp_path / "half" / "model.safetensors").stat().st_size < 0.6 * (
        folder / "model.safetensors"
    ).stat().st_size
    for name in ("half", "again", "again-half"):
        assert (tmp_path / name / EXACT).read_bytes() == (folder / EXACT).read_bytes()
        assert id_of(tmp_path / name) == id_of(folder)
    data = tiny_codec().encode(PICTURE)
    ours, theirs = load(tmp_path / "half").decode(data).pixels, tiny_codec().decode(data).pixels
    assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_an_entropy_model_that_is_trained_further_is_another_model(folder: Path, tmp_path: Path) -> None:
    for name in ("out.weight", "prior.biases.0", "level_rungs"):
        before = id_of(folder)
        changed = TransformModel.from_pretrained(folder)
        with torch.no_grad():
            changed.entropy.get_parameter(name).add_(0.01)
        changed.save_pretrained(tmp_path / name)
        assert id_of(tmp_path / name) != before
        with pytest.raises(ModelError, match="written with model"):
            load(tmp_path / name).decode(load(folder).encode(PICTURE))


def test_other_transforms_read_the_same_files(folder: Path, tmp_path: Path) -> None:
    data = load(folder).encode(PICTURE)
    model = TransformModel.from_pretrained(folder)
    with torch.no_grad():
        for module in (model.synthesis, model.analysis):
            for parameter in module.parameters():
                parameter.add_(1e-3 * torch.randn_like(parameter))
        model.inverse_gain.add_(0.01)
    model.save_pretrained(tmp_path / "better")
    assert id_of(tmp_path / "better") == id_of(folder)
    ours, theirs = (load(path).decode(data).pixels for path in (tmp_path / "better", folder))
    assert not np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", [EXACT, "model.safetensors"])
@pytest.mark.parametrize("change", ["missing", "byte", "truncated", "empty", "header", "pickle"])
def test_files_that_are_missing_or_altered_are_told(name: str, change: str, copied: Path) -> None:
    path = copied / name
    original = path.read_bytes()
    middle = len(original) * 3 // 4
    changes = {
        "byte": original[:middle] + bytes([original[middle] ^ 1]) + original[middle + 1 :],
        "truncated": original[:middle],
        "empty": b"",
        "header": b"\xff" * 8 + original[8:],
        "pickle": b"cos\nsystem\n(S'touch " + str(copied / "owned").encode() + b"'\ntR.",
    }
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes(changes[change])
    with pytest.raises(ModelError, match="get the") as caught:
        load(copied)
    assert "\n" not in str(caught.value)
    assert not (copied / "owned").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "00"},
        {"fingerprint": None},
        {"fingerprint": ["x"]},
        {"kind": "other"},
        {"kind": None},
        {"lmbda_min": 1.0},
        {"lmbda_max": float("nan")},
        {"hyperprior": None},
        {"hyperprior": {"channels": 9, "width": 16, "features": 16}},
        {"hyperprior": {"channels": "many"}},
        {"hyperprior": {"groups": [1, 2]}},
        {"hyperprior": {"groups": []}},
        {"hyperprior": {"groups": [0, 1]}},
        {"hyperprior": {"groups": [1, 4096]}},
        {"hyperprior": {"groups": 3}},
        {"hyperprior": {"groups": ["x"]}},
        {"hyperprior": {"groups": None}},
        {"transform": {"latent_channels": 25}},
        {"transform": {"kind": "nothing"}},
        {"transform": 5},
        {"transform": None},
        {"sha256": {"model.safetensors": "00"}},
    ],
)
def test_a_configuration_that_was_altered_is_told(change: dict, copied: Path) -> None:
    path = copied / "config.json"
    config = json.loads(path.read_text())
    merged = {
        key: {**config[key], **value} if key in ("transform", "hyperprior") and isinstance(value, dict) else value
        for key, value in change.items()
    }
    path.write_text(json.dumps(config | merged))
    with pytest.raises(ModelError) as caught:
        load(copied)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["transform", "fingerprint", "kind"])
def test_a_configuration_without_a_key_is_told(key: str, copied: Path) -> None:
    path = copied / "config.json"
    config = json.loads(path.read_text())
    del config[key]
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError):
        load(copied)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("hidden.weight", lambda x: x.astype(np.float32), "must be of integers"),
        ("level_rungs", lambda x: x.astype(np.int64), "must be of integers"),
        ("hidden.weight", lambda x: x[:, :-1], "hidden.weight"),
        ("hidden.weight", lambda x: np.full(x.shape, 2**30, np.int32), "too large for exact arithmetic"),
        ("near_sizes.weight", lambda x: x[:0], "near_sizes.weight"),
        ("hidden.bias", lambda x: x[:0], "get the"),
        ("synthesis.0.bias", lambda x: x[:0], "get the"),
        ("y_tables.sizes", lambda x: x * 0, "y_tables"),
        ("z_tables.frequencies", lambda x: x[:-1], "z_tables"),
        ("log_sizes", lambda x: x[None], "log_sizes"),
    ],
)
def test_forged_integers_are_refused_before_they_are_used(name, change, message, copied: Path, capsys) -> None:
    tensors = load_arrays(copied / EXACT)
    set_exact(copied, tensors | {name: np.ascontiguousarray(change(tensors[name]))})
    with pytest.raises(ModelError, match=message) as caught:
        load(copied)
    assert "\n" not in str(caught.value)
    (copied / "x.dfl").write_bytes(tiny_codec().encode(PICTURE))
    assert main(["verify", str(copied / "x.dfl"), "--codec", str(copied)]) == 4
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_integers_of_other_shapes_do_not_fill_a_model_in_8_bits(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "light", dtype="int8")
    for name, other in (("wide", HyperpriorConfig(channels=8, width=16, features=24)), ("one", None)):
        model = TransformModel(tiny_model().transform, other) if other else one_rate_model()
        model.save_pretrained(tmp_path / name)
        set_exact(tmp_path / "light", load_arrays(tmp_path / name / EXACT))
        with pytest.raises(ModelError, match=r"must be|does not fit"):
            load(tmp_path / "light")


def test_integers_of_a_model_of_other_width_are_refused(copied: Path) -> None:
    one_rate_model().save_pretrained(copied / "other")
    tensors = load_arrays(copied / "other" / EXACT)
    set_exact(copied, {name: value[: (value.size // 2)] if "low" in name else value for name, value in tensors.items()})
    with pytest.raises(ModelError):
        load(copied)
    counts = tensors["y_tables.sizes"][:5]
    set_exact(
        copied,
        {
            "y_tables.frequencies": tensors["y_tables.frequencies"][: counts.sum()].copy(),
            "y_tables.sizes": counts.copy(),
            "y_tables.low": tensors["y_tables.low"][:5].copy(),
        },
    )
    with pytest.raises(ModelError, match="the entropy model has 5 channels, the transforms 24"):
        load(copied)


def test_weights_that_integers_cannot_hold_are_not_saved(tmp_path: Path) -> None:
    for name in ("out.weight", "synthesis.0.weight", "near_values.weight"):
        model = tiny_model()
        with torch.no_grad():
            model.entropy.get_parameter(name).fill_(9.0)
        with pytest.raises(ModelError, match="beyond 8 or not finite; train it with a lower lr"):
            model.save_pretrained(tmp_path / name)


def test_shapes_that_cannot_be_are_refused() -> None:
    for make in (
        lambda: HyperpriorConfig(channels=0),
        lambda: HyperpriorConfig(groups=()),
        lambda: HyperpriorConfig(groups=(1, 0)),
        lambda: HyperpriorConfig(groups=(1,) * 17),
        lambda: HyperpriorConfig(groups=(1, 600)).group_sizes(256),
        lambda: TransformConfig(widths=(1, 2)),
        lambda: TransformConfig(blocks=(1, 1, -1)),
        lambda: TransformConfig(kind="fft"),  # type: ignore[arg-type]
        lambda: TransformModel(TransformConfig(), None),
        lambda: TransformModel(TransformConfig(), lmbda_min=0.1, lmbda_max=0.01),
        lambda: TransformModel(TransformConfig(), lmbda_min=0.0),
        lambda: TransformModel(TransformConfig(), lmbda_max=float("nan")),
    ):
        with pytest.raises(ConfigError):
            make()


def test_an_average_of_the_same_weights_keeps_the_stored_integers(tmp_path: Path) -> None:
    """Averaging a frozen coder turns -0 into 0, and nothing else."""
    tiny_model().save_pretrained(tmp_path)
    model = TransformModel.from_pretrained(tmp_path)
    with torch.no_grad():
        for value in model.entropy.parameters():
            value[value == 0] = -0.0
    model.save_pretrained(tmp_path / "again")
    model = TransformModel.from_pretrained(tmp_path / "again")
    stored = model.exact_coder
    average = Average(model, 0.1)
    average.update(1)
    with average.swap_in():
        assert model.exact_coder is stored
    assert model.exact_coder is stored
