"""The context model that looks back: exact, told by the right sites of the grid before, and worth its weights."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoencoder_helpers import autoencoder
from difflate.codecs.indices import IndexCoder
from difflate.entropy import ContextModel, SymbolReader, SymbolWriter
from difflate.entropy.context import DIMS, shapes
from difflate.entropy.interlace import NEIGHBOURS, PAST, same_place, steps
from difflate.errors import DifflateError, FormatError, ModelError
from difflate.models.autoencoder import Autoencoder, even_context
from difflate.train.context import ContextNet, grid_columns, train_context
from difflate.train.index_context import ContextSettings, fit_clips

BITS = [5, 8, 3]
SIZES = [32, 256, 5]


@pytest.fixture(scope="module")
def model() -> ContextModel:
    return net().export()


def net() -> ContextNet:
    torch.manual_seed(0)
    return ContextNet(BITS, looks_back=True)


def random_grids(count: int, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, (count, rows, columns)) for size in SIZES], axis=1).astype(np.uint16)


def coded_bytes(model: ContextModel, grids: np.ndarray) -> int:
    writer = SymbolWriter()
    model.encode_sequence(grids, writer)
    return len(writer.finish())


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 4), st.integers(1, 35), st.integers(1, 20), st.booleans(), st.booleans())
def test_any_sequence_round_trips_in_one_stream_and_in_two(model, count, rows, columns, fixed_rate, grey):
    coder, neutral = IndexCoder(model, {2: 4}, SIZES), {2: 4} if grey else {}
    grids = random_grids(count, rows, columns, seed=rows)
    for plane, index in neutral.items():
        grids[:, plane] = index
    data = coder.write_grids(grids, fixed_rate, neutral)
    np.testing.assert_array_equal(coder.read_grids(data, count, rows, columns, fixed_rate, neutral), grids)
    first, past = count // 2, None
    for part in (grids[:first], grids[first:]):
        data = coder.write_grids(part, fixed_rate, neutral, past)
        found = coder.read_grids(data, len(part), rows, columns, fixed_rate, neutral, past)
        np.testing.assert_array_equal(found, part)
        past = found[-1] if len(found) else None


def test_a_first_grid_is_coded_as_an_image_is(model):
    grid = random_grids(1, 9, 14)
    writer = SymbolWriter()
    model.encode(grid[0], writer)
    assert IndexCoder(model, {}, SIZES).write_grids(grid) == writer.finish()


def test_a_model_that_does_not_look_back_codes_each_grid_by_itself(model):
    ahead = ContextModel(BITS, {k: v for k, v in model.tensors.items() if k != "past.weight"})
    assert (model.looks_back, ahead.looks_back) == (True, False)
    grid, past = random_grids(2, 10, 10)
    streams = []
    for coder in (ahead, model):
        for before in (None, past):
            writer = SymbolWriter()
            coder.encode(grid, writer, past=before)
            streams.append(writer.finish())
    assert streams[0] == streams[1] == streams[2] != streams[3]


@pytest.mark.parametrize("with_past", [False, True])
def test_the_network_trained_is_the_one_that_codes_to_the_last_bit(model, with_past):
    trained, rows, columns = net(), 35, 18
    grid, past = random_grids(2, rows, columns)
    if not with_past:
        past = None
    planes, size = grid_columns(grid, past)
    outside = planes.shape[1] - 1
    around, estimate = model._described(model._flat(grid)), 0.0
    behind = None if past is None else model._described(model._flat(past))
    for step in steps(rows, columns):
        places = same_place(step.sites, rows, columns)
        near = torch.from_numpy(np.where(step.neighbours == size, outside, step.neighbours))
        columns_behind = torch.from_numpy(places + size if with_past else np.full_like(places, outside))
        with torch.no_grad():
            ours = trained.trunk(planes, step.kind, near, columns_behind)
            estimate += float(trained.bits(planes, step.kind, torch.from_numpy(step.sites), near, columns_behind).sum())
        theirs = model._trunk(step, around, None if behind is None else behind[places])
        np.testing.assert_array_equal(64 * ours.numpy(), theirs)
    writer = SymbolWriter()
    model.encode(grid, writer, past=past)
    assert abs(8 * len(writer.finish()) - estimate) < 0.002 * estimate + 64


@pytest.mark.parametrize("place", range(9))
def test_each_of_the_nine_sites_is_where_it_is_said_to_be(place):
    """A network that takes what one of them was: moved by that much, a grid costs what the closed form says."""
    tensors = {name: np.zeros_like(t) for name, t in even_context([2], looks_back=True).tensors.items()}
    tensors["exp"] = even_context([2]).tensors["exp"]
    for value in range(4):
        tensors["describe.0"][value, value] = 127
        tensors["past.weight"][:, DIMS.descriptor * place + value, value] = 127
        tensors["stage.0.hidden.weight"][value, value] = 127
        tensors["stage.0.out.weight"][value, value] = 127
    copies = ContextModel([2], tensors)
    past = np.random.default_rng(0).integers(0, 4, (1, 40, 41))
    moved = np.roll(past, tuple(-PAST[place]), axis=(1, 2))
    writer = SymbolWriter()
    copies.encode(moved, writer, past=past)
    ahead = math.log2(1 + 3 * math.exp(-round(127 * 127 / 256) / 16))
    rim = 2 * (40 + 41)  # at most so many sites look outside or at what was rolled around
    assert 0 <= 8 * len(writer.finish()) - ahead * moved.size < 6 * rim + 64
    assert 2 * moved.size - 8 < 8 * coded_bytes(copies, moved[None]) < 2 * moved.size + 64


def test_sums_are_exact_whatever_the_weights_are(model):
    inputs = (NEIGHBOURS + len(PAST)) * (DIMS.descriptor + 1)
    assert inputs * 127 * 127 < 2**24
    largest = {name: np.full_like(t, 127) for name, t in model.tensors.items() if name.endswith("weight")}
    ContextModel(BITS, model.tensors | largest)
    for name in ("trunk.bias", "past.weight"):
        with pytest.raises(ModelError, match="exactness" if name == "trunk.bias" else name):
            ContextModel(BITS, model.tensors | largest | {name: np.full_like(model.tensors[name], 2**23, np.int32)})


def test_tensors_and_pasts_that_do_not_fit_are_refused(model):
    tensor = model.tensors["past.weight"]
    assert tensor.shape == shapes(BITS, looks_back=True)["past.weight"]
    for wrong in (tensor[:4], tensor[:, :-1], tensor.astype(np.int32)):
        with pytest.raises(ModelError, match=r"past\.weight"):
            ContextModel(BITS, model.tensors | {"past.weight": wrong})
    grid, past = random_grids(2, 6, 7)
    for wrong in (past[:, :5], past[:, :, :-1], past[:2], past + 256):
        with pytest.raises(ValueError, match=r"grid before|planes|outside"):
            model.encode(grid, SymbolWriter(), past=wrong)
        with pytest.raises(ValueError, match=r"grid before|planes|outside"):
            model.decode(6, 7, SymbolReader(b""), past=wrong)


def test_damaged_streams_are_told_or_give_indices_that_there_are(model):
    coder, grids = IndexCoder(model, {}, SIZES), random_grids(2, 6, 7)
    data, rng = coder.write_grids(grids), np.random.default_rng(0)
    for _ in range(40):
        wrong = bytearray(data)
        wrong[int(rng.integers(len(wrong)))] ^= 1 << int(rng.integers(8))
        try:
            found = coder.read_grids(bytes(wrong), 2, 6, 7)
        except DifflateError:
            continue
        assert all(found[:, p].max() < size for p, size in enumerate(SIZES))
    with pytest.raises(FormatError, match="where the header asks for"):
        coder.read_grids(coder.write_grids(grids, fixed_rate=True)[:-1], 2, 6, 7, fixed_rate=True)


def clip_that_stays(rng: np.random.Generator) -> np.ndarray:
    """(6, 2, 12, 15) below 4, of which a site in twenty changes from one grid to the next."""
    grids = [rng.integers(0, 4, (2, 12, 15))]
    for _ in range(5):
        grids.append(np.where(rng.random((1, 12, 15)) < 0.05, rng.integers(0, 4, (2, 12, 15)), grids[-1]))
    return np.stack(grids)


def test_what_stays_costs_less_to_a_model_that_looks_back():
    rng = np.random.default_rng(0)
    clips, held_back = [clip_that_stays(rng) for _ in range(20)], clip_that_stays(rng)
    fitted = train_context(
        clips, [2, 2], step_count=60, seed=0, sites_per_step=300, report=lambda *_: None, looks_back=True
    )
    alone, sites = coded_bytes(fitted, held_back[:1]), 12 * 15
    told = coded_bytes(fitted, held_back) - alone
    assert 8 * alone / sites > 3.9  # indices of one grid are independent: no model does with less than 4 bits
    assert 8 * told / (5 * sites) < 0.7 * 4


def test_clips_and_images_are_fitted_and_counted_alike():
    rng = np.random.default_rng(0)
    clips, held_back = [clip_that_stays(rng), clip_that_stays(rng)[:1]], [clip_that_stays(rng)]
    start = even_context([2, 2], looks_back=True)
    fitted, report = fit_clips(start, [4, 4], iter(clips), iter(held_back), ContextSettings(steps=1), seed=0)
    assert fitted.looks_back
    assert fitted is not start
    assert (report.sites, report.fixed_bits, report.combinations) == (7 * 12 * 15, 4, 16)
    assert report.coded_bits == 8 * coded_bytes(fitted, held_back[0]) / held_back[0][:, 0].size
    again, _ = fit_clips(start, [4, 4], clips, [], ContextSettings(steps=1), seed=0)
    assert all(np.array_equal(fitted.tensors[k], again.tensors[k]) for k in fitted.tensors)
    kept, report = fit_clips(start, [4, 4], clips, [], ContextSettings(steps=0), seed=0)
    assert kept is start
    assert report.coded_bits is None


def test_a_folder_says_by_its_tensors_whether_its_model_looks_back(tmp_path: Path) -> None:
    model = autoencoder("vq")
    before = model.fingerprint
    model.context = even_context(model.plane_bits, looks_back=True)
    assert model.fingerprint != before
    model.save_pretrained(tmp_path)
    again = Autoencoder.from_pretrained(tmp_path)
    assert again.context.looks_back
    assert again.fingerprint == model.fingerprint


@pytest.mark.parametrize("looks_back", [False, True])
def test_a_fitted_model_can_be_gone_on_from(looks_back: bool) -> None:
    torch.manual_seed(3)
    fitted = ContextNet([3, 5], looks_back).export()
    again = ContextNet([3, 5], looks_back)
    again.take(fitted)
    assert all(np.array_equal(tensor, fitted.tensors[name]) for name, tensor in again.export().tensors.items())
    kept = train_context(
        [np.zeros((2, 2, 4, 4), np.uint16)], [3, 5], step_count=0, seed=0, report=lambda step, bits: None,
        looks_back=looks_back, start=fitted,
    )  # fmt: skip
    assert all(np.array_equal(tensor, fitted.tensors[name]) for name, tensor in kept.tensors.items())
