"""docs/format.md is complete: a reader written from it alone decodes what the package writes, with every model."""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import difflate
import reference_reader
from clip_helpers import moving
from difflate.codecs.vq import VqCodec
from difflate.entropy import ContextModel, SymbolWriter
from difflate.entropy.context import exp_table, shapes
from difflate.format.container import read_dfl
from difflate.format.stream import read_clip_file
from difflate.media.picture import Picture, open_image
from difflate.models.codebooks import CodebookModel
from difflate.quantize import ProductQuantizer, ResidualQuantizer
from difflate.registry import WEIGHTS
from difflate.store.hub import bundled_models

PHOTO = Path(__file__).parents[1] / "examples" / "kodim23.png"
NAMES = sorted(name for name, config in bundled_models().items() if config.get("codec") == "vq")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Pictures this small do not gain from more, and on a busy machine threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """(3, H, W)"""
    return open_image(PHOTO).pixels


@pytest.fixture(scope="module", params=NAMES)
def bundled(request) -> tuple[VqCodec, reference_reader.Model]:
    codec = difflate.load(request.param)
    assert isinstance(codec, VqCodec)
    return codec, reference_reader.Model(WEIGHTS / request.param)


def pictures(photo: np.ndarray) -> Iterator[Picture]:
    rng = np.random.default_rng(0)
    yield Picture(photo[:, 100:167, 200:301])
    yield Picture(photo[:, :1, :1])
    yield Picture(photo[:, 200:203, 300:340], alpha=np.tile(np.arange(40, dtype=np.uint8), (3, 1)), icc=b"profile")
    yield Picture(photo[:, :16, :280])  # more than 32 patches in a row
    noise = rng.integers(0, 256, (40, 33), np.uint8)
    yield Picture(photo[:1, 140:180, 300:333], alpha=noise, exif=b"II*\0exif", xmp=b"<x/>")
    ramp = np.repeat(np.arange(17, dtype=np.uint8) * 15, 9).reshape(1, 17, 9)
    yield Picture(ramp, alpha=ramp[0])


def check(codec: VqCodec, model: reference_reader.Model, picture: Picture, fixed_rate: bool) -> None:
    """Both readers agree on the file of ``picture``: symbols, pixels, and all beside them."""
    data = codec.encode(picture, fixed_rate=fixed_rate)
    found = reference_reader.decode(data, model)
    np.testing.assert_array_equal(found.symbols, codec.read_latent(read_dfl(data)).grid)
    pixels = codec.decode(data).pixels
    assert found.pixels.shape == pixels.shape
    assert np.abs(found.pixels.astype(int) - pixels).max() <= 1
    assert (found.alpha is None) == (picture.alpha is None)
    if picture.alpha is not None:
        np.testing.assert_array_equal(found.alpha, picture.alpha)
    metadata = [
        found.sections.get(kind) for kind in (reference_reader.EXIF, reference_reader.ICC, reference_reader.XMP)
    ]
    assert metadata == [picture.exif, picture.icc, picture.xmp]


def test_the_fingerprint_is_that_of_the_model(bundled):
    codec, model = bundled
    assert model.fingerprint() == codec.fingerprint
    assert model.fingerprint().hex() == model.config["fingerprint"]


@pytest.mark.parametrize("fixed_rate", [False, True])
def test_files_of_bundled_models(bundled, photo, fixed_rate):
    for picture in pictures(photo):
        check(*bundled, picture, fixed_rate)


@pytest.mark.parametrize("clip", [moving(3), moving(1, 1, 1), moving(4, channels=1, times=[-9, -3, 2, 90])])
def test_clips(clip):
    codec, model = difflate.load("opq-32-8-8"), reference_reader.Model(WEIGHTS / "opq-32-8-8")
    assert isinstance(codec, VqCodec)
    data = codec.encode_clip(dataclasses.replace(clip, audio=b"sound"))
    found, restored = reference_reader.decode_clip(data, model), codec.decode_clip(data)
    assert (Fraction(*found.rate), Fraction(*found.time_base)) == (restored.rate, restored.time_base)
    assert found.audio == b"sound"
    assert found.times == [frame.time for frame in restored.frames]
    latents = codec.read_latents(read_clip_file(data))
    for theirs, ours, (latent, _) in zip(found.frames, restored.frames, latents, strict=True):
        np.testing.assert_array_equal(theirs.symbols, latent.latent.grid)
        assert theirs.pixels.shape == ours.pixels.shape
        assert np.abs(theirs.pixels.astype(int) - ours.pixels).max() <= 1


def test_more_sites_of_a_kind_than_are_coded_in_one_step(photo):
    grey = np.tile(photo[:1], (1, 3, 2))[:, :1040, :1040]  # 130x130 patches, 8450 of them sides of the last stride
    codec = difflate.load("vq-8-8-8")
    assert isinstance(codec, VqCodec)
    check(codec, reference_reader.Model(WEIGHTS / "vq-8-8-8"), Picture(grey), False)


def random_tensors(shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Of a context model; they reach every limit."""
    tensors = {}
    for name, shape in shapes.items():
        bound, dtype = (3000, np.int32) if name.endswith("bias") else (30, np.int8)
        tensors[name] = rng.integers(-bound, bound + 1, shape, dtype)
    return tensors | {"exp": exp_table()}


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (35, 6)])
def test_streams_of_clips(rows, columns):
    rng = np.random.default_rng(0)
    bits = [3, 5, 1]
    tensors = random_tensors(shapes(bits, looks_back=True), rng)
    grids = np.stack([rng.integers(0, 2**b, (3, rows, columns)) for b in bits], axis=1)
    writer = SymbolWriter()
    ContextModel(bits, tensors).encode_sequence(grids, writer)
    found = reference_reader.read_clip(writer.finish(), 3, rows, columns, reference_reader.Network(bits, tensors))
    np.testing.assert_array_equal(found, grids)


@pytest.mark.parametrize("method", ["pq", "opq", "rq"])
def test_files_of_models_with_other_sizes(tmp_path, photo, method):
    """Patches of 4x4 px, indices in one, two and three parts, and random weights that reach every limit."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    bits = [[7, 9], [3], [1, 10]]
    quantizers = []
    for channel in bits:
        length = 16 if method == "rq" else 16 // len(channel)
        books = [256 * torch.rand(2**b, length) for b in channel]
        rotation = torch.linalg.qr(torch.randn(16, 16)).Q.contiguous() if method == "opq" else None
        quantizers.append(ResidualQuantizer(books) if method == "rq" else ProductQuantizer(books, rotation))
    flat = [b for channel in bits for b in channel]
    model = CodebookModel("random", 4, quantizers, [5, 1, 700], ContextModel(flat, random_tensors(shapes(flat), rng)))
    model.save(tmp_path, method, "")
    codec, reader = VqCodec.load(tmp_path), reference_reader.Model(tmp_path)
    assert reader.fingerprint() == codec.fingerprint
    for fixed_rate in (False, True):
        check(codec, reader, Picture(photo[:, 100:167, 200:301]), fixed_rate)
        check(codec, reader, Picture(photo[:1, :30, :50]), fixed_rate)
