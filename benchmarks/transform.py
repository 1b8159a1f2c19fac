"""The vq codec against Pillow's JPEG and against FAISS with the same codebooks."""

import io

import faiss
import numpy as np
import torch
from PIL import Image

from benchmarks.timing import Fact, Results, Timings, stopwatch
from difflate.codecs.vq import VqCodec
from difflate.media.picture import as_picture
from difflate.nn.colour import rgb_to_ycrcb
from difflate.nn.patches import to_patches
from difflate.quantize import ProductQuantizer

JPEG_QUALITY = 75
SIDE_PX = 512
AIM_FAISS = 3.0
AIM_JPEG = 1 / 3
AIM_AGREEMENT = 0.999
AIM_EXCESS = 1e-6


class FaissQuantizer:
    """FAISS's codec with the codebooks and the rotation of one of Difflate's quantizers."""

    def __init__(self, quantizer: ProductQuantizer):
        width = sum(book.shape[1] for book in quantizer.codebooks)
        count = len(quantizer.codebooks)
        product = faiss.IndexPQ(width, count, int(np.log2(quantizer.sizes[0])))
        centroids = np.concatenate([book.detach().numpy().ravel() for book in quantizer.codebooks])
        faiss.copy_array_to_vector(centroids, product.pq.centroids)
        product.is_trained = True
        self.index = product
        if quantizer.rotation is not None:
            turn = faiss.OPQMatrix(width, count)
            faiss.copy_array_to_vector(quantizer.rotation.detach().numpy().ravel(), turn.A)
            turn.is_trained = True
            turn.set_is_orthonormal()
            self.index = faiss.IndexPreTransform(turn, product)
            self.index.is_trained = True
            self._kept = (turn, product)  # the index holds no references of its own

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """(N, m) uint8 codes of ``vectors: (N, n)``."""
        return self.index.sa_encode(vectors)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """(N, n) float32, the inverse of `encode`."""
        return self.index.sa_decode(codes)


def run(codec: VqCodec, image: Image.Image, rounds: int) -> Results:
    """Ratios for ``image``, cropped to 512 x 512."""
    image = image.convert("RGB").crop((0, 0, SIDE_PX, SIDE_PX))
    against_faiss, against_jpeg = _quantizers(codec, image, rounds), _files(codec, image, rounds)
    return Results(against_faiss.rows + against_jpeg.rows, against_faiss.facts + against_jpeg.facts)


@torch.no_grad()
def _quantizers(codec: VqCodec, image: Image.Image, rounds: int) -> Results:
    """Codes from patches and patches from codes, all three channels: nothing but the quantizers."""
    channels = rgb_to_ycrcb(_tensor(image))
    patches = [to_patches(channels[:, c], codec.space.stride_px) for c in range(3)]
    arrays = [p.numpy() for p in patches]
    ours = list(codec.space.quantizers)
    theirs = [FaissQuantizer(q) for q in ours]
    codes = [q.encode(p) for q, p in zip(ours, patches, strict=True)]
    bytes_ = [q.encode(p) for q, p in zip(theirs, arrays, strict=True)]
    agreement = min(float((a.numpy() == b).all(axis=1).mean()) for a, b in zip(codes, bytes_, strict=True))
    excess = max(
        _excess(p, q.decode(a), q.decode(torch.from_numpy(b).long()))
        for q, p, a, b in zip(ours, patches, codes, bytes_, strict=True)
    )
    timings = Timings(
        {
            "encode": stopwatch(lambda: [q.encode(p) for q, p in zip(ours, patches, strict=True)]),
            "FAISS sa_encode": stopwatch(lambda: [q.encode(p) for q, p in zip(theirs, arrays, strict=True)]),
            "decode": stopwatch(lambda: [q.decode(c) for q, c in zip(ours, codes, strict=True)]),
            "FAISS sa_decode": stopwatch(lambda: [q.decode(c) for q, c in zip(theirs, bytes_, strict=True)]),
        },
        rounds,
    )
    rows = [
        timings.row("quantizers, patches to codes", "encode", "FAISS sa_encode", AIM_FAISS),
        timings.row("quantizers, codes to patches", "decode", "FAISS sa_decode"),
    ]
    facts = [
        Fact(
            "patches with the same code in FAISS, worst channel, %",
            100 * agreement,
            "> 99.9",
            agreement > AIM_AGREEMENT,
        ),
        Fact(
            "squared error above FAISS's, worst patch, / squared norm", excess, f"< {AIM_EXCESS:g}", excess < AIM_EXCESS
        ),
    ]
    return Results(rows, facts)


def _excess(patches: torch.Tensor, ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """By how much our squared error exceeds theirs at most, over the patch's squared norm: rounding alone, if tiny."""
    more = (patches - ours).double().square().sum(dim=1) - (patches - theirs).double().square().sum(dim=1)
    return float((more / patches.double().square().sum(dim=1).clamp_min(1.0)).max())


def _files(codec: VqCodec, image: Image.Image, rounds: int) -> Results:
    """Pixels to bytes and back."""
    rgb, picture = _tensor(image), as_picture(image)
    latent = codec.to_latent(rgb)
    jpeg = _jpeg(image)
    fixed, context = codec.encode(picture, fixed_rate=True), codec.encode(picture)
    timings = Timings(
        {
            "to_latent": stopwatch(lambda: codec.to_latent(rgb)),
            "encode fixed": stopwatch(lambda: codec.encode(picture, fixed_rate=True)),
            "encode context": stopwatch(lambda: codec.encode(picture)),
            "JPEG encode": stopwatch(lambda: _jpeg(image)),
            "from_latent": stopwatch(lambda: codec.from_latent(latent)),
            "decode fixed": stopwatch(lambda: codec.decode(fixed)),
            "decode context": stopwatch(lambda: codec.decode(context)),
            "JPEG decode": stopwatch(lambda: Image.open(io.BytesIO(jpeg)).load()),
        },
        rounds,
    )
    rows = [
        timings.row("transform, pixels to indices", "to_latent", "JPEG encode", AIM_JPEG),
        timings.row("transform, indices to pixels", "from_latent", "JPEG decode", AIM_JPEG),
        timings.row("file of fixed rate, encode", "encode fixed", "JPEG encode", AIM_JPEG),
        timings.row("file of fixed rate, decode", "decode fixed", "JPEG decode", AIM_JPEG),
        timings.row("file with context coding, encode", "encode context", "JPEG encode"),
        timings.row("file with context coding, decode", "decode context", "JPEG decode"),
    ]
    pixels = SIDE_PX * SIDE_PX
    facts = [
        Fact(f"{name}, bits per pixel", 8 * len(data) / pixels)
        for name, data in (("file of fixed rate", fixed), ("file with context coding", context), ("JPEG", jpeg))
    ]
    return Results(rows, facts)


def _tensor(image: Image.Image) -> torch.Tensor:
    """(1, 3, H, W) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()[None]


def _jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()
