"""Quantizers: parity with FAISS and with brute force, and the ordering of the codebooks."""

import numpy as np
import pytest
import torch

from difflate.errors import ConfigError
from difflate.quantize import FiniteScalarQuantizer, ProductQuantizer, ResidualQuantizer, order_along_principal_axis
from difflate.train.quantizers import codebook_bits, train_quantizer
from lazy import Lazy

faiss = Lazy("faiss")

RNG = np.random.default_rng(0)
VECTORS = (RNG.normal(size=(3000, 16)) @ RNG.normal(size=(16, 16))).astype(np.float32)


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch):
    monkeypatch.setattr("difflate.train.quantizers.OPQ_ROUNDS", 8)


def mse(quantizer, vectors=VECTORS) -> float:
    x = torch.from_numpy(vectors)
    return float((quantizer.decode(quantizer.encode(x)) - x).square().mean())


def train(method, bits, **options):
    settings = dict(iterations=8, seed=0, ordered=True, report=lambda _: None, points=256) | options
    return train_quantizer(method, bits, VECTORS, **settings)


def test_codes_are_the_nearest_codewords():
    book = torch.randn(50, 16)
    x = torch.from_numpy(VECTORS)
    codes = ProductQuantizer([book]).encode(x)[:, 0]
    brute = torch.cdist(x.double(), book.double()).argmin(dim=1)
    assert (codes == brute).float().mean() > 0.999  # ties in float32


def test_product_codes_are_those_of_faiss():
    quantizer = train("pq", 16)
    reference = faiss.ProductQuantizer(16, 2, 8)
    faiss.copy_array_to_vector(np.concatenate([b.numpy().ravel() for b in quantizer.codebooks]), reference.centroids)
    theirs = reference.compute_codes(VECTORS)
    ours = quantizer.encode(torch.from_numpy(VECTORS)).numpy()
    assert (theirs == ours).mean() > 0.999
    np.testing.assert_allclose(quantizer.decode(torch.from_numpy(theirs.astype(np.int64))), reference.decode(theirs))


def test_methods_rank_as_in_the_paper():
    errors = {m: mse(train(m, 12)) for m in ("pq", "opq", "rq")}
    assert mse(train("vq", 6)) > errors["pq"] > errors["opq"]
    assert errors["pq"] > errors["rq"]


def test_opq_is_about_as_good_as_that_of_faiss():
    matrix = faiss.OPQMatrix(16, 2)
    matrix.niter = 10
    matrix.train(VECTORS)
    rotated = matrix.apply(VECTORS)
    reference = faiss.ProductQuantizer(16, 2, 6)
    reference.train(rotated)
    theirs = float(np.square(reference.decode(reference.compute_codes(rotated)) - rotated).mean())
    assert mse(train("opq", 12, iterations=25)) < 1.05 * theirs


def test_rotation_is_orthogonal():
    rotation = train("opq", 12).rotation
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(16), atol=1e-5, rtol=0)


def test_beam_search_beats_the_greedy_choice():
    quantizer = train("rq", 24)
    x = torch.from_numpy(VECTORS)
    rest = x.clone()
    for book in quantizer.codebooks:
        rest -= book[torch.cdist(rest, book).argmin(dim=1)]
    assert mse(quantizer) < float(rest.square().mean())


@pytest.mark.parametrize("method", ["vq", "opq", "rq"])
def test_ordering_changes_the_indices_and_nothing_else(method):
    bits = 6 if method == "vq" else 12
    ordered, plain = train(method, bits), train(method, bits, ordered=False)
    x = torch.from_numpy(VECTORS)
    torch.testing.assert_close(ordered.decode(ordered.encode(x)), plain.decode(plain.encode(x)), atol=1e-4, rtol=1e-4)
    assert not torch.equal(ordered.encode(x), plain.encode(x))


def test_ordered_codewords_descend_along_their_principal_axis():
    line = torch.linspace(0, 9, 10)[torch.randperm(10)]
    book = line[:, None] * torch.ones(4) + 0.01 * torch.randn(10, 4)
    assert torch.equal(order_along_principal_axis(book).mean(dim=1).argsort(descending=True), torch.arange(10))
    assert torch.equal(order_along_principal_axis(book.flip(0)), order_along_principal_axis(book))


@pytest.mark.parametrize(
    ("method", "bits", "parts"), [("vq", 10, [10]), ("opq", 32, [8] * 4), ("pq", 20, [7, 7, 6]), ("rq", 3, [3])]
)
def test_bits_are_split_into_codebooks(method, bits, parts):
    assert codebook_bits(method, bits) == parts


@pytest.mark.parametrize("method", ["pq", "opq", "rq"])
def test_uneven_parts_work(method):
    quantizer = train(method, 20)  # three codebooks for 16 values
    assert quantizer.sizes == [128, 128, 64]
    assert quantizer.encode(torch.empty(0, 16)).shape == (0, 3)
    assert mse(quantizer) < mse(train("vq", 7))


def test_too_few_vectors_are_refused():
    with pytest.raises(ConfigError, match="too few for a codebook of 256"):
        train_quantizer("vq", 8, VECTORS[:100], iterations=1, seed=0, ordered=True, report=lambda _: None)


def test_residual_quantizer_of_one_codebook_is_vector_quantization():
    book = torch.randn(50, 16)
    x = torch.from_numpy(VECTORS)
    assert torch.equal(ResidualQuantizer([book]).encode(x), ProductQuantizer([book]).encode(x))


LEVELS = [2, 3, 4, 5, 8, 256]


def test_finite_scalars_are_evenly_spaced_and_ordered():
    quantizer = FiniteScalarQuantizer(LEVELS)
    assert quantizer.sizes == LEVELS
    for size, book in zip(LEVELS, quantizer.codebooks, strict=True):
        expected = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / ((size - 1) / 2)
        torch.testing.assert_close(book[:, 0].double(), expected, rtol=0, atol=1e-6)
        one = FiniteScalarQuantizer([size])
        assert one.encode(book)[:, 0].tolist() == list(range(size))
        assert torch.equal(one.decode(one.encode(book)), book)


def test_finite_scalars_take_the_nearest_value_at_every_place():
    quantizer = FiniteScalarQuantizer(LEVELS)
    z = torch.rand(3, len(LEVELS), 5, 7, 2, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    codes = quantizer.encode(z)
    assert codes.dtype == torch.int64
    assert codes.shape == z.shape
    restored = quantizer.decode(codes)
    for c, book in enumerate(quantizer.codebooks):
        nearest = (z[:, c, ..., None] - book[:, 0]).abs().min(-1).values
        torch.testing.assert_close((restored[:, c] - z[:, c]).abs(), nearest)
        # a site of a grid is coded as a vector is
    flat = z.movedim(1, -1).flatten(0, -2)
    assert torch.equal(quantizer.encode(flat), codes.movedim(1, -1).flatten(0, -2))


def test_every_index_of_finite_scalars_is_reached_from_a_network_that_knows_no_bounds():
    quantizer = FiniteScalarQuantizer(LEVELS)
    z = torch.linspace(-12, 12, 40_001)[:, None].expand(-1, len(LEVELS))
    codes = quantizer.encode(quantizer.bound(z))
    assert (codes.diff(dim=0) >= 0).all()
    assert [codes[:, c].unique().tolist() for c in range(len(LEVELS))] == [list(range(size)) for size in LEVELS]
    # as in the paper 0 is in the middle of an index, not between two: small noise does not change it
    near = quantizer.encode(quantizer.bound(torch.linspace(-0.1, 0.1, 9)[:, None].expand(-1, len(LEVELS))))
    assert (near[:, 1:5] == near[:1, 1:5]).all()


def test_finite_scalars_let_the_gradient_of_the_bound_through():
    quantizer = FiniteScalarQuantizer(LEVELS)
    z = torch.randn(4, len(LEVELS), 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    quantized = quantizer.quantize(z)
    torch.testing.assert_close(quantized, quantizer.decode(quantizer.encode(quantizer.bound(z))).double())
    (gradient,) = torch.autograd.grad(quantized.square().sum(), z)
    (expected,) = torch.autograd.grad((quantizer.bound(z) * 2 * quantized.detach()).sum(), z)
    torch.testing.assert_close(gradient, expected)
    (slope,) = torch.autograd.grad(quantizer.quantize(z).sum(), z)
    assert (slope > 0).all()


def test_mixtures_of_finite_scalars_are_joined():
    quantizer = FiniteScalarQuantizer([3, 4])
    shares = [torch.rand(6, size).softmax(1) for size in quantizer.sizes]
    mixed = quantizer.join([share @ book for share, book in zip(shares, quantizer.codebooks, strict=True)])
    assert mixed.shape == (6, 2)
    assert (mixed.abs() < 1).all()
    codes = torch.tensor([[0, 3], [2, 1]])
    chosen = [book[codes[:, c]] for c, book in enumerate(quantizer.codebooks)]
    assert torch.equal(quantizer.join(chosen), quantizer.decode(codes))


@pytest.mark.parametrize("levels", [[], [1], [4, 0], [-3], [2.5], [1 << 17]])
def test_finite_scalars_need_two_values_or_more(levels):
    with pytest.raises(ConfigError, match=r"`levels` \(="):
        FiniteScalarQuantizer(levels)
