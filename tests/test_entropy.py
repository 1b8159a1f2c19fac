"""The range coder and its tables: round trips, closed forms, and a second, independent reader."""

import pkgutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import difflate.entropy
from difflate.entropy import SymbolReader, SymbolWriter, Tables
from difflate.entropy.coder import PRECISION
from difflate.entropy.fixed_rate import pack, packed_bytes, unpack
from difflate.errors import DesyncError, FormatError, ModelError
from reference_coder import ReferenceReader

TABLES = Tables.from_counts([np.arange(1, 200), [5], [0, 0, 7, 1], np.ones(1000)], low=[-100, 3, 0, -500])


def round_trip(symbols, tables, index=None):
    writer = SymbolWriter()
    writer.write(symbols, tables, index)
    data = writer.finish()
    return SymbolReader(data).read(np.size(symbols), tables, index), data


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.one_of(st.integers(-120, 120), st.integers(-(2**31), 2**31 - 1)), st.integers(0, 3)), max_size=60
    )
)
def test_any_symbols_with_any_table_round_trip(pairs):
    symbols = np.array([s for s, _ in pairs], np.int64)
    index = np.array([t for _, t in pairs], np.int64)
    decoded, _ = round_trip(symbols, TABLES, index)
    np.testing.assert_array_equal(decoded, symbols)


def test_nothing_takes_no_bytes():
    decoded, data = round_trip(np.empty(0, np.int64), TABLES, np.empty(0, np.int64))
    assert decoded.size == 0
    assert len(data) <= 8


def test_a_certain_symbol_is_nearly_free():
    decoded, data = round_trip(np.full(100_000, 3), Tables.from_counts([[1]], low=[3]))
    assert (decoded == 3).all()
    assert len(data) <= 8


def test_a_table_of_the_escape_alone_codes_anything():
    tables = Tables([np.array([2**PRECISION])])
    symbols = np.array([0, -1, 1, 2**31 - 1, -(2**31)])
    np.testing.assert_array_equal(round_trip(symbols, tables)[0], symbols)


def test_streams_are_as_long_as_the_tables_say():
    rng = np.random.default_rng(0)
    counts = rng.gamma(0.5, size=(64, 256)) + 1e-6
    tables = Tables.from_counts(counts)
    index = rng.integers(0, 64, 200_000)
    symbols = np.array([rng.choice(256, p=counts[t] / counts[t].sum()) for t in index[:20_000]])
    index = index[:20_000]
    decoded, data = round_trip(symbols, tables, index)
    np.testing.assert_array_equal(decoded, symbols)
    ideal = tables.bits(symbols, index)
    assert ideal <= 8 * len(data) <= ideal * 1.001 + 300


def test_an_independent_reader_reads_static_tables():
    rng = np.random.default_rng(1)
    symbols = rng.integers(-100, 99, 500)
    writer = SymbolWriter()
    writer.write(symbols, TABLES)
    reader = ReferenceReader(writer.finish())
    frequencies = TABLES.frequencies[0].tolist()
    assert [reader.read(frequencies) - 100 for _ in symbols] == symbols.tolist()


def test_an_independent_reader_reads_tables_of_each_symbol():
    rng = np.random.default_rng(2)
    counts = rng.integers(0, 1000, (400, 16))
    counts[:, 0] += 2**PRECISION - 16 - counts.sum(axis=1)
    symbols = rng.integers(0, 16, 400)
    writer = SymbolWriter()
    writer.write_each(symbols, counts)
    data = writer.finish()
    np.testing.assert_array_equal(SymbolReader(data).read_each(counts), symbols)
    reader = ReferenceReader(data)
    assert [reader.read([c + 1 for c in row]) for row in counts.tolist()] == symbols.tolist()


def test_streams_that_end_in_zeros_read_back():
    # the zero bytes at the end of a stream are not stored
    tables = Tables.from_counts([[1, 1]])
    lengths = set()
    for n in range(1, 200):
        symbols = np.zeros(n, np.int64)
        decoded, data = round_trip(symbols, tables)
        assert not data.endswith(b"\0")
        np.testing.assert_array_equal(decoded, symbols)
        lengths.add(len(data))
    assert min(lengths) < 4


def test_garbage_is_an_error_or_other_symbols_never_a_crash():
    rng = np.random.default_rng(3)
    outcomes = set()
    for _ in range(200):
        data = rng.bytes(int(rng.integers(0, 40)))
        try:
            SymbolReader(data).read(50, TABLES, rng.integers(0, 4, 50))
            outcomes.add("symbols")
        except DesyncError:
            outcomes.add("error")
    assert "symbols" in outcomes


@pytest.mark.parametrize("wrong", [[0, 2**PRECISION], [1, 2], [-1, 2**PRECISION + 1], []])
def test_tables_that_a_decoder_could_not_use_are_refused(wrong):
    with pytest.raises(ModelError, match="table 0"):
        Tables([np.array(wrong, np.int64)])


def test_an_index_outside_the_tables_is_refused():
    with pytest.raises(ValueError, match="table numbers"):
        round_trip(np.zeros(2, np.int64), TABLES, np.array([0, 4]))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 16).flatmap(lambda b: st.tuples(st.just(b), st.lists(st.integers(0, 2**b - 1), max_size=20))))
def test_packed_integers_take_their_bits_and_no_more(case):
    bits, values = case
    data = pack(np.array(values, np.int64), bits)
    assert len(data) == packed_bytes(len(values), bits) == -(-len(values) * bits // 8)
    written = "".join(f"{value:0{bits}b}" for value in values)  # most significant first, one after the other
    assert "".join(f"{byte:08b}" for byte in data) == written.ljust(8 * len(data), "0")
    assert unpack(data, bits, len(values)).tolist() == values


def test_what_cannot_be_packed_or_unpacked_is_refused():
    for value in (-1, 8):
        with pytest.raises(ValueError, match=r"outside \[0, 8\)"):
            pack(np.array([0, value]), 3)
    for data in (b"", b"12", b"1234"):
        with pytest.raises(FormatError, match=f"{len(data)} bytes, not 3"):
            unpack(data, 12, 2)


def test_the_exact_stage_needs_no_torch():
    modules = [f"difflate.entropy.{module.name}" for module in pkgutil.iter_modules(difflate.entropy.__path__)]
    assert len(modules) > 8
    code = f"import {', '.join(modules)}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
