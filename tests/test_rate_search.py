"""The best quality within a size: any codec that has a quality, however its sizes go."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import difflate
from coder_helpers import photo
from difflate.cli.main import main
from difflate.codecs.rate_search import encode_within
from difflate.errors import ConfigError
from difflate.media.picture import Picture
from difflate.options import TransformEncoding
from fake_codecs import Coarse

MOST_ENCODES = 2 + 16
PICTURE = Picture(photo(96, 128, 200, 300))


class Sized:
    """Encodes into as many bytes as a function of quality says, and counts."""

    def __init__(self, size: Callable[[float], float], low: float = 0.0, high: float = 100.0) -> None:
        self.codec, self.size = Coarse("sized", (low, high, (low + high) / 2)), size
        self.tried: list[float] = []

    def __call__(self, quality: float) -> bytes:
        self.tried.append(quality)
        low, high, _ = self.codec.quality_range or (0, 0, 0)
        assert low <= quality <= high
        return bytes(int(self.size(quality)))

    def within(self, allowed: int) -> int:
        found = len(encode_within(self.codec, allowed, self).data)
        assert len(self.tried) <= MOST_ENCODES
        assert found <= allowed
        return found


def steps(quality: float) -> float:
    """Ten sizes only, each ten qualities wide."""
    return 100 * 1.5 ** (quality // 10)


SHAPES = {
    "exponential": lambda q: 50 * math.exp(q / 12),
    "linear": lambda q: 40 + 1000 * q,
    "late": lambda q: 1000 + (q / 100) ** 20 * 1e6,
    "early": lambda q: 1000 + (q / 100) ** 0.05 * 1e6,
    "falling": lambda q: 50 * math.exp((100 - q) / 12),
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["exponential", "linear", "falling"]), st.floats(0, 1))
def test_smooth_sizes_are_met(shape: str, place: float) -> None:
    sized = Sized(SHAPES[shape])
    smallest, largest = sorted(int(sized.size(q)) for q in (0, 100))
    allowed = int(smallest * (largest / smallest) ** place)
    assert sized.within(allowed) >= min(0.985 * allowed, largest) - 1


@pytest.mark.parametrize("shape", ["late", "early"])
@pytest.mark.parametrize("allowed", [2_000, 50_000, 400_000, 990_000])
def test_sizes_that_rise_at_one_end_are_met_nearly(shape: str, allowed: int) -> None:
    sized = Sized(SHAPES[shape])
    if shape == "early" and allowed < 700_000:  # less is had only at qualities of nearly 0
        assert sized.within(allowed) >= 1000
    else:
        assert sized.within(allowed) >= 0.9 * allowed


@pytest.mark.parametrize("allowed", [100, 149, 150, 700, 2_000, 3_000, 3_844, 10_000])
def test_sizes_that_jump_are_the_largest_that_fits(allowed: int) -> None:
    fitting = max(int(steps(q)) for q in range(101) if int(steps(q)) <= allowed)
    assert Sized(steps).within(allowed) == fitting


def test_one_jump_in_the_middle_is_approached_from_below() -> None:
    sized = Sized(lambda q: 1_000 + q + 100_000 * (q >= 73.3))
    assert sized.within(50_000) >= 1_072
    assert max(q for q in sized.tried if q < 73.3) > 72


def test_what_fits_whole_takes_two_encodes_and_what_cannot_fit_is_told() -> None:
    sized = Sized(SHAPES["linear"])
    assert sized.within(10**9) == 100_040
    assert len(sized.tried) == 2
    with pytest.raises(ConfigError, match="sized takes 40 bytes at its lowest quality, more than the 39 asked for"):
        Sized(SHAPES["linear"]).within(39)
    assert Sized(SHAPES["linear"]).within(40) == 40
    with pytest.raises(ConfigError, match="has one quality only"):
        encode_within(Coarse(quality_range=None), 1000, lambda quality: b"")


@pytest.mark.parametrize(("allowed", "found"), [(1_000, 500), (500, 500), (490, 490)])
def test_a_better_file_that_is_smaller_is_taken_where_a_codec_falls_back(allowed: int, found: int) -> None:
    sized = Sized(lambda q: 200 + 10 * q if q < 70 else 500)
    sized.codec.encoding = TransformEncoding
    data = encode_within(sized.codec, allowed, sized).data
    assert found - 8 <= len(data) <= found


def test_sizes_that_are_all_the_same_are_no_error() -> None:
    assert Sized(lambda q: 77).within(77) == 77
    with pytest.raises(ConfigError):
        Sized(lambda q: 77).within(76)


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_whole_qualities_are_tried_to_the_last(name: str) -> None:
    codec = difflate.load(name)
    low, high, _ = codec.quality_range
    sizes = {q: len(codec.encode(PICTURE, quality=q)) for q in range(int(low), int(high) + 1)}
    for allowed in np.linspace(min(sizes.values()), max(sizes.values()) + 100, 12).astype(int).tolist():
        tried = []

        def encode(quality: float, tried: list[float] = tried) -> bytes:
            tried.append(quality)
            return codec.encode(PICTURE, quality=quality)

        found = len(encode_within(codec, allowed, encode).data)
        best = max(size for size in sizes.values() if size <= allowed)
        assert found <= allowed
        assert found == best or found >= 0.985 * allowed or found >= 0.99 * best
        assert all(quality == round(quality) for quality in tried)
        assert len(tried) <= MOST_ENCODES


def test_qualities_that_are_distances_are_searched_too() -> None:
    pytest.importorskip("imagecodecs")
    codec = difflate.load("jxl")
    smallest = len(codec.encode(PICTURE, quality=codec.quality_range[1]))
    for allowed in (smallest, 2_000, 6_000):
        data = encode_within(codec, allowed, lambda quality: codec.encode(PICTURE, quality=quality)).data
        assert 0.9 * allowed < len(data) <= allowed


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(PICTURE.pixels.transpose(1, 2, 0)).save(path)
    return path


def test_the_command_line_takes_a_size(source: Path, capsys) -> None:
    out = source.with_suffix(".jpg")
    for words, allowed in ((["--bpp", "1.5"], 96 * 128 * 1.5 / 8), (["--max-bytes", "2000"], 2000)):
        assert main(["compress", str(source), "--codec", "jpeg", "-f", *words]) == 0
        assert 0.9 * allowed < out.stat().st_size <= allowed
        with Image.open(out) as image:
            assert image.size == (128, 96)
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bpp", "1", "-q", "50"], "--quality and --bpp exclude each other"),
        (["--max-bytes", "1000", "-q", "50"], "--quality and --max-bytes exclude each other"),
        (["--bpp", "1", "--max-bytes", "1000"], "not allowed with"),
        (["--bpp", "0"], r"--bpp (=0) must be a number above 0"),
        (["--bpp", "nan"], r"--bpp (=nan) must be a number above 0"),
        (["--max-bytes", "-5"], r"--max-bytes (=-5) must be a number above 0"),
        (["--max-bytes", "1.5"], "invalid int value"),
        (["--max-bytes", "10"], "at its lowest quality, more than the 10 asked for"),
        (["--bpp", "0.00001"], "more than the 0 asked for"),
        (["--codec", "png", "--max-bytes", "1000", "-o", "other.png"], "png has one quality only"),
    ],
)
def test_sizes_that_cannot_be_had_are_told(
    words: list[str], message: str, source: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    try:
        code = main(["compress", str(source), "--codec", "jpeg", *words])
    except SystemExit as stopped:  # argparse's own refusals
        code = stopped.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in source.parent.iterdir()] == ["photo.png"]


def test_any_number_of_bits_is_the_best_quality(source: Path, capsys) -> None:
    assert main(["compress", str(source), "--codec", "jpeg", "--bpp", "inf"]) in (0, 2)
    assert "unexpected" not in capsys.readouterr().err
