"""The classical codecs: what they keep, what they refuse, and that they are what Pillow and libjxl write."""

import io
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from difflate.codecs.base import Codec
from difflate.codecs.classical import classical_codecs, jxl_size, sniff
from difflate.errors import ConfigError, ImageError, LimitExceeded
from difflate.limits import Limits
from difflate.media.picture import Picture, from_pil, open_image, to_array, to_pil, to_srgb
from difflate.metrics.distortion import psnr
from image_helpers import P3_TO_XYZ, grey_profile, noise, rgb_profile, saved

CODECS = classical_codecs()
LOSSY = ["jpeg", "webp", "avif", "jxl"]
EXIF = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI", 271, 2, 3) + b"me\0\0" + bytes(4)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


@pytest.fixture(autouse=True)
def _jxl_needs_its_package(request: pytest.FixtureRequest) -> None:
    if "jxl" in request.node.name:
        pytest.importorskip("imagecodecs")


def smooth(height: int, width: int, channels: int = 3) -> np.ndarray:
    """(C, H, W) uint8: waves that any codec can hold."""
    y, x = np.mgrid[:height, :width] / 16
    planes = [128 + 100 * np.sin(x * (c + 1) / 2 + y + c) for c in range(channels)]
    return np.rint(planes).astype(np.uint8)


def same(first: Picture, second: Picture) -> bool:
    return np.array_equal(to_array(first), to_array(second))


@pytest.mark.parametrize("name", list(CODECS))
def test_each_is_a_codec_under_its_name(name: str) -> None:
    codec = CODECS[name]
    assert isinstance(codec, Codec)
    assert codec.name == name
    assert codec.suffix.startswith(".")


@pytest.mark.parametrize("name", list(CODECS))
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (17, 33), (64, 48)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_size_channels_and_alpha_come_back(name: str, size: tuple[int, int], channels: int, with_alpha: bool) -> None:
    alpha = np.full(size, 100, np.uint8) if with_alpha else None
    picture = Picture(smooth(*size, channels), alpha)
    data = CODECS[name].encode(picture)
    decoded = CODECS[name].decode(data)
    assert sniff(data) == name
    assert (decoded.height, decoded.width) == size
    # WebP has no grey at all, AVIF none with alpha
    keeps_grey = name != "webp" and not (name == "avif" and with_alpha)
    assert len(decoded.pixels) == (1 if channels == 1 and keeps_grey else 3)
    if with_alpha and name != "jpeg":
        assert decoded.alpha is not None
        assert np.abs(decoded.alpha.astype(int) - 100).max() <= 3
    else:
        assert decoded.alpha is None
        assert psnr(decoded.pixels.transpose(1, 2, 0), _seen(picture, len(decoded.pixels))) > 22


def _seen(picture: Picture, channels: int) -> np.ndarray:
    """(H, W, C): ``picture`` over white."""
    alpha = 1 if picture.alpha is None else picture.alpha / 255
    mixed = np.rint(picture.pixels * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.broadcast_to(mixed, (channels, *mixed.shape[1:])).transpose(1, 2, 0)


@pytest.mark.parametrize("name", ["png", "jxl"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 4), (19, 31)])
def test_lossless(name: str, channels: int, with_alpha: bool, size: tuple[int, int]) -> None:
    picture = Picture(noise(channels, *size), noise(*size, seed=1) // 2 if with_alpha else None)
    data = CODECS[name].encode(picture, quality=0 if name == "jxl" else None)
    assert same(CODECS[name].decode(data), picture)


@pytest.mark.parametrize("name", LOSSY)
def test_quality_trades_bytes_for_distortion(name: str) -> None:
    codec = CODECS[name]
    assert codec.quality_range is not None
    low, high, default = codec.quality_range
    ends = (high, low) if name == "jxl" else (low, high)
    picture = Picture(np.clip(smooth(96, 96).astype(int) + noise(3, 96, 96) // 64 - 2, 0, 255).astype(np.uint8))
    files = [codec.encode(picture, quality=quality) for quality in (ends[0], default, ends[1])]
    assert len(files[0]) < len(files[1]) < len(files[2])
    distortions = [psnr(picture, codec.decode(data)) for data in files]
    assert distortions == sorted(distortions)
    assert codec.encode(picture) == files[1]


@pytest.mark.parametrize(
    ("name", "format", "settings"),
    [("jpeg", "JPEG", {"optimize": True}), ("webp", "WEBP", {"method": 6}), ("avif", "AVIF", {}), ("png", "PNG", {})],
)
def test_files_are_those_of_pillow(name: str, format: str, settings: dict) -> None:
    picture = Picture(smooth(40, 56))
    data = CODECS[name].encode(picture)
    assert data == saved(to_pil(picture), format, **settings)
    assert same(CODECS[name].decode(data), from_pil(Image.open(io.BytesIO(data))))


def test_jpeg_lays_transparent_pictures_over_white() -> None:
    alpha = np.repeat(np.array([0, 128, 255], np.uint8), 16)[None].repeat(16, 0)
    picture = Picture(np.zeros((3, 16, 48), np.uint8), alpha)
    decoded = CODECS["jpeg"].decode(CODECS["jpeg"].encode(picture, quality=95))
    assert np.abs(decoded.pixels[0, 8, [4, 24, 44]].astype(int) - [255, 127, 0]).max() <= 2


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_metadata_comes_back(name: str, channels: int) -> None:
    profile = grey_profile(1.8) if channels == 1 else rgb_profile(P3_TO_XYZ)
    picture = Picture(smooth(16, 16, channels), None, EXIF, profile, XMP)
    decoded = CODECS[name].decode(CODECS[name].encode(picture))
    assert decoded.exif == EXIF
    assert decoded.xmp == XMP
    if name != "webp" or channels == 3:
        assert decoded.icc == profile
    assert psnr(to_srgb(picture), to_srgb(decoded)) > 25


def test_jxl_converts_to_srgb_as_it_keeps_no_profile() -> None:
    picture = Picture(smooth(16, 16), None, EXIF, rgb_profile(P3_TO_XYZ), XMP)
    decoded = CODECS["jxl"].decode(CODECS["jxl"].encode(picture, quality=0))
    assert (decoded.exif, decoded.icc, decoded.xmp) == (None, None, None)
    assert same(decoded, to_srgb(picture))
    assert not same(decoded, picture)


def test_jpeg_has_no_room_for_large_metadata() -> None:
    picture = Picture(smooth(8, 8), exif=EXIF + bytes(70000))
    with pytest.raises(LimitExceeded, match=r"jpeg cannot hold this image .*; encode it without metadata"):
        CODECS["jpeg"].encode(picture)
    assert CODECS["webp"].decode(CODECS["webp"].encode(picture)).exif == picture.exif


@pytest.mark.parametrize(
    ("name", "quality", "message"),
    [
        ("jpeg", 0, r"quality \(=0\) must be from 1 to 100 for jpeg"),
        ("jpeg", 101, "from 1 to 100"),
        ("webp", -1, "from 0 to 100"),
        ("avif", 50.5, r"quality \(=50.5\) must be a whole number for avif"),
        ("webp", float("nan"), "from 0 to 100"),
        ("png", 5, r"quality \(=5\) has no meaning for png"),
        ("jxl", 15.5, "from 0 to 15"),
        ("jxl", -0.1, "from 0 to 15"),
    ],
)
def test_quality_out_of_range(name: str, quality: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CODECS[name].encode(Picture(smooth(4, 4)), quality=quality)


@pytest.mark.parametrize("quality", [0.1, 2.5, 15])
def test_jxl_takes_fractions(quality: float) -> None:
    assert CODECS["jxl"].encode(Picture(smooth(16, 16)), quality=quality)


@pytest.mark.parametrize(("name", "side"), [("jpeg", 65500), ("webp", 16383), ("avif", 32768)])
def test_longest_side(name: str, side: int) -> None:
    line = np.zeros((1, 1, side + 1), np.uint8)
    decoded = CODECS[name].decode(CODECS[name].encode(Picture(line[..., :-1])))
    assert (decoded.width, decoded.height) == (side, 1)
    with pytest.raises(LimitExceeded, match=f"a side above the {side} px of {name}; use another codec"):
        CODECS[name].encode(Picture(line))


@pytest.mark.parametrize("name", list(CODECS))
def test_limits_hold_both_ways(name: str) -> None:
    picture = Picture(smooth(20, 30))
    data = CODECS[name].encode(picture)
    assert CODECS[name].decode(data, limits=Limits(pixels=600)).width == 30
    with pytest.raises(LimitExceeded):
        CODECS[name].encode(picture, limits=Limits(pixels=599))
    with pytest.raises(LimitExceeded):
        CODECS[name].decode(data, limits=Limits(side_px=29))


@pytest.mark.parametrize("name", list(CODECS))
def test_damaged_and_foreign_files_are_image_errors(name: str) -> None:
    data = CODECS[name].encode(Picture(noise(3, 32, 32)))
    other = CODECS["png" if name != "png" else "jpeg"].encode(Picture(smooth(4, 4)))
    for broken in (b"", b"text", data[:20], data[: len(data) // 2], other):
        with pytest.raises(ImageError):
            CODECS[name].decode(broken)


def test_sniff_knows_no_others() -> None:
    for data in (b"", b"\x8fDFL\1", b"GIF89a", b"text", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"):
        assert sniff(data) is None


@pytest.mark.parametrize(
    ("width", "height"),
    [(8, 8), (256, 256), (257, 1), (1, 1), (512, 513), (1920, 1080), (40, 30), (300, 200), (50, 40), (2, 1), (6, 5)],
)
def test_jxl_size_is_read_from_the_header(width: int, height: int) -> None:
    import imagecodecs

    samples = np.zeros((height, width), np.uint8)
    for container in (False, True):
        data = imagecodecs.jpegxl_encode(samples, distance=1.0, effort=1, usecontainer=container)
        assert jxl_size(data) == (width, height)
        assert sniff(data) == "jxl"


def test_jxl_file_that_claims_a_large_image_is_refused() -> None:
    side = 2**30 - 1
    bits = 0 | 3 << 1 | side << 3 | 1 << 33  # not small, 30 bits of height, as wide as high
    data = b"\xff\x0a" + bits.to_bytes(12, "little")
    assert jxl_size(data) == (side + 1, side + 1)
    with pytest.raises(LimitExceeded, match="JPEG XL image"):
        CODECS["jxl"].decode(data)


@pytest.mark.parametrize("data", [b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(30)])
def test_jxl_size_of_broken_headers(data: bytes) -> None:
    with pytest.raises(ImageError):
        jxl_size(data)


def test_jxl_of_other_depths_becomes_8_bits() -> None:
    import imagecodecs

    samples = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    eight = np.arange(256).reshape(16, 16)
    decoded = CODECS["jxl"].decode(imagecodecs.jpegxl_encode(samples, lossless=True))
    assert np.array_equal(decoded.pixels[0], eight)
    light = (samples / 65535).astype(np.float32)
    light[0, 0] = 3.0
    decoded = CODECS["jxl"].decode(imagecodecs.jpegxl_encode(light, distance=0.1))
    assert np.abs(decoded.pixels[0].astype(int) - eight)[1:, 1:].max() <= 3


def test_without_imagecodecs_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(ConfigError, match=r"pip install 'difflate\[eval\]'"):
        classical_codecs()["jxl"].encode(Picture(smooth(4, 4)))


def test_a_photo_goes_through_all_with_its_metadata(tmp_path: Path) -> None:
    options: dict[str, Any] = {"exif": b"Exif\0\0" + EXIF, "icc_profile": rgb_profile(P3_TO_XYZ)}
    path = tmp_path / "photo.jpg"
    path.write_bytes(saved(to_pil(Picture(smooth(33, 47))), "JPEG", **options))
    photo = open_image(path, metadata=True)
    for name in ("jpeg", "webp", "avif", "png"):
        decoded = CODECS[name].decode(CODECS[name].encode(photo))
        assert (decoded.exif, decoded.icc) == (EXIF, photo.icc), name
        assert psnr(replace(photo), decoded) > 30, name
