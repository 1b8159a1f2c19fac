"""Pictures from and to PIL, numpy and torch: round trips, and what is refused."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from difflate.errors import ConfigError, ImageError
from difflate.media.picture import (
    Picture,
    as_picture,
    from_array,
    from_pil,
    from_tensor,
    open_image,
    to_array,
    to_pil,
    to_tensor,
)
from image_helpers import P3_TO_XYZ, XMP, exif_block, noise, rgb_profile, same, saved

samples_of_any_shape = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.uint8, shape)
)


@given(samples_of_any_shape)
@settings(deadline=None, max_examples=60)
def test_round_trips(samples: np.ndarray) -> None:
    picture = from_array(samples)
    colours = 1 if samples.shape[2] < 3 else 3
    assert np.array_equal(picture.pixels, samples.transpose(2, 0, 1)[:colours])
    if samples.shape[2] > colours:
        alpha = np.full(samples.shape[:2], 255) if picture.alpha is None else picture.alpha
        assert np.array_equal(alpha, samples[..., -1])
    assert same(picture, from_array(to_array(picture)))
    assert same(picture, from_tensor(to_tensor(picture)))
    assert same(picture, from_pil(to_pil(picture)))
    assert same(picture, from_tensor(to_tensor(picture) / 255))
    assert same(picture, from_array(to_array(picture).astype(np.uint16) * 257))
    assert same(picture, open_image(saved(to_pil(picture), "PNG")))


def test_modes_and_info_of_to_pil() -> None:
    grey, alpha, rgb = noise(1, 2, 3), noise(2, 3), noise(3, 2, 3)
    assert [to_pil(Picture(*args)).mode for args in ((grey,), (grey, alpha), (rgb,), (rgb, alpha))] == [
        "L",
        "LA",
        "RGB",
        "RGBA",
    ]
    picture = Picture(rgb, None, exif_block(1), rgb_profile(P3_TO_XYZ), XMP % 1)
    image = to_pil(picture)
    assert image.size == (3, 2)
    again = from_pil(image, metadata=True)
    assert same(again, picture)
    assert (again.exif, again.icc, again.xmp) == (picture.exif, picture.icc, picture.xmp)
    assert to_pil(Picture(rgb)).info == {}


def test_pictures_share_no_memory_with_their_source() -> None:
    for samples in (noise(4, 4), noise(4, 4, 4)):
        picture = from_array(samples)
        before = to_array(picture)
        samples[:] = 0
        assert np.array_equal(to_array(picture), before)
    tensor = torch.full((3, 2, 2), 9, dtype=torch.uint8)
    picture = from_tensor(tensor)
    tensor.zero_()
    assert (picture.pixels == 9).all()
    to_tensor(picture).zero_()
    to_array(Picture(picture.pixels[:1]))[:] = 0
    assert (picture.pixels == 9).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float_tensors(dtype: torch.dtype) -> None:
    tensor = torch.tensor([0, 0.25, 1], dtype=dtype).reshape(1, 1, 3).requires_grad_()
    assert from_tensor(tensor).pixels.tolist() == [[[0, 64, 255]]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 64, 64), np.uint8), r"array shape \(=\(3, 64, 64\)\)"),
        (np.zeros(4, np.uint8), "array shape"),
        (np.zeros((1, 2, 3, 4), np.uint8), "array shape"),
        (np.zeros((0, 4), np.uint8), "4x0 px has no pixel"),
        (np.zeros((4, 0, 3), np.float32), "0x4 px has no pixel"),
        (np.zeros((2, 2), np.int64), r"array dtype \(=int64\)"),
        (np.zeros((2, 2), bool), r"array dtype \(=bool\)"),
        (np.full((2, 2), 1.01), "from 1.01 to 1.01"),
        (np.full((2, 2), -0.01), "from -0.01"),
        (np.full((2, 2), np.nan), "from nan to nan"),
        (np.array([[0.5, np.inf]]), "to inf"),
    ],
)
def test_arrays_that_are_no_image(array: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        from_array(array)


def test_an_empty_pil_image_is_no_image() -> None:
    with pytest.raises(ImageError, match="0x4 px has no pixel"):
        from_pil(Image.new("RGB", (0, 4)))


def test_tensors_that_are_no_image() -> None:
    for tensor in (torch.zeros(2, 2), torch.zeros(64, 64, 3), torch.zeros(1, 3, 4, 4)):
        with pytest.raises(ImageError, match="tensor shape"):
            from_tensor(tensor)
    with pytest.raises(ImageError, match=r"tensor dtype \(=int32\)"):
        from_tensor(torch.zeros(3, 2, 2, dtype=torch.int32))


def test_floats_a_rounding_error_beyond_the_range_pass() -> None:
    assert from_array(np.array([[-1e-6, 1 + 1e-6]])).pixels.tolist() == [[[0, 255]]]


def test_as_picture_takes_everything(tmp_path: Path) -> None:
    samples = noise(3, 4, 3)
    path = tmp_path / "a.png"
    path.write_bytes(saved(Image.fromarray(samples), "PNG"))
    picture = from_array(samples)
    assert as_picture(picture) is picture
    sources = [
        Image.open(path),
        samples,
        to_tensor(picture),
        path,
        str(path),
        path.read_bytes(),
        io.BytesIO(path.read_bytes()),
    ]
    assert all(same(as_picture(source), picture) for source in sources)
    sources[0].close()
    with pytest.raises(ConfigError, match="image is a list"):
        as_picture([1, 2])


def test_torch_is_not_imported() -> None:
    code = (
        "import sys, numpy, difflate.media.clip, difflate.codecs.classical as c, difflate.media.picture as p;"
        "p.as_picture(c.classical_codecs()['png'].encode(p.as_picture(numpy.zeros((2, 2), 'uint8'))));"
        "sys.exit('torch' in sys.modules or 'imagecodecs' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
