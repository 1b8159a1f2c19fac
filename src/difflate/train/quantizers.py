"""Codebooks from patches, with FAISS's k-means (Scribano et al. 2023, 3.1 and 4.1)."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch

from difflate.errors import ConfigError
from difflate.extras import require
from difflate.quantize import ProductQuantizer, Quantizer, ResidualQuantizer, order_along_principal_axis
from difflate.quantize.nearest import nearest

log = logging.getLogger(__name__)

METHODS = ("vq", "pq", "opq", "eopq", "rq")
"""``eopq`` is ``opq`` with a better start of the search for the rotation, see `_start_rotation`."""
SAMPLE = 1_000_000
"""Patches on which OPQ finds its rotation, and k-means converges before its last iterations see all of them."""
OPQ_ROUNDS = 50
Progress = Callable[[str], None]


def codebook_bits(method: str, bits: int) -> list[int]:
    """Bits of each codebook of a quantizer of ``bits``: one for VQ, else as few of at most 8 bits as it takes.

    32 bits are 4 codebooks of 256 entries, 8 bits one; 20 bits are 7 + 7 + 6. Raises ConfigError.
    """
    if bits < 1 or (method == "vq" and bits > 16):
        raise ConfigError(f"bits (={bits}) must be from 1 to 16 for vq; at least 1 for pq, opq and rq")
    if method == "vq":
        return [bits]
    count = -(-bits // 8)
    return [bits // count + (j < bits % count) for j in range(count)]


def kmeans(
    vectors: np.ndarray,
    size: int,
    iterations: int,
    seed: int,
    start: np.ndarray | None = None,
    points: int | None = None,
) -> np.ndarray:
    """(size, n) float32 centroids of ``vectors: (N, n)`` float32, or of ``points`` times ``size`` drawn from them.

    Raises ConfigError if N < size.
    """
    faiss = require("faiss", "train")
    if len(vectors) < size:
        raise ConfigError(f"{len(vectors)} patches are too few for a codebook of {size}; add images or lower the bits")
    limits = {"max_points_per_centroid": points or len(vectors), "min_points_per_centroid": 1}
    search = faiss.Kmeans(vectors.shape[1], size, niter=iterations, seed=seed, **limits)
    search.train(np.ascontiguousarray(vectors), init_centroids=start)
    return search.centroids


def train_codebook(
    vectors: np.ndarray, size: int, iterations: int, seed: int, points: int | None = None
) -> torch.Tensor:
    """(size, n) float32 codebook by ``iterations`` of k-means on ``points`` vectors per entry.

    ``points`` None: on a sample of `SAMPLE`, then a fifth as many iterations on all of ``vectors``.
    """
    if points is not None:
        return torch.from_numpy(kmeans(vectors, size, iterations, seed, points=points))
    if len(vectors) <= SAMPLE:
        return torch.from_numpy(kmeans(vectors, size, iterations, seed))
    start = kmeans(_sample(vectors, seed), size, iterations, seed)
    return torch.from_numpy(kmeans(vectors, size, max(1, iterations // 5), seed, start))


def _sample(vectors: np.ndarray, seed: int) -> np.ndarray:
    if len(vectors) <= SAMPLE:
        return vectors
    return vectors[np.random.default_rng(seed).choice(len(vectors), SAMPLE, replace=False)]


def train_quantizer(
    method: str,
    bits: int,
    vectors: np.ndarray,
    *,
    iterations: int,
    seed: int,
    ordered: bool,
    report: Progress,
    points: int | None = None,
) -> Quantizer:
    """A quantizer of ``bits`` per vector, trained on ``vectors: (N, n)`` float32.

    ``ordered`` re-indexes every codebook along its principal axis (3.2.1). ``points``: see `train_codebook`.
    """
    sizes = [2**b for b in codebook_bits(method, bits)]
    if len(sizes) > vectors.shape[1]:
        raise ConfigError(
            f"bits (={bits}) need {len(sizes)} codebooks, more than the {vectors.shape[1]} pixels of a patch"
        )

    def finish(book: torch.Tensor) -> torch.Tensor:
        return order_along_principal_axis(book) if ordered else book

    if method == "rq":
        return ResidualQuantizer([finish(b) for b in _residual(vectors, sizes, iterations, seed, report, points)])
    rotation = None
    if method in ("opq", "eopq") and len(sizes) > 1:
        sample = _sample(vectors, seed)
        if points is not None:
            sample = sample[: points * max(sizes)]
        start = _start_rotation(method, sample, len(sizes), seed)
        # FAISS's numbers, for as few vectors as FAISS takes; on a million, one iteration is as good in the end
        rounds, inner = (OPQ_ROUNDS, 4) if points is not None else (40, 1)
        rotation = _opq_rotation(sample, sizes, start, rounds, inner, seed, report)
        vectors = vectors @ rotation.T
    books = []
    for j, part in enumerate(_split(vectors, len(sizes))):
        report(f"codebook {j + 1}/{len(sizes)}")
        books.append(finish(train_codebook(np.ascontiguousarray(part), sizes[j], iterations, seed + j, points)))
    return ProductQuantizer(books, None if rotation is None else torch.from_numpy(rotation))


def _split(vectors: np.ndarray, parts: int) -> list[np.ndarray]:
    return np.array_split(vectors, parts, axis=1)


def _residual(
    vectors: np.ndarray,
    sizes: Sequence[int],
    iterations: int,
    seed: int,
    report: Progress,
    points: int | None,
) -> list[torch.Tensor]:
    """Each codebook is the k-means of what the ones before it leave."""
    rest = torch.from_numpy(vectors.copy())
    books: list[torch.Tensor] = []
    for j, size in enumerate(sizes):
        report(f"codebook {j + 1}/{len(sizes)}")
        book = train_codebook(rest.numpy(), size, iterations, seed + j, points)
        for part in rest.split(1 << 18):
            part -= book[nearest(part, book)]
        books.append(book)
    return books


def _start_rotation(method: str, vectors: np.ndarray, parts: int, seed: int) -> np.ndarray:
    """(n, n) float32 rotation that the search begins with.

    ``opq``: a random one, as FAISS does. ``eopq``: the principal axes dealt to the parts so that each gets an equal
    share of the log-variance (eigenvalue allocation, Ge et al. 2013). docs/vq.md compares the two.
    """
    length = vectors.shape[1]
    if method == "opq":
        return np.linalg.qr(np.random.default_rng(seed).normal(size=(length, length)))[0].astype(np.float32)
    values, axes = np.linalg.eigh(np.cov(vectors, rowvar=False, dtype=np.float64))
    widths = [len(p) for p in np.array_split(np.arange(length), parts)]
    dealt: list[list[int]] = [[] for _ in widths]
    log_variance = [0.0] * parts
    for axis in np.argsort(-values):
        open_parts = [j for j in range(parts) if len(dealt[j]) < widths[j]]
        j = min(open_parts, key=lambda j: log_variance[j])
        dealt[j].append(int(axis))
        log_variance[j] += float(np.log(max(values[axis], 1e-10)))
    return axes[:, [a for part in dealt for a in part]].T.astype(np.float32)


def _opq_rotation(
    vectors: np.ndarray,
    sizes: Sequence[int],
    rotation: np.ndarray,
    rounds: int,
    inner: int,
    seed: int,
    report: Progress,
) -> np.ndarray:
    """(n, n) float32 rotation, in ``rounds`` from ``rotation`` on (Eq. 14).

    Each round takes ``inner`` iterations of k-means in the rotated space, then the Procrustes solution.
    """
    books: list[np.ndarray | None] = [None] * len(sizes)
    for round_ in range(rounds):
        rotated = vectors @ rotation.T
        coded = []
        error = 0.0
        for j, part in enumerate(_split(rotated, len(sizes))):
            part = np.ascontiguousarray(part)
            book = kmeans(part, sizes[j], 8 if round_ == 0 else inner, seed + j, books[j])
            books[j] = book
            indices = nearest(torch.from_numpy(part), torch.from_numpy(book))
            coded.append(book[indices.numpy()])
            error += float(np.square(part - coded[-1]).sum())
        report(f"rotation {round_ + 1}/{rounds}, squared error {error / vectors.size:.2f} per pixel")
        # min over R of ||R X - Y||: with U S V^T the decomposition of X Y^T, R = V U^T
        u, _, vt = np.linalg.svd(vectors.T.astype(np.float64) @ np.concatenate(coded, axis=1))
        rotation = (vt.T @ u.T).astype(np.float32)
    return rotation
