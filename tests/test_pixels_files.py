"""Image files: every format opens; damaged, unknown and huge ones are errors that docs/images.md names."""

import io
import struct
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difflate.errors import ConfigError, ImageError, LimitExceeded
from difflate.limits import Limits
from difflate.media.files import FORMATS
from difflate.media.picture import from_pil, open_image, to_array
from image_helpers import P3_TO_XYZ, exif_block, noise, png, rgb_profile, same, saved


def test_every_format_opens_from_path_bytes_and_file(tmp_path: Path) -> None:
    colour = Image.new("RGB", (5, 3), (200, 100, 50))
    for name in FORMATS:
        path = tmp_path / name
        path.write_bytes(saved(colour, {"WebP": "WEBP", "JPEG 2000": "JPEG2000"}.get(name, name)))
        picture = open_image(path)
        assert picture.pixels.shape == (3, 3, 5), name
        assert np.abs(picture.pixels.mean((1, 2)) - (200, 100, 50)).max() < 8, name
        assert same(picture, open_image(path.read_bytes()))
        assert same(picture, open_image(str(path)))
        with path.open("rb") as file:
            assert same(picture, open_image(file))
            assert not file.closed


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for format, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert to_array(open_image(data))[0, 0].tolist() == [255, 0, 0], format


def test_gif_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    assert to_array(open_image(saved(image, "GIF", transparency=1)))[0].tolist() == [[255, 0, 0, 255], [0, 0, 255, 0]]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"])
def test_every_truncation_is_an_image_error(format: str, tmp_path: Path) -> None:
    data = saved(Image.fromarray(noise(16, 16, 3)), format)
    path = tmp_path / "photo"
    whole = open_image(data)
    messages = []
    for length in [*range(0, min(len(data), 64), 3), *range(64, len(data), len(data) // 40)]:
        path.write_bytes(data[:length])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                # a file may do without its last bytes (padding, a trailer); it then shows the whole picture
                assert same(open_image(path), whole)
            except ImageError as error:
                messages.append(str(error))
    assert len(messages) > 20
    assert all(message.startswith(f"{path}: ") and "\n" not in message for message in messages)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "JPEG2000"])
def test_altered_files_open_or_are_our_errors(format: str) -> None:
    rng = np.random.default_rng(7)
    data = saved(Image.fromarray(noise(16, 16, 3)), format, exif=exif_block(6), icc_profile=rgb_profile(P3_TO_XYZ))
    refused = 0
    for _ in range(60):
        altered = bytearray(data)
        for at in rng.integers(0, len(data), 4):
            altered[at] = rng.integers(256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                open_image(bytes(altered), metadata=True)
            except (ImageError, LimitExceeded):
                refused += 1
    assert refused > 0


def test_truncated_jpeg_says_so(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(saved(Image.fromarray(noise(64, 64, 3)), "JPEG")[:2000])
    with pytest.raises(
        ImageError, match=r"photo\.jpg: image file is truncated \(.*\); get a complete copy of the file"
    ):
        open_image(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"Dear Sir or Madam,\n", r"not an image format that is read here \(PNG, JPEG"),
        (b"P", "not an image format"),
        (b"\x8fDFL\1\0", "difflate decompress"),
        (b"\xff\x0a\x30\x00", "JPEG XL file; convert it to PNG with djxl"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC file"),
        (b"BM" + b"\0" * 60, "cannot be decoded"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image format"),
    ],
)
def test_what_is_no_image_is_an_image_error(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        open_image(path)
    assert str(caught.value).startswith(str(path))
    assert caught.value.exit_code == 3


def test_paths_that_cannot_be_opened_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.png does not exist"):
        open_image(tmp_path / "none.png")
    with pytest.raises(ConfigError, match="directory"):
        open_image(tmp_path)
    with pytest.raises(ConfigError, match="null"):
        open_image("a\0b")
    with pytest.raises(ConfigError, match="NoneType"):
        open_image(None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="mode 'rb'"):
        open_image(io.StringIO("text"))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "data",
    [
        png(60000, 60000, 8, 0, [b""]),
        b"P5 60000 60000 255\n",
        b"GIF89a"
        + struct.pack("<HH", 60000, 60000)
        + b"\0\0\0,\0\0\0\0"
        + struct.pack("<HH", 60000, 60000)
        + b"\0\2\0;",
        b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f" + struct.pack("<I", 16382 | 16382 << 14) + b"\0" * 12,
    ],
)
def test_a_small_file_that_claims_a_large_image_is_refused_before_decoding(data: bytes) -> None:
    open_image(saved(Image.new("L", (1, 1)), "PNG"))  # the plugins are imported outside of the measurement
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceeded):
            open_image(data)
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_our_limits_decide_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(Image.new("L", (40, 30)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert open_image(data).width == 40
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(LimitExceeded, match="image data is 40x30 px"):
        open_image(data, limits=Limits(pixels=1199))
    assert open_image(data, limits=Limits(pixels=1200)).height == 30
    with pytest.raises(LimitExceeded, match="image is 40x30 px"):
        from_pil(Image.new("L", (40, 30)), limits=Limits(side_px=39))


def test_damaged_lazy_pil_image_is_an_image_error() -> None:
    image = Image.open(io.BytesIO(saved(Image.fromarray(noise(64, 64, 3)), "JPEG")[:2000]))
    with pytest.raises(ImageError, match="truncated"):
        from_pil(image)
