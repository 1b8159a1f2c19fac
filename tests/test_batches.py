"""Several pictures at once are what they are one by one, and one that fails leaves the others alone."""

import numpy as np
import pytest

import difflate
from coder_helpers import photo, tiny_codec
from difflate.codecs.batches import most_at_once
from difflate.codecs.groups import in_groups
from difflate.codecs.learned import LearnedCodec
from difflate.errors import ConfigError, FormatError, LimitExceeded, ModelError
from difflate.format.container import read_dfl
from difflate.limits import Limits
from difflate.media.picture import Picture

ALPHA = np.arange(40 * 56, dtype=np.uint8).reshape(40, 56)
PICTURES = [
    Picture(photo(40, 56, 100, 100)),
    Picture(photo(39, 50, 200, 300)),  # as many sites as the first
    Picture(photo(40, 56, 300, 200).mean(axis=0, keepdims=True).astype(np.uint8)),
    Picture(photo(40, 56, 400, 100), alpha=ALPHA),
    Picture(photo(1, 1)),
    Picture(photo(90, 33, 50, 600)),
]


def symbols_of(codec: LearnedCodec, data: bytes) -> np.ndarray:
    return np.frombuffer(codec.read_latent(read_dfl(data)).symbols(), "<i2")


@pytest.fixture(scope="module", params=["opq-32-8-8", "hyperprior-small", "cdc-small", "diffae-small"])
def codec(request: pytest.FixtureRequest) -> LearnedCodec:
    return difflate.load(request.param)  # type: ignore[return-value]


def test_a_batch_gives_the_files_and_pictures_of_its_parts(codec: LearnedCodec) -> None:
    files = [codec.encode(picture) for picture in PICTURES]
    for alone, data in zip(files, codec.encode_many(PICTURES), strict=True):
        assert isinstance(data, bytes)
        ours, theirs = symbols_of(codec, data), symbols_of(codec, alone)
        # a number in the middle between two integers may fall on either, as it may on another machine
        assert (ours != theirs).sum() <= len(ours) // 1000
    for picture, data, restored in zip(PICTURES, files, codec.decode_many(files), strict=True):
        assert isinstance(restored, Picture)
        alone = codec.decode(data)
        assert restored.pixels.shape == alone.pixels.shape == picture.pixels.shape
        assert np.abs(restored.pixels.astype(int) - alone.pixels).max() <= 1
        assert (restored.pixels != alone.pixels).mean() < 0.01
        assert (restored.alpha is None) == (picture.alpha is None)
        assert restored.alpha is None or np.array_equal(restored.alpha, ALPHA)


def test_what_fails_harms_only_itself(codec: LearnedCodec) -> None:
    made = codec.encode_many(PICTURES, limits=Limits(pixels=40 * 56))
    assert [type(each) for each in made] == [bytes] * 5 + [LimitExceeded]
    good = codec.encode(PICTURES[0])
    other = tiny_codec().encode(PICTURES[0])
    restored = codec.decode_many([good, good[:-1], b"", other, good])
    assert isinstance(restored[1], FormatError)
    assert isinstance(restored[2], FormatError)
    assert isinstance(restored[3], ModelError)
    for each in (restored[0], restored[4]):
        assert isinstance(each, Picture)
        assert np.abs(each.pixels.astype(int) - codec.decode(good).pixels).max() <= 1
    assert codec.encode_many([]) == codec.decode_many([]) == []
    with pytest.raises(ConfigError, match="quality"):
        codec.encode_many(PICTURES, quality=1000)


def test_one_that_the_network_fails_at_is_found_alone() -> None:
    seen = []

    def finish(group: list[int]) -> list[int]:
        seen.append(group)
        if 3 in group:
            raise ValueError("three")
        return [10 * each for each in group]

    def begin(item: int) -> tuple[int, int, int]:
        return item % 2, 2, 6 // item * item

    made = in_groups([1, 2, 3, 0, 6, 2], begin, finish)
    assert [str(each) for each in made] == ["60", "60", "60", "integer division or modulo by zero", "60", "60"]
    assert seen == [[6, 6], [6, 6], [6]]
    made = in_groups([1, 3, 5, 7], lambda item: (0, 3, item), finish)
    assert [str(each) for each in made] == ["10", "three", "50", "70"]
    assert seen[3:] == [[1, 3, 5], [1], [3], [5], [7]]


def test_each_file_is_restored_as_it_says() -> None:
    codec = difflate.load("cdc-small")
    assert isinstance(codec, LearnedCodec)
    wanted = [dict(seed=1), dict(seed=2), dict(seed=1), dict(steps=0), dict(seed=1, quality=10)]
    files = [codec.encode(PICTURES[0], **({"steps": 2, "gamma": 1.0} | options)) for options in wanted]
    restored = codec.decode_many(files)
    for data, made in zip(files, restored, strict=True):
        assert isinstance(made, Picture)
        assert np.abs(made.pixels.astype(int) - codec.decode(data).pixels).max() <= 1
    images = [made.pixels for made in restored if isinstance(made, Picture)]
    assert np.array_equal(images[0], images[2])
    assert not np.array_equal(images[0], images[1])


def test_a_refiner_and_an_effort_see_each_picture_alone() -> None:
    codec = difflate.load("opq-32-8-8")
    assert isinstance(codec, LearnedCodec)
    files = [codec.encode(picture) for picture in PICTURES]
    for data, made in zip(files, codec.decode_many(files, refine=True), strict=True):
        assert isinstance(made, Picture)
        assert np.array_equal(made.pixels, codec.decode(data, refine=True).pixels)
    tiny = tiny_codec()
    made_with_effort = tiny.encode_many(PICTURES[:3], effort=2)
    for picture, data in zip(PICTURES, made_with_effort, strict=False):
        assert isinstance(data, bytes)
        ours, theirs = symbols_of(tiny, data), symbols_of(tiny, tiny.encode(picture, effort=2))
        assert (ours != theirs).sum() <= len(ours) // 100


def test_a_network_is_given_as_many_pixels_as_a_few_tiles_have(monkeypatch: pytest.MonkeyPatch) -> None:
    assert most_at_once(14, 14, 16, 896) == 64
    assert most_at_once(14, 14, 16, None) == 64
    assert most_at_once(4096, 4096, 16, 896) == 1
    codec, given = tiny_codec(), []
    analyse = codec.space.analyse

    def counted(pixels, quality, options):
        given.append(tuple(pixels.shape))
        return analyse(pixels, quality, options)

    monkeypatch.setattr(codec.space, "analyse", counted)
    made = codec.encode_many([PICTURES[0]] * 5 + [PICTURES[1]], tile_px=48)
    assert given == [(3, 3, 48, 64), (3, 3, 48, 64)]
    assert made[0] == made[4]
