"""Files of released versions: the same symbols for ever, the same pixels but for rounding, every damage told."""

import hashlib
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import difflate
from difflate.codecs.cdc import CdcCodec
from difflate.codecs.diffae import DiffaeCodec
from difflate.codecs.hyperprior import HyperpriorCodec
from difflate.codecs.learned import LearnedCodec
from difflate.codecs.loading import codec_for
from difflate.codecs.vq import VqCodec
from difflate.errors import FormatError
from difflate.format import sections
from difflate.format.container import read_dfl
from difflate.format.stream import read_clip_file
from difflate.options import IndexEncoding

FOLDER = Path(__file__).parent / "golden"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
PIXEL_TOLERANCE = 1
NETWORK_TOLERANCE = 2
"""Levels: of pixels that a network in floating point has made."""
CLIPS = [name for name in sorted(EXPECTED) if "times" in EXPECTED[name]]
IMAGES = [name for name in sorted(EXPECTED) if name not in CLIPS]
VQ = [name for name in IMAGES if EXPECTED[name]["codec"].endswith("-8-8")]
AUTOENCODED = [name for name in IMAGES if EXPECTED[name]["codec"].startswith("diffae")]
LATENTS = [name for name in IMAGES if name not in VQ + AUTOENCODED]


def check_pixels(name: str, data: bytes, tolerance: int) -> None:
    restored = np.asarray(difflate.decode(data)).astype(int)
    reference = np.asarray(Image.open(FOLDER / name.replace(".dfl", ".png"))).astype(int)
    assert np.abs(restored - reference).max() <= tolerance


@pytest.mark.parametrize("name", LATENTS)
def test_latents_and_pixels(name):
    data = (FOLDER / name).read_bytes()
    codec = codec_for(data)
    assert isinstance(codec, HyperpriorCodec | CdcCodec)
    assert codec.name == EXPECTED[name]["codec"]
    latent = codec.read_latent(read_dfl(data))
    assert list(latent.q.shape) == EXPECTED[name]["shape"]
    assert hashlib.sha256(latent.symbols()).hexdigest() == EXPECTED[name]["symbols_sha256"]
    check_pixels(name, data, NETWORK_TOLERANCE)


@pytest.mark.parametrize("name", AUTOENCODED)
def test_indices_and_pixels_that_diffusion_makes(name):
    data = (FOLDER / name).read_bytes()
    codec = codec_for(data)
    assert isinstance(codec, DiffaeCodec)
    assert codec.name == EXPECTED[name]["codec"]
    latent = codec.read_latent(read_dfl(data))
    assert list(latent.grid.shape) == EXPECTED[name]["shape"]
    assert hashlib.sha256(latent.symbols()).hexdigest() == EXPECTED[name]["symbols_sha256"]
    check_pixels(name, data, NETWORK_TOLERANCE)


@pytest.mark.parametrize("name", VQ)
def test_symbols_and_pixels(name):
    data = (FOLDER / name).read_bytes()
    codec = codec_for(data)
    assert isinstance(codec, VqCodec)
    assert codec.name == EXPECTED[name]["codec"]
    file = read_dfl(data)
    latent = codec.read_latent(file)
    assert list(latent.grid.shape) == EXPECTED[name]["shape"]
    assert hashlib.sha256(latent.symbols()).hexdigest() == EXPECTED[name]["symbols_sha256"]
    check_pixels(name, data, PIXEL_TOLERANCE)
    # the same symbols still make the same bytes
    for number, fixed_rate in ((sections.CONTEXT, False), (sections.FIXED, True)):
        section = file.section(number)
        if section is not None:
            grid = torch.from_numpy(latent.grid.astype(np.int64))
            written = codec.coder.write(grid, file.grey, None, IndexEncoding(fixed_rate=fixed_rate))
            assert written[:2] == (number, section)


@pytest.mark.parametrize("name", CLIPS)
def test_clips(name):
    data = (FOLDER / name).read_bytes()
    codec = codec_for(data)
    assert isinstance(codec, LearnedCodec)
    assert codec.name == EXPECTED[name]["codec"]
    symbols = b"".join(latent.symbols() for latent, _ in codec.read_latents(read_clip_file(data)))
    assert hashlib.sha256(symbols).hexdigest() == EXPECTED[name]["symbols_sha256"]
    clip = codec.decode_clip(data)
    assert (clip.width, clip.height, clip.channels, clip.audio) == (41, 33, 1, b"sound")
    assert (clip.rate, clip.time_base) == (Fraction(30000, 1001), Fraction(1, 90000))
    frames = list(clip.frames)
    assert [frame.time for frame in frames] == EXPECTED[name]["times"]
    restored = np.concatenate([frame.pixels[0] for frame in frames]).astype(int)
    reference = np.asarray(Image.open(FOLDER / name.replace(".dfl", ".png"))).astype(int)
    assert np.abs(restored - reference).max() <= NETWORK_TOLERANCE


def test_metadata_of_the_golden_file():
    file = read_dfl((FOLDER / "v1-eopq-32-8-8-grey-alpha.dfl").read_bytes())
    assert (file.width, file.height, file.grey) == (33, 40, True)
    image = difflate.decode((FOLDER / "v1-eopq-32-8-8-grey-alpha.dfl").read_bytes())
    assert image.mode == "LA"
    ramp = np.linspace(0, 255, 40 * 33).astype(np.uint8).reshape(40, 33)
    np.testing.assert_array_equal(np.asarray(image)[:, :, 1], ramp)


def test_every_truncation_and_every_flipped_bit_is_a_typed_error():
    data = (FOLDER / "v1-eopq-32-8-8-photo.dfl").read_bytes()
    for length in range(len(data)):
        with pytest.raises(FormatError):
            read_dfl(data[:length])
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            read_dfl(bytes(damaged))
