"""Quantizers: parity with FAISS and with brute force, and the ordering of the codebooks."""

import numpy as np
import pytest
import torch

from difflate.errors import ConfigError
from difflate.quantize import ProductQuantizer, ResidualQuantizer, order_along_principal_axis
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
