"""Latent data sets: shards that hold what the codec makes of images, read in an order that follows from the seed."""

import dataclasses
import json
import pickle
import shutil
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from difflate.cli.main import main
from difflate.codecs.vq import VqCodec
from difflate.data.crops import Batch, Crops, Samples, collate, numbers_of, order_of
from difflate.data.items import Item, held_back_numbers, hold_back, list_items
from difflate.data.latent_writer import Written, write_latents
from difflate.data.latents import LatentHeader, Latents, read_header, shard_files, shard_name
from difflate.data.loader import batches_of
from difflate.errors import ConfigError, DifflateError, FormatError, ImageError, OutputExists, VersionError
from difflate.hub import load
from difflate.pixels import open_image
from difflate.train.loop import train
from difflate.train.resume import names_of
from difflate.train.settings import LoopSettings
from training_helpers import picture, write_images, write_shard

CODEC, OTHER = "opq-32-8-8", "vq-8-8-8"
PX = 16
HEADER = LatentHeader(CODEC, 64 * "a", (1000, 2), PX, 12)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def codec() -> VqCodec:
    found = load(CODEC)
    assert isinstance(found, VqCodec)
    return found


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """``run(*words) -> (exit code, stdout, stderr)`` of `difflate latents`, in this process."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = main(["latents", *map(str, words)])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def squares(folder: Path, count: int = 10, side: int = PX, broken: tuple[int, ...] = ()) -> Path:
    """``folder`` with so many PNG files, of which some are none."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:03d}.png"
        if number in broken:
            path.write_text("no image")
        else:
            Image.fromarray(picture(number, side, side)).save(path)
    return folder


def write(images: Path, out: Path, codec: VqCodec, **options: Any) -> Written:
    return write_latents(list_items([images]), codec, out, sources=[images], **{"workers": 0, **options})


def hand_made(path: Path, listed: list[int], header: LatentHeader = HEADER, shards: int = 1, **changes: Any) -> Path:
    """A shard with rows that say which they are, and with ``changes`` of its tensors and metadata."""
    latents = np.zeros((len(listed), 2, 2, 2), header.dtype)
    latents[:, 0] = np.array(listed, np.int64)[:, None, None]
    mirrored = latents + np.array([500, 0], header.dtype)[:, None, None]
    tensors = {"latents": latents, "mirrored": mirrored, "numbers": np.array(listed, np.int64)}
    tensors |= {key: value for key, value in changes.items() if key in tensors}
    tensors = {key: value for key, value in tensors.items() if value is not None}
    metadata = header.metadata(shards, ["cats"])
    metadata |= {key: value for key, value in changes.items() if key in metadata}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path), metadata)
    return path


def rows(data: Latents, count: int | None = None) -> list[list[int]]:
    return [data[n][0].flatten().tolist() for n in range(len(data) if count is None else count)]


def shown(data: Latents, count: int) -> list[tuple[int, bool]]:
    """(number of the image, whether it is the mirrored one) of hand-made samples."""
    values = [int(data[n][0][0, 0, 0]) for n in range(count)]
    return [(value % 500, value >= 500) for value in values]


# -- writing ---------------------------------------------------------------------------------------------------------


def test_a_latent_decodes_to_what_the_file_of_the_image_does(codec: VqCodec, tmp_path: Path) -> None:
    images = squares(tmp_path / "images", 5, side=24)
    done = write(images, tmp_path / "out", codec, batch=2)
    assert dataclasses.replace(done, seconds=0, bytes=0) == Written(5, 0, 1, 24, 0, 0)
    assert done.bytes == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    data = Latents.open([tmp_path / "out"], augment=False)
    assert data.header == LatentHeader(CODEC, codec.fingerprint.hex(), tuple(codec.codebook_sizes), 24, 5)
    assert (data.shape, len(data), data.mirrored) == ((6, 3, 3), 5, True)
    for number, path in enumerate(sorted(images.iterdir())):
        indices, n, label, skipped = data[number]
        assert (indices.dtype, indices.shape, n, label, skipped) == (torch.uint8, (6, 3, 3), number, -1, [])
        expected = codec.decode(codec.encode(open_image(path))).pixels
        assert np.array_equal(codec.from_latent(indices[None].long())[0].numpy(), expected)


def test_mirrored_latents_are_those_of_the_mirrored_images(codec: VqCodec, tmp_path: Path) -> None:
    images = squares(tmp_path / "images", 4)
    write(images, tmp_path / "out", codec)
    tensors = load_file(str(tmp_path / "out" / shard_name(0)))
    flipped = np.stack([picture(n, PX, PX)[:, ::-1].transpose(2, 0, 1) for n in range(4)])
    assert np.array_equal(tensors["mirrored"], codec.to_latent(torch.from_numpy(flipped)).numpy())
    assert not np.array_equal(tensors["mirrored"], tensors["latents"])
    write(images, tmp_path / "plain", codec, flips=False)
    assert load_file(str(tmp_path / "plain" / shard_name(0))).keys() == {"latents", "numbers"}
    data = Latents.open([tmp_path / "plain"], flips=True)
    assert not data.mirrored
    assert sorted(rows(data)) == sorted(tensors["latents"].reshape(4, -1).tolist())


def test_several_shards_are_one(codec: VqCodec, tmp_path: Path) -> None:
    images = squares(tmp_path / "images")
    write(images, tmp_path / "one", codec)
    done = write(images, tmp_path / "many", codec, shard_images=3, batch=2, workers=1)
    assert done.shards == 4
    assert [path.name for path in shard_files(tmp_path / "many")] == [shard_name(i) for i in range(4)]
    one, many = (Latents.open([tmp_path / name], seed=1) for name in ("one", "many"))
    assert rows(one, 30) == rows(many, 30)
    assert one.identity() == many.identity()
    named = Latents.open(shard_files(tmp_path / "many")[1:3], augment=False)
    assert named.numbers.tolist() == [3, 4, 5, 6, 7, 8]


def test_the_metadata_is_text_that_names_no_place(codec: VqCodec, tmp_path: Path) -> None:
    write(squares(tmp_path / "images", 2), tmp_path / "out", codec)
    with safe_open(str(tmp_path / "out" / shard_name(0)), "np") as file:
        metadata = file.metadata()
    assert metadata == {
        "format": "difflate-latents", "version": "1", "codec": CODEC, "fingerprint": codec.fingerprint.hex(),
        "codebook_sizes": json.dumps(codec.codebook_sizes), "image_px": "16", "images": "2", "shards": "1",
        "sources": '["images"]',
    }  # fmt: skip
    assert read_header(tmp_path / "out") == read_header(tmp_path / "out" / shard_name(0))


def test_images_are_scaled_and_cropped(codec: VqCodec, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)  # 12x10 px
    shard = write_shard(tmp_path / "images" / "s.tar", range(3, 5))
    write(tmp_path / "images", tmp_path / "out", codec, image_px=24)
    data = Latents.open([tmp_path / "out"], augment=False)
    items = list_items([shard, *(tmp_path / "images" / f"{n:03d}.png" for n in range(3))])
    pixels = torch.stack([Crops(items, 24, short_side=24, augment=False)[n][0] for n in range(5)])
    assert rows(data) == codec.to_latent(pixels).flatten(1).tolist()


def test_unreadable_images_leave_gaps(codec: VqCodec, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = squares(tmp_path / "images", 10, broken=(4, 5, 7))
    done = write(images, tmp_path / "out", codec, shard_images=2, batch=1)
    assert (done.images, done.skipped) == (7, 3)
    assert "skipped: " in caplog.text
    assert all(f"{n:03d}.png" in caplog.text for n in (4, 5, 7))
    data = Latents.open([tmp_path / "out"], augment=False)
    assert data.numbers.tolist() == [0, 1, 2, 3, 6, 8, 9]
    whole = squares(tmp_path / "whole", 10)
    write(whole, tmp_path / "all", codec)
    intact = Latents.open([tmp_path / "all"], augment=False)
    assert rows(data) == [rows(intact)[n] for n in data.numbers]
    for count in (0, 1, 3, 5):
        ours, theirs = data.hold_back(count)[1], intact.hold_back(count)[1]
        kept = set(theirs.numbers.tolist()) if theirs else set()
        assert set(ours.numbers.tolist() if ours else []) == kept - {4, 5, 7}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interruption_leaves_the_folder_as_it_was(codec: VqCodec, tmp_path: Path, workers: int) -> None:
    images, out = squares(tmp_path / "images"), tmp_path / "out"

    def interrupted(count: int) -> None:
        steps.append(count)
        if len(steps) == 4:
            raise KeyboardInterrupt

    for before in ({}, None):
        steps: list[int] = []
        if before is None:
            write(squares(tmp_path / "others", 3), out, codec)
            before = {path.name: path.read_bytes() for path in out.iterdir()}
        with pytest.raises(KeyboardInterrupt):
            write(images, out, codec, shard_images=2, batch=2, workers=workers, force=True, progress=interrupted)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("moment", range(6))
def test_an_interruption_while_shards_are_replaced(
    codec: VqCodec, tmp_path: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, moves = tmp_path / "out", []
    write(squares(tmp_path / "old", 6), out, codec, shard_images=2)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    replace = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        if not path.name.startswith(".difflate"):  # that is how each shard is written
            moves.append(path)
            if len(moves) == moment + 1:
                raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(squares(tmp_path / "new", 9), out, codec, shard_images=3, force=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_shards_are_replaced_only_if_asked_for(codec: VqCodec, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(squares(tmp_path / "a", 6), out, codec, shard_images=1)
    (out / "notes.txt").write_text("kept")
    (out / shard_name(0)).unlink()
    with pytest.raises(OutputExists, match="latents-00001"):
        write(squares(tmp_path / "b", 4), out, codec)
    write(squares(tmp_path / "b", 4), out, codec, shard_images=2, force=True)
    assert sorted(path.name for path in out.iterdir()) == [shard_name(0), shard_name(1), "notes.txt"]
    assert len(Latents.open([out])) == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_px": 12}, ConfigError, f"12x12 px are not whole patches of 8x8 px, as {CODEC} has them"),
        ({"image_px": 0}, ConfigError, "0x0 px are not whole patches"),
        ({"image_px": 2**20}, DifflateError, "limit"),
        ({"shard_images": 0}, ConfigError, r"shard_images \(=0\) must be at least 1"),
        ({"batch": 0}, ConfigError, r"batch \(=0\) must be at least 1"),
        ({"workers": -1}, ConfigError, r"workers \(=-1\) must be at least 0"),
    ],
)
def test_options_that_cannot_be(
    options: dict[str, int], error: type[Exception], message: str, codec: VqCodec, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        write(squares(tmp_path / "images", 2), tmp_path / "out", codec, **options)
    assert not (tmp_path / "out").exists()


def test_images_that_cannot_be_encoded(codec: VqCodec, tmp_path: Path) -> None:
    out = tmp_path / "out"
    squares(tmp_path / "mixed", 2)
    Image.fromarray(picture(1, 24, 24)).save(tmp_path / "mixed" / "z.png")
    with pytest.raises(ConfigError, match=r"mixed: not squares of one size \(16x16, 24x24\); give --size"):
        write(tmp_path / "mixed", out, codec)
    with pytest.raises(ConfigError, match="not squares"):
        write(write_images(tmp_path / "oblong", 2), out, codec)
    broken = squares(tmp_path / "broken", 3, broken=(0, 1, 2))
    for image_px in (None, 16):
        with pytest.raises(ImageError, match="broken: none of its 3 images can be read"):
            write(broken, out, codec, image_px=image_px)
    assert not list(out.iterdir())


# -- reading ---------------------------------------------------------------------------------------------------------


@given(total=st.integers(1, 60), count=st.integers(0, 59))
@settings(max_examples=40, deadline=None)
def test_the_same_images_are_held_back(total: int, count: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    items = [Item(str(number)) for number in range(total)]
    if count >= total:
        with pytest.raises(ConfigError, match=rf"holdback \(={count}\) must be below"):
            held_back_numbers(total, count)
        return
    trained_on, held_back = hold_back(items, count)
    assert {int(item.path) for item in held_back} == held_back_numbers(total, count)
    folder = tmp_path_factory.mktemp("shards")
    hand_made(folder / shard_name(0), list(range(total)), dataclasses.replace(HEADER, images=total))
    ours, theirs = Latents.open([folder]).hold_back(count)
    assert ours.numbers.tolist() == [int(item.path) for item in trained_on]
    assert (theirs.numbers.tolist() if theirs else []) == [int(item.path) for item in held_back]
    assert {n for n, _ in shown(ours, 3 * len(ours))} == set(ours.numbers.tolist())
    if theirs is not None:
        assert shown(theirs, len(theirs)) == [(n, False) for n in theirs.numbers]


def test_nothing_left_on_one_side_is_an_error(tmp_path: Path) -> None:
    hand_made(tmp_path / shard_name(0), [0, 6])  # of 12
    data = Latents.open([tmp_path])
    with pytest.raises(ConfigError, match=r"holdback \(=2\) leaves none of the 2 latents"):
        data.hold_back(2)
    with pytest.raises(ConfigError, match=r"holdback \(=12\) must be below the number of images \(=12\)"):
        data.hold_back(12)
    hand_made(tmp_path / "b" / shard_name(0), [1, 2])
    with pytest.raises(ConfigError, match=r"none of the holdback \(=2\) images"):
        Latents.open([tmp_path / "b"]).hold_back(2)


def test_order_and_mirroring_follow_from_seed_and_number(tmp_path: Path) -> None:
    for shard, numbers in enumerate(([0, 1, 2], [], [5, 7, 8, 9, 11])):
        hand_made(tmp_path / shard_name(shard), numbers, shards=3)
    data, again, other = (Latents.open([tmp_path], seed=seed) for seed in (3, 3, 4))
    found = shown(data, 240)
    turns = [sorted(number for number, _ in found[start : start + 8]) for start in range(0, 240, 8)]
    assert turns == [[0, 1, 2, 5, 7, 8, 9, 11]] * 30
    assert len({tuple(found[start : start + 8]) for start in range(0, 240, 8)}) == 30
    assert 90 < sum(mirrored for _, mirrored in found) < 150
    assert [again[n][0].tolist() for n in reversed(range(40))] == [data[n][0].tolist() for n in reversed(range(40))]
    assert shown(other, 40) != found[:40]
    assert not any(mirrored for _, mirrored in shown(Latents.open([tmp_path], flips=False), 40))
    in_order = Latents.open([tmp_path], augment=False)
    assert shown(in_order, 8) == [(number, False) for number in data.numbers]
    assert [number for number, _ in found[:8]] == data.numbers[order_of(3, 0, 8)].tolist()  # as crops


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(tmp_path: Path, workers: int) -> None:
    hand_made(tmp_path / shard_name(0), list(range(9)))
    data = Latents.open([tmp_path], seed=5)
    expected = [collate([data[n] for n in numbers]) for numbers in islice(numbers_of(4, 0, 1, 0, 1), 6)]
    read = batches_of(data, numbers_of(4, 0, 1, 0, 1), workers, torch.device("cpu"))
    for batch, other in zip(islice(read, 6), expected, strict=True):
        assert torch.equal(batch.pixels, other.pixels)
        assert batch.numbers.tolist() == other.numbers.tolist()
        assert batch.labels.tolist() == [-1] * 4


def test_large_codebooks_and_pickles(tmp_path: Path) -> None:
    hand_made(tmp_path / shard_name(0), list(range(9)))
    data = Latents.open([tmp_path])
    first = data[0][0]
    assert (first.dtype, first.shape) == (torch.int32, (2, 2, 2))
    copied = pickle.loads(pickle.dumps(data))  # noqa: S301
    assert rows(copied, 20) == rows(data, 20)


def test_folders_are_numbered_as_if_they_were_listed_together(tmp_path: Path) -> None:
    hand_made(tmp_path / "a" / shard_name(0), [0, 2], dataclasses.replace(HEADER, images=3))
    hand_made(tmp_path / "b" / shard_name(0), [1, 3], dataclasses.replace(HEADER, images=5))
    data = Latents.open([tmp_path / "a", tmp_path / "b"])
    assert data.numbers.tolist() == [0, 2, 4, 6]
    assert data.header.images == 8
    held = data.hold_back(2)[1]
    assert held is not None
    assert held.numbers.tolist() == [0, 4]
    other = dataclasses.replace(HEADER, image_px=32)
    hand_made(tmp_path / "c" / shard_name(0), [1], other)
    with pytest.raises(ConfigError, match=rf"of {CODEC} \(aaaaaaaa\), 32 px, but .* 16 px; name latents of one codec"):
        Latents.open([tmp_path / "a", tmp_path / "c"])


# -- what is refused -------------------------------------------------------------------------------------------------


def _truncated(folder: Path) -> None:
    path = hand_made(folder / shard_name(0), [0, 1, 2])
    path.write_bytes(path.read_bytes()[:-5])


def _two(folder: Path, **changes: Any) -> None:
    header = dataclasses.replace(HEADER, **{k: v for k, v in changes.items() if k != "numbers"})
    hand_made(folder / shard_name(0), [0, 1], shards=2)
    hand_made(folder / shard_name(1), changes.get("numbers", [2, 3]), header, shards=2)


def _changed(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: hand_made(folder / shard_name(0), [0, 1, 2], **changes)


U16 = np.zeros((3, 2, 2, 2), np.uint16)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (shutil.rmtree, ConfigError, "no such file or folder"),
        (lambda p: None, ConfigError, "no latents in this folder; write them with difflate latents"),
        (lambda p: (p / shard_name(0)).write_text("Dear Sir\n" * 9), FormatError, "is damaged, or no shard of latents"),
        (lambda p: (p / shard_name(0)).write_bytes(b""), FormatError, "is damaged, or no shard of latents"),
        (lambda p: (p / shard_name(0)).mkdir(), FormatError, "is damaged, or no shard of latents"),
        (_truncated, FormatError, "is damaged, or no shard of latents"),
        (lambda p: save_file({"x": U16}, str(p / shard_name(0))), FormatError, "is no shard of latents"),
        (_changed(format="pt"), FormatError, "is no shard of latents"),
        (_changed(version="2"), VersionError, r"version \(=2\) is unknown; update difflate"),
        (_changed(codebook_sizes="[1000, 2"), FormatError, "is damaged"),
        (_changed(codebook_sizes="[1000, 70000]"), FormatError, "numbers from 2 to 65536"),
        (_changed(codebook_sizes='["a"]'), FormatError, "numbers from 2 to 65536"),
        (_changed(codebook_sizes="[]"), FormatError, "numbers from 2 to 65536"),
        (_changed(codebook_sizes="[1000, 2, 2]"), FormatError, r"latents must be U16 of \(N, 3, h, h\)"),
        (_changed(codebook_sizes="[200, 2]"), FormatError, r"latents must be U8 of"),
        (_changed(fingerprint="../secret"), FormatError, "64 hexadecimal digits"),
        (_changed(image_px="17"), FormatError, "2 patches are no side of 17 px"),
        (_changed(image_px="-16"), FormatError, "must be from 1 to"),
        (_changed(images="1" + 40 * "0"), FormatError, "must be from 1 to"),
        (_changed(images="many"), FormatError, "is damaged"),
        (_changed(images="2"), FormatError, "numbers must rise from 0 to below 2"),
        (_changed(latents=None), FormatError, "latents must be"),
        (_changed(latents=U16[:, :, :1]), FormatError, "latents must be"),
        (_changed(latents=U16[0]), FormatError, "latents must be"),
        (_changed(mirrored=U16[:2]), FormatError, "mirrored must be U16"),
        (_changed(numbers=None), FormatError, "numbers must be I64"),
        (_changed(numbers=np.arange(3, dtype=np.int32)), FormatError, "numbers must be I64"),
        (_changed(numbers=np.arange(4)), FormatError, "numbers must be I64"),
        (_changed(numbers=np.array([0, 2, 1])), FormatError, "numbers must rise"),
        (_changed(numbers=np.array([-1, 0, 1])), FormatError, "numbers must rise"),
        (_changed(shards="2"), ConfigError, "has 1 of 2 shards"),
        (lambda p: _two(p, codec=OTHER), ConfigError, f"is of {OTHER} .* but .* of {CODEC}"),
        (lambda p: _two(p, fingerprint=64 * "b"), ConfigError, r"\(bbbbbbbb\), 16 px, but .* \(aaaaaaaa\), 16 px"),
        (lambda p: _two(p, image_px=64), ConfigError, "64 px, but .* 16 px"),
        (lambda p: _two(p, images=13), ConfigError, "is of another run than"),
        (lambda p: _two(p, numbers=[1, 2]), ConfigError, "two shards have the same image"),
        (lambda p: hand_made(p / shard_name(0), []), ConfigError, "has no latents"),
    ],
)
def test_a_folder_that_is_not_what_it_should_be(
    make: Callable[[Path], object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    make(folder)
    with pytest.raises(error, match=message) as raised:
        Latents.open([folder])
    assert str(raised.value).startswith(str(folder))
    assert "\n" not in str(raised.value)


def test_the_same_latents_are_named_once(tmp_path: Path) -> None:
    path = hand_made(tmp_path / shard_name(0), [0])
    for sources in ([tmp_path, tmp_path], [tmp_path, path], [path, path]):
        with pytest.raises(ConfigError, match="is named twice"):
            Latents.open(sources)
    with pytest.raises(ConfigError, match="there are no latents"):
        Latents.open([])


def test_indices_outside_of_their_codebook(tmp_path: Path) -> None:
    latents = U16.copy()
    latents[1, 1, 0, 1] = 2
    hand_made(tmp_path / shard_name(0), [0, 1, 2], latents=latents, mirrored=None)
    data = Latents.open([tmp_path], augment=False)
    with pytest.raises(FormatError, match="an index of row 1 is outside of its codebook"):
        data.read(1)
    batch = collate([data[n] for n in range(3)])
    assert (batch.numbers.tolist(), batch.dropped) == ([0, 2], 1)
    assert "outside of its codebook" in batch.skipped[0]


# -- training --------------------------------------------------------------------------------------------------------


def test_what_crops_are_known_by_has_not_changed(tmp_path: Path) -> None:
    crops = Crops(list_items([write_images(tmp_path, 2)]), 8)
    names = f"2 images, names {zlib.crc32(b'000.png -1 -1' + bytes([10]) + b'001.png -1 -1'):08x}"
    none = f"0 images, names {zlib.crc32(b''):08x}"
    assert names_of(crops, crops) == {"training_images": names, "held_back_images": names}
    assert names_of(crops, None)["held_back_images"] == none


class Mean(nn.Module):
    """Learns the mean of the indices."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(1, 1)
        self.model.save_pretrained = lambda *_, **__: None  # type: ignore[assignment]
        self.seen: list[Tensor] = []

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        self.seen.append(batch.pixels)
        means = batch.pixels.float().flatten(1).mean(1, keepdim=True)
        return {"loss": (self.model(torch.ones_like(means)) - means).square().mean()}

    def pictures(self) -> None:
        return None


def test_the_training_loop_takes_latents(tmp_path: Path) -> None:
    hand_made(tmp_path / "a" / shard_name(0), list(range(12)))
    hand_made(tmp_path / "b" / shard_name(0), list(range(11)))

    def steps(folder: str, count: int, out: str) -> list[Tensor]:
        samples, held_back = Latents.open([tmp_path / folder]).hold_back(4)
        assert isinstance(samples, Samples)
        loop = LoopSettings(max_steps=count, batch=4, workers=0, log_every=1, validate_every=2, pictures_every=0)
        objective = Mean()
        done = train(objective, samples, held_back, loop, tmp_path / out, config={}, card=lambda _: "")
        assert done.step == count
        assert done.validations[-1][1]["loss"] > 0
        return objective.seen

    whole = steps("a", 6, "whole")
    parts = steps("a", 2, "parts") + steps("a", 6, "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    with pytest.raises(ConfigError, match=r"data.training_images \(=7 latents of aaaaaaaa, numbers .* is 8 latents of"):
        steps("b", 8, "parts")


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_has_done(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    squares(tmp_path / "cats", 5, broken=(3,))
    code, out, err = run("cats", "-o", "shards/", "--shard-images", "2", "--workers", "0")
    assert code == 0
    size = sum(path.stat().st_size for path in (tmp_path / "shards").iterdir())
    said = f"shards/: 4 images (1 cannot be read), {size / 4:.0f} bytes an image and its mirrored one, "
    assert out.startswith(said)
    assert out.endswith(" images/s\n")
    assert "skipped: cats/003.png" in err
    code, out, _ = run("cats", "-o", "plain", "--no-flips", "--codec", OTHER, "--size", "8", "--json")
    found = json.loads(out)
    size = (tmp_path / "plain" / shard_name(0)).stat().st_size
    assert found.pop("seconds") > 0
    assert found.pop("images_per_s") > 0
    assert found == {
        "output": "plain", "codec": OTHER, "flips": False, "images": 4, "skipped": 1, "shards": 1, "image_px": 8,
        "bytes": size, "bytes_per_image": size / 4,
    }  # fmt: skip
    assert len(Latents.open([tmp_path / "shards"])) == 4
    assert Latents.open([tmp_path / "plain"]).header.codec == OTHER


@pytest.mark.parametrize(
    ("code", "words", "message"),
    [
        (2, ["cats", "--codec", "jpeg"], f"codec 'jpeg' has no codebook indices; choose one of eopq-32-8-8, {CODEC}"),
        (2, ["cats", "--codec", "nothing"], "codec 'nothing' is unknown"),
        (2, ["cats", "--size", "20"], f"20x20 px are not whole patches of 8x8 px, as {CODEC} has them; give --size"),
        (2, ["odd"], "images of 12x12 px are not whole patches"),
        (2, ["none"], "none: no such file or folder"),
        (2, ["cats", "--device", "abacus"], "--device (=abacus) cannot be used"),
        (2, ["cats", "--batch", "0"], "batch (=0) must be at least 1"),
        (3, ["broken"], "broken: none of its 2 images can be read"),
        (6, ["cats", "-o", "there"], f"there/{shard_name(0)}: exists already; use --force"),
        (1, ["cats", "-o", "file"], f"file/{shard_name(0)}: cannot be written ("),
    ],
)
def test_errors_are_one_line(
    run: Run, code: int, words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    squares(tmp_path / "cats", 2)
    squares(tmp_path / "odd", 2, side=12)
    squares(tmp_path / "broken", 2, broken=(0, 1))
    hand_made(tmp_path / "there" / shard_name(0), [0])
    (tmp_path / "file").touch()
    ended, out, err = run("-o", "shards", "--workers", "0", *words)
    assert (ended, out) == (code, "")
    assert err.startswith("difflate: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "shards").exists()


def test_force_replaces_shards(run: Run, tmp_path: Path) -> None:
    hand_made(tmp_path / "there" / shard_name(0), [0])
    assert run(squares(tmp_path / "cats", 2), "-o", tmp_path / "there", "-f", "--workers", "0")[0] == 0
    assert read_header(tmp_path / "there").images == 2
