"""The exact stage of the hyperprior codec: the float network in integers, the same wherever and however it runs."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from coder_helpers import GROUPS, one_rate_codec, photo, tiny_codec, tiny_model
from difflate.entropy import SymbolReader, SymbolWriter, fixed_point
from difflate.entropy import hyperprior as exact
from difflate.entropy.gaussian import RUNGS, SCALE_MIN
from difflate.entropy.hyperprior import QUALITY_MAX, HyperpriorCoder, coder_from
from difflate.entropy.latent import SYMBOL_MAX, Latent
from difflate.errors import DesyncError, ModelError
from difflate.format.container import read_dfl
from difflate.media.picture import Picture
from difflate.models.transform_coder import TransformModel
from difflate.nn.entropy_network import RUNG, HyperpriorNetwork

MEAN_TOLERANCE, RUNG_TOLERANCE = 0.02, 0.2
MODEL = tiny_model()
CODER = MODEL.exact_coder
assert isinstance(CODER, HyperpriorCoder)
assert isinstance(MODEL.entropy, HyperpriorNetwork)
GROUPED_MODEL = tiny_model(groups=GROUPS)
GROUPED = GROUPED_MODEL.exact_coder
assert isinstance(GROUPED, HyperpriorCoder)
both = pytest.mark.parametrize(("model", "coder"), [(MODEL, CODER), (GROUPED_MODEL, GROUPED)], ids=["one", "groups"])


def latent_of(height: int, width: int, seed: int = 0, scale: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """(y, z) of a latent that was drawn: heavy tails, and side information that the network's analysis gives."""
    rng = np.random.default_rng(seed)
    y = (rng.laplace(size=(CODER.latent_channels, height, width)) * scale).astype(np.float32)
    with torch.no_grad():
        return y, MODEL.side_information(torch.from_numpy(y)[None])[0].numpy()


def coded(y: np.ndarray, z: np.ndarray, quality: int, coder: HyperpriorCoder = CODER) -> tuple[Latent, bytes]:
    writer = SymbolWriter()
    return coder.encode(y, z, quality, writer), writer.finish()


def parameters(latent: Latent, quality: int, coder: HyperpriorCoder = CODER) -> tuple[np.ndarray, np.ndarray]:
    """(M, h, w) means, and table numbers, that the integers give for each site of ``latent``."""
    means, index = np.empty(latent.q.shape), np.empty(latent.q.shape, np.int64)
    state = exact._State(*latent.q.shape[1:], coder.groups)
    for group, (i, j), mean, tables in coder._steps(latent.z, quality, state):
        place = coder.groups[group][:, None], i, j
        means[place], index[place] = mean.T / fixed_point.ONE, tables.T
        state.put(group, (i, j), latent.q[place].T, mean)
    return means, index


@torch.no_grad()
def float_parameters(latent: Latent, quality: int, model: TransformModel = MODEL) -> tuple[np.ndarray, np.ndarray]:
    """The same of the network that is trained; the scales as places on the ladder."""
    network = model.entropy
    y_hat, q = torch.from_numpy(latent.y_hat)[None], torch.from_numpy(latent.q)[None].float()
    features = network.hyper_synthesis(torch.from_numpy(latent.z)[None].float(), y_hat.shape[2:])
    found = network.parameters_of(y_hat, q, features, torch.tensor([quality / QUALITY_MAX]))
    mean, scale = (values[0].double().numpy() for values in found)
    return mean, np.log(scale / SCALE_MIN) / RUNG


@both
@pytest.mark.parametrize("quality", [0, 1, 20_000, 46_811, QUALITY_MAX])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (6, 5), (17, 20)])
def test_the_integers_are_the_float_network(
    size: tuple[int, int], quality: int, model: TransformModel, coder: HyperpriorCoder
) -> None:
    latent, _ = coded(*latent_of(*size), quality, coder)
    means, index = parameters(latent, quality, coder)
    float_means, rungs = float_parameters(latent, quality, model)
    assert np.abs(means - float_means).max() < MEAN_TOLERANCE
    rungs = rungs.clip(0, RUNGS - 1)
    assert np.abs(index - rungs).max() < 0.5 + RUNG_TOLERANCE
    clear = np.abs(rungs - np.floor(rungs) - 0.5) > RUNG_TOLERANCE  # no tie
    assert np.array_equal(index[clear], np.rint(rungs[clear]))
    assert clear.mean() > 0.3


@both
def test_means_and_scales_of_the_model_tested_with_vary(model: TransformModel, coder: HyperpriorCoder) -> None:
    latent, _ = coded(*latent_of(17, 20), 30_000, coder)
    means, index = parameters(latent, 30_000, coder)
    assert np.abs(latent.z).max() > 1
    assert means.std(axis=(1, 2)).min() > 0.2
    assert index.std(axis=(1, 2)).min() > 0.5
    assert np.ptp(index) > 20


@both
def test_y_hat_is_that_of_training_but_for_ties(model: TransformModel, coder: HyperpriorCoder) -> None:
    y, z = latent_of(17, 20)
    latent, _ = coded(y, z, 30_000, coder)
    with torch.no_grad():
        theirs = model.entropy(torch.from_numpy(y)[None], torch.tensor([30_000 / QUALITY_MAX])).y_hat[0].numpy()
    difference = np.abs(latent.y_hat - theirs)
    # a tie that falls the other way tells later groups something else
    assert (difference < MEAN_TOLERANCE).mean() > (0.97 if len(coder.groups) == 1 else 0.9)
    assert difference.max() < (1 if len(coder.groups) == 1 else 2) + MEAN_TOLERANCE
    assert np.array_equal(latent.y_hat * 256, np.rint(latent.y_hat * 256))


def test_values_are_rounded_or_made_smaller_where_that_saves_bits() -> None:
    y, z = latent_of(17, 20)
    latent, _ = coded(y, z, 30_000)
    means, _ = parameters(latent, 30_000)
    short = np.abs(y - means) - np.abs(latent.q)
    assert short.min() >= -0.5 - 1e-6
    assert 0.5 < short.max() < 1
    assert ((latent.q == 0) | (np.sign(latent.q) == np.sign(y - means))).all()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([CODER, GROUPED]), st.integers(1, 13), st.integers(1, 13), st.integers(0, QUALITY_MAX),
    st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 5.0, 300.0, 50_000.0]),
)  # fmt: skip
def test_what_is_written_is_read(
    coder: HyperpriorCoder, height: int, width: int, quality: int, seed: int, scale: float
) -> None:
    latent, data = coded(*latent_of(height, width, seed, scale), quality, coder)
    again = coder.decode(height, width, quality, SymbolReader(data))
    assert again.symbols() == latent.symbols()
    assert np.array_equal(again.y_hat, latent.y_hat)
    assert np.array_equal(again[:, 1:3, 2:], latent.y_hat[:, 1:3, 2:])
    assert len(latent.symbols()) == 2 * (latent.z.size + latent.q.size)


@pytest.mark.parametrize("value", [1e30, -1e30, 40_000.0])
def test_what_is_too_large_is_clipped(value: float) -> None:
    y, z = latent_of(5, 6)
    y[3, 2, 1], z[0, 0, 0] = value, np.sign(value) * 1e6
    latent, data = coded(y, z, QUALITY_MAX)
    assert abs(int(latent.q[3, 2, 1])) == SYMBOL_MAX
    assert abs(int(latent.z[0, 0, 0])) == SYMBOL_MAX
    assert CODER.decode(5, 6, QUALITY_MAX, SymbolReader(data)).symbols() == latent.symbols()


def test_symbols_that_are_never_written_are_told() -> None:
    writer = SymbolWriter()
    writer.write(np.array([40_000] + [0] * 7), CODER.z_tables, np.arange(8))
    with pytest.raises(DesyncError, match="larger than any"):
        CODER.decode(1, 1, 0, SymbolReader(writer.finish()))


@both
def test_bands_of_rows_do_not_show(
    model: TransformModel, coder: HyperpriorCoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, z = latent_of(22, 7)
    whole, _ = coded(y, z, 9_000, coder)
    for sites in (1, 28 + 3, 8 * 7):
        monkeypatch.setattr(exact, "_BAND_SITES", sites)
        latent, data = coded(y, z, 9_000, coder)
        assert latent.symbols() == whole.symbols()
        assert coder.decode(22, 7, 9_000, SymbolReader(data)).symbols() == whole.symbols()


def test_the_factorized_coder_codes_rounded_values() -> None:
    coder = one_rate_codec().coder.exact
    y = latent_of(6, 5, scale=40.0)[0]
    writer = SymbolWriter()
    latent = coder.encode(y, np.empty((0, 0, 0)), 0, writer)
    assert np.array_equal(latent.q, np.rint(y))
    assert np.array_equal(latent.y_hat, latent.q.astype(np.float32))
    assert np.array_equal(latent[:, 1:3, 2:], latent.y_hat[:, 1:3, 2:])
    assert latent.z.size == 0
    assert coder.decode(6, 5, 0, SymbolReader(writer.finish())).symbols() == latent.symbols()


# -- arithmetic ------------------------------------------------------------------------------------------------------


def test_layers_are_those_of_torch() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 1 << 20, (6, 7, 4)).astype(np.float64)
    weights, biases = rng.integers(-32767, 32767, (36, 8)).astype(np.float64), rng.integers(-(2**31), 2**31, 8)
    kernel = torch.from_numpy(weights).reshape(3, 3, 4, 8).permute(3, 2, 0, 1)
    theirs = F.conv2d(torch.from_numpy(x).permute(2, 0, 1)[None], kernel, torch.from_numpy(biases).double())
    assert np.array_equal(fixed_point.conv3x3(x, weights, biases).transpose(2, 0, 1), theirs[0].numpy())
    shuffled = F.pixel_shuffle(torch.from_numpy(x).permute(2, 0, 1)[None], 2)[0].permute(1, 2, 0)
    assert np.array_equal(fixed_point.pixel_shuffle(x), shuffled.numpy())


def test_activations_are_rounded_half_up_and_clipped() -> None:
    sums = np.array([2047, 2048, -2048, -2049, 6143, 6144, 2**52]).astype(np.float64)
    assert fixed_point.shift(sums.copy()).tolist() == [0, 1, 0, -1, 1, 2, 2**40]
    assert fixed_point.relu(sums).tolist() == [0, 1, 0, 0, 1, 2, fixed_point.ACTIVATION_MAX]


@pytest.mark.parametrize("value", [8.0, -9.0, np.nan, np.inf])
def test_weights_out_of_range_are_told(value: float) -> None:
    assert fixed_point.to_weights(np.array([7.9997, -0.5])).tolist() == [32767, -2048]
    with pytest.raises(ModelError, match="beyond 8 or not finite"):
        fixed_point.to_weights(np.array([0.0, value]))
    with pytest.raises(ModelError, match="beyond 2048 or not finite"):
        fixed_point.to_biases(np.array([0.0, value * 300]))


TENSORS = CODER.exact_tensors()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("hidden.weight", None, "tensor hidden.weight of the entropy model is missing"),
        ("z_tables.sizes", None, "z_tables"),
        ("y_tables.low", None, "y_tables"),
        ("hidden.weight", TENSORS["hidden.weight"].astype(np.float32), r"\(=float32\) must be of integers"),
        ("log_sizes", TENSORS["log_sizes"].astype(np.int64), r"\(=int64\) must be of integers"),
        ("out.weight", TENSORS["out.weight"][:, 1:], "out.weight"),
        ("synthesis.0.weight", TENSORS["synthesis.0.weight"].T.copy(), "synthesis.0.weight"),
        ("synthesis.1.bias", TENSORS["synthesis.1.bias"][:-1], "synthesis.1.bias"),
        ("near_values.bias", TENSORS["near_values.bias"][1:], "must be"),
        ("level_rungs", TENSORS["level_rungs"][:1], "level_rungs"),
        ("level_rungs", TENSORS["level_rungs"][:, 1:], "level_rungs"),
        ("log_sizes", TENSORS["log_sizes"][:0], "log_sizes"),
        ("log_sizes", TENSORS["log_sizes"] + 2**20, "log_sizes"),
        ("y_tables.sizes", TENSORS["y_tables.sizes"] + 1, "y_tables"),
        ("y_tables.low", TENSORS["y_tables.low"][1:], "y_tables"),
        ("z_tables.frequencies", TENSORS["z_tables.frequencies"] - 1, "sum to 2"),
        ("z_tables.frequencies", -TENSORS["z_tables.frequencies"], "sum to 2"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(name: str, value: np.ndarray | None, message: str) -> None:
    tensors = TENSORS | {name: value}
    with pytest.raises(ModelError, match=message) as caught:
        coder_from({key: tensor for key, tensor in tensors.items() if tensor is not None})
    assert "\n" not in str(caught.value)


GROUPED_TENSORS = GROUPED.exact_tensors()


def test_one_group_stores_nothing_new() -> None:
    assert {name for name in TENSORS if "_tables." not in name} == set(exact._KEYS)
    new = {name for name in GROUPED_TENSORS if name not in TENSORS}
    assert "channel_groups" in new
    assert all(name.startswith("later.") for name in new - {"channel_groups"})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("channel_groups", None, "must be"),  # `out` and `near_mix` are those of a few channels
        ("channel_groups", lambda x: x[1:], r"channel_groups \(=\(23,\)\) must be \(24,\)"),
        ("channel_groups", lambda x: x[None], "channel_groups"),
        ("channel_groups", lambda x: x - 1, "must number the groups"),
        ("channel_groups", lambda x: x * 2, "must number the groups"),
        ("channel_groups", lambda x: np.where(x == 0, 1, x), "must number the groups"),
        ("channel_groups", lambda x: np.where(x == 2, 32767, x), "must number the groups"),
        ("channel_groups", lambda x: np.arange(24), "must be|missing"),
        ("channel_groups", lambda x: np.where(x == 2, 1, x), "must be"),
        ("channel_groups", lambda x: np.roll(np.where(x == 2, 1, x), 1), "must be"),
        ("channel_groups", lambda x: x.astype(np.float32), "must be of integers"),
        ("later.0.hidden.weight", None, "later.0.hidden.weight of the entropy model is missing"),
        ("later.0.hidden.bias", lambda x: x[1:], "later.0.hidden.bias"),
        ("later.1.out.weight", lambda x: x[:, 1:], "later.1.out.weight"),
        ("later.1.near_mix.weight", lambda x: x.T.copy(), "later.1.near_mix.weight"),
        ("later.1.lead.weight", lambda x: x[:9], "later.1.lead.weight"),
        ("later.1.values.weight", None, "later.1.values.weight of the entropy model is missing"),
        ("later.1.hidden.weight", lambda x: np.full(x.shape, 2**30), "too large for exact arithmetic"),
        ("later.1.near_mix.weight", lambda x: np.full(x.shape, 2**30), "too large for exact arithmetic"),
        ("later.0.lead.weight", lambda x: np.full(x.shape, 2**25), "too large for exact arithmetic"),
        ("later.1.values.weight", lambda x: np.full(x.shape, 2**27), "too large for exact arithmetic"),
    ],
)
def test_groups_that_do_not_fit_are_refused(name: str, change: Any, message: str) -> None:
    tensors = dict(GROUPED_TENSORS)
    value = tensors.pop(name)
    if change is not None:
        changed = change(value)
        tensors[name] = changed if changed.dtype == np.float32 else changed.astype(np.int32)
    with pytest.raises(ModelError, match=message) as caught:
        coder_from(tensors)
    assert "\n" not in str(caught.value)


def test_a_group_is_told_by_those_before_it_alone() -> None:
    """Other numbers in a channel change nothing of its group and those before, and something of those behind."""
    latent, _ = coded(*latent_of(9, 8), 30_000, GROUPED)
    means, index = parameters(latent, 30_000, GROUPED)
    channel = GROUPED.groups[1][0]
    q = latent.q.copy()
    q[channel, 4, 4] += 40  # a site of the first pass
    moved, other = parameters(Latent(latent.z, q), 30_000, GROUPED)
    first, second, third = GROUPED.groups
    assert np.array_equal(moved[first], means[first])
    assert np.array_equal(other[first], index[first])
    changed = (moved != means) | (other != index)
    assert not changed[second][:, 4, 4].any()
    assert changed[second][:, 4, 5].any()
    assert changed[third][:, 4, 4].all()
    assert changed[third][:, 4, 5].any()


def test_sums_that_could_be_inexact_are_refused() -> None:
    """Weights of 2^30 times activations of 2^20, a few of them, are more than the 2^53 that float64 counts to."""
    for name in ("synthesis.0.weight", "hidden.weight", "out.weight", "near_mix.weight", "near_values.weight"):
        large = np.full(TENSORS[name].shape, 2**30, np.int32)
        with pytest.raises(ModelError, match="too large for exact arithmetic"):
            coder_from(TENSORS | {name: large})


def test_exact_tensors_make_the_same_coder() -> None:
    y, z = latent_of(9, 4)
    for tensors, coder in ((TENSORS, CODER), (GROUPED_TENSORS, GROUPED)):
        again = coder_from(tensors)
        assert isinstance(again, HyperpriorCoder)
        assert coded(y, z, 333, again)[1] == coded(y, z, 333, coder)[1]


# -- other processes -------------------------------------------------------------------------------------------------

OTHER_PROCESS = """
import contextlib, hashlib, json, sys
from pathlib import Path
import torch
import difflate
from difflate.format.container import read_dfl
from difflate.media.picture import open_image

folder, out = Path(sys.argv[1]), Path(sys.argv[2])
files = sorted(folder.glob("*.dfl"))
pictures = [open_image(path) for path in sorted(folder.glob("*.png"))]
found = {}

def configurations():
    yield "plain", difflate.load(folder / "model"), contextlib.nullcontext()
    yield "bf16", difflate.load(folder / "model"), torch.autocast("cpu", torch.bfloat16)
    yield "no onednn", difflate.load(folder / "model"), torch.backends.mkldnn.flags(enabled=False)
    codec = difflate.load(folder / "model")
    codec.model.to(memory_format=torch.contiguous_format)
    yield "contiguous", codec, contextlib.nullcontext()
    codec = difflate.load(folder / "model")
    with torch.no_grad():
        for parameter in codec.model.parameters():
            parameter.add_(1e-3 * torch.randn_like(parameter))
    for module in codec.model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, x, y: y + 1e-3 * torch.randn_like(y))
    yield "noise", codec, contextlib.nullcontext()

for number, (name, codec, context) in enumerate(configurations()):
    with context:
        for path in files[:: 1 - 2 * (number % 2)]:
            data = path.read_bytes()
            found[f"{name} reads {path.name}"] = hashlib.sha256(codec.read_latent(read_dfl(data)).symbols()).hexdigest()
            codec.decode(data)
        if name != "bf16":
            for place, picture in list(enumerate(pictures))[:: 1 - 2 * (number % 2)]:
                data = codec.encode(picture, quality=10 + 80 * place / len(pictures))
                path = out / f"{number}-{place}.dfl"
                path.write_bytes(data)
                symbols = codec.read_latent(read_dfl(data)).symbols()
                found[f"writes {path.name}"] = hashlib.sha256(symbols).hexdigest()
print(json.dumps(found))
"""


def test_processes_threads_layouts_and_noise_do_not_change_the_symbols(tmp_path: Path) -> None:
    codec = tiny_codec(groups=GROUPS)
    codec.model.save_pretrained(tmp_path / "model")
    expected = {}
    for number, (height, width) in enumerate([(80, 112), (33, 50)]):
        pixels = photo(height, width, 60 * number, 90 * number)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(tmp_path / f"{number}.png")
        data = codec.encode(Picture(pixels), quality=45.5 * number)
        (tmp_path / f"{number}.dfl").write_bytes(data)
        expected[f"{number}.dfl"] = hashlib.sha256(codec.read_latent(read_dfl(data)).symbols()).hexdigest()
    generic = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OPENBLAS_CORETYPE": "Nehalem"}
    started = []
    for threads, more in (("1", generic), ("2", {})):
        out = tmp_path / f"threads-{threads}"
        out.mkdir()
        count = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive"}
        words = [sys.executable, "-c", OTHER_PROCESS, str(tmp_path), str(out)]
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **count, **more}
        )
        started.append((process, out))
    for process, out in started:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        found = json.loads(output)
        read = {name: value for name, value in found.items() if " reads " in name}
        assert len(read) == 5 * len(expected)
        assert all(value == expected[name.split(" reads ")[1]] for name, value in read.items()), read
        written = {name.removeprefix("writes "): value for name, value in found.items() if name.startswith("writes")}
        assert len(written) == 4 * len(expected)
        for name, value in written.items():
            latent = codec.read_latent(read_dfl((out / name).read_bytes()))
            assert hashlib.sha256(latent.symbols()).hexdigest() == value


@both
def test_the_network_that_is_filled_gives_the_same_integers(model: TransformModel, coder: HyperpriorCoder) -> None:
    other = TransformModel(model.transform, model.hyperprior).entropy
    assert isinstance(other, HyperpriorNetwork)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    other.fill(coder.tensors)
    made = other.fixed_point()
    assert made.keys() == coder.tensors.keys()
    for name, value in coder.tensors.items():
        assert made[name].dtype == value.dtype
        assert np.array_equal(made[name], value), name
    # and the weights that they were made from, to the last of their digits; the analysis and the prior as they were
    ours = model.entropy.state_dict()
    near = ("near_values.weight", "near_sizes.weight")
    for name, value in other.state_dict().items():
        if name not in other.fixed_names:
            assert torch.equal(value, before[name])
            assert name.split(".")[0] in ("analysis", "prior")
        else:
            wanted = ours[name] * other.mask if name in near else ours[name]
            assert (value - wanted).abs().max() <= 2.0**-13, name


@pytest.mark.parametrize("value", [16.000001, -1234.5678, 3e-7])
def test_biases_are_filled_with_all_their_digits(value: float) -> None:
    biases = np.array([value], np.float32)
    fixed = fixed_point.to_biases(biases)
    filled = fixed_point.from_biases(fixed).astype(np.float32)
    assert fixed_point.to_biases(filled) == fixed
    assert abs(filled - biases) <= 2.0**-21


def test_integers_of_another_network_do_not_fill_one() -> None:
    for source, model, message in ((CODER, GROUPED_MODEL, "groups"), (GROUPED, MODEL, "groups")):
        with pytest.raises(ModelError, match=message):
            model.entropy.fill(source.tensors)  # type: ignore[union-attr]
    for name in ("hidden.weight", "level_rungs", "near_sizes.weight", "synthesis.0.weight"):
        with pytest.raises(ModelError, match=f"tensor {name} .* must be"):
            MODEL.entropy.fill(CODER.tensors | {name: CODER.tensors[name][:-1]})  # type: ignore[union-attr]
