"""The context model: exact integers, every grid, and training that pays."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from difflate.entropy import ContextModel, SymbolReader, SymbolWriter
from difflate.entropy.context import shapes, stage_bits
from difflate.entropy.interlace import steps
from difflate.errors import ModelError
from difflate.train.context import ContextNet, _Grids, train_context

BITS = [5, 8, 3]


@pytest.fixture(scope="module")
def model() -> ContextModel:
    torch.manual_seed(0)
    return ContextNet(BITS).export()


def random_grid(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, 2**b, (rows, columns)) for b in BITS])


def code(model: ContextModel, grid: np.ndarray, given=None) -> bytes:
    writer = SymbolWriter()
    model.encode(grid, writer, given)
    return writer.finish()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 75), st.integers(1, 75))
def test_every_site_is_coded_once_after_its_neighbours(rows, columns):
    seen = np.zeros(rows * columns + 1, int)
    for step in steps(rows, columns):
        inside = step.neighbours[step.neighbours < rows * columns]
        assert (seen[inside] == 1).all()
        seen[step.sites] += 1
    assert (seen[:-1] == 1).all()


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 36), st.integers(1, 36))
def test_any_grid_round_trips(model, rows, columns):
    grid = random_grid(rows, columns, seed=rows * 100 + columns)
    data = code(model, grid)
    np.testing.assert_array_equal(model.decode(rows, columns, SymbolReader(data)), grid)


def test_given_planes_are_not_coded(model):
    grid = random_grid(20, 30)
    grid[1], grid[2] = 7, 2
    given = {1: 7, 2: 2}
    data = code(model, grid, given)
    np.testing.assert_array_equal(model.decode(20, 30, SymbolReader(data), given), grid)
    assert len(data) < len(code(model, grid)) / 2


def test_indices_outside_the_codebooks_are_refused(model):
    grid = random_grid(4, 4)
    grid[0, 2, 2] = 32
    with pytest.raises(ValueError, match="outside"):
        code(model, grid)


def test_the_network_trained_and_the_one_that_codes_agree(model):
    """The estimate of the float network is the length of the integer one's stream."""
    torch.manual_seed(0)
    net = ContextNet(BITS)
    grid = random_grid(48, 64)
    flat = torch.zeros(3, 48 * 64 + 1, dtype=torch.int64)
    flat[:, :-1] = torch.from_numpy(grid.reshape(3, -1))
    with torch.no_grad():
        parts = [net.bits(flat, *step).sum() for step in _Grids([grid]).steps(48, 64)]
    estimate = float(sum(parts))
    assert abs(8 * len(code(model, grid)) - estimate) < 0.002 * estimate + 64


def test_float64_and_reordered_sums_give_the_same_stream(model):
    """Exact integers: precision and the order of summation cannot matter."""
    grid = random_grid(33, 50)
    data = code(model, grid)
    wide = ContextModel(BITS, model.tensors)
    wide._wide = {k: v.astype(np.float64) for k, v in wide._wide.items()}
    assert code(wide, grid) == data


_HASH = """
import hashlib, sys, numpy as np
from difflate.entropy import ContextModel, SymbolWriter
t = dict(np.load(sys.argv[1]))
g = t.pop("grid")
w = SymbolWriter(); ContextModel([5, 8, 3], t).encode_sequence(g, w)
print(hashlib.sha256(w.finish()).hexdigest())
"""


def test_threads_and_instruction_sets_give_the_same_stream(tmp_path):
    torch.manual_seed(0)
    model = ContextNet(BITS, looks_back=True).export()
    np.savez(tmp_path / "m.npz", grid=np.stack([random_grid(64, 96, seed) for seed in (0, 1)]), **model.tensors)
    hashes = set()
    for variables in (
        {"OPENBLAS_NUM_THREADS": "1"},
        {"OPENBLAS_NUM_THREADS": "2"},
        {"OPENBLAS_NUM_THREADS": "8", "OPENBLAS_CORETYPE": "Haswell"},
        {"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": "AVX512F"},
    ):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _HASH, str(tmp_path / "m.npz")],
            env=variables,
            capture_output=True,
            text=True,
            check=True,
        )
        hashes.add(done.stdout)
    assert len(hashes) == 1


def test_training_pays_and_repeats():
    rng = np.random.default_rng(0)
    walks = np.cumsum(rng.integers(-1, 2, (6, 3, 24, 24)), axis=3) + np.cumsum(
        rng.integers(-1, 2, (6, 3, 24, 24)), axis=2
    )
    grids = [np.stack([np.clip(w + 2 ** (b - 1), 0, 2**b - 1) for w, b in zip(g, BITS, strict=True)]) for g in walks]
    history: list[float] = []
    options = dict(plane_bits=BITS, step_count=24, seed=3, sites_per_step=300)
    first = train_context(grids, report=lambda _, bits: history.append(bits), **options)
    assert np.mean(history[-5:]) < 0.8 * history[0]
    again = train_context(grids, report=lambda *_: None, **options)
    assert all(np.array_equal(first.tensors[k], again.tensors[k]) for k in first.tensors)


def test_tensors_are_checked(model):
    for name in shapes(BITS):
        broken = {k: v for k, v in model.tensors.items() if k != name}
        with pytest.raises(ModelError, match=name):
            ContextModel(BITS, broken)
    huge = dict(model.tensors)
    huge["trunk.bias"] = np.full_like(huge["trunk.bias"], 2**30)
    with pytest.raises(ModelError, match="exactness"):
        ContextModel(BITS, huge)


@pytest.mark.parametrize(
    ("bits", "parts"), [(1, [1]), (4, [4]), (5, [3, 2]), (8, [4, 4]), (9, [3, 3, 3]), (16, [4, 4, 4, 4])]
)
def test_indices_are_coded_in_parts_of_at_most_4_bits(bits, parts):
    assert stage_bits(bits) == parts
