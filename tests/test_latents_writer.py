"""Latent data sets are written: shards hold what the codec makes of images, whole or not at all."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from difflate.codecs.loading import load
from difflate.data.crops import Crops
from difflate.data.items import list_items
from difflate.data.latent_writer import Written, write_latents
from difflate.data.latents import LatentHeader, Latents, read_header, shard_files, shard_name
from difflate.errors import ConfigError, DifflateError, ImageError, OutputExists
from difflate.media.picture import open_image
from difflate.models.latent_space import LatentSpace, latent_space
from latent_helpers import CODEC, PX, rows, squares
from training_helpers import picture, write_images, write_shard


@pytest.fixture(scope="module")
def space() -> LatentSpace:
    return latent_space(load(CODEC))


def write(images: Path, out: Path, space: LatentSpace, **options: Any) -> Written:
    return write_latents(list_items([images]), space, out, sources=[images], **{"workers": 0, **options})


def test_a_latent_decodes_to_what_the_file_of_the_image_does(space: LatentSpace, tmp_path: Path) -> None:
    images, codec = squares(tmp_path / "images", 5, side=24), load(CODEC)
    done = write(images, tmp_path / "out", space, batch=2)
    assert dataclasses.replace(done, seconds=0, bytes=0) == Written(5, 0, 1, 24, 0, 0)
    assert done.bytes == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    data = Latents.open([tmp_path / "out"], augment=False)
    assert data.header == LatentHeader(CODEC, space.fingerprint.hex(), tuple(space.sizes), 24, 5)
    assert (data.shape, len(data), data.mirrored) == ((6, 3, 3), 5, True)
    for number, path in enumerate(sorted(images.iterdir())):
        indices, n, label, skipped, *_ = data[number]
        assert (indices.dtype, indices.shape, n, label, skipped) == (torch.uint8, (6, 3, 3), number, -1, ())
        expected = codec.decode(codec.encode(open_image(path))).pixels
        assert np.array_equal(space.from_latent(indices[None].long())[0].numpy(), expected)


def test_mirrored_latents_are_those_of_the_mirrored_images(space: LatentSpace, tmp_path: Path) -> None:
    images = squares(tmp_path / "images", 4)
    write(images, tmp_path / "out", space)
    tensors = load_file(str(tmp_path / "out" / shard_name(0)))
    flipped = np.stack([picture(n, PX, PX)[:, ::-1].transpose(2, 0, 1) for n in range(4)])
    assert np.array_equal(tensors["mirrored"], space.to_latent(torch.from_numpy(flipped)).numpy())
    assert not np.array_equal(tensors["mirrored"], tensors["latents"])
    write(images, tmp_path / "plain", space, flips=False)
    assert load_file(str(tmp_path / "plain" / shard_name(0))).keys() == {"latents", "numbers"}
    data = Latents.open([tmp_path / "plain"], flips=True)
    assert not data.mirrored
    assert sorted(rows(data)) == sorted(tensors["latents"].reshape(4, -1).tolist())


def test_several_shards_are_one(space: LatentSpace, tmp_path: Path) -> None:
    images = squares(tmp_path / "images")
    write(images, tmp_path / "one", space)
    done = write(images, tmp_path / "many", space, shard_images=3, batch=2, workers=1)
    assert done.shards == 4
    assert [path.name for path in shard_files(tmp_path / "many")] == [shard_name(i) for i in range(4)]
    one, many = (Latents.open([tmp_path / name], seed=1) for name in ("one", "many"))
    assert rows(one, 30) == rows(many, 30)
    assert one.identity() == many.identity()
    named = Latents.open(shard_files(tmp_path / "many")[1:3], augment=False)
    assert named.numbers.tolist() == [3, 4, 5, 6, 7, 8]


def test_the_metadata_is_text_that_names_no_place(space: LatentSpace, tmp_path: Path) -> None:
    write(squares(tmp_path / "images", 2), tmp_path / "out", space)
    with safe_open(str(tmp_path / "out" / shard_name(0)), "np") as file:
        metadata = file.metadata()
    assert metadata == {
        "format": "difflate-latents", "version": "1", "codec": CODEC, "fingerprint": space.fingerprint.hex(),
        "codebook_sizes": json.dumps(list(space.sizes)), "image_px": "16", "images": "2", "shards": "1",
        "sources": '["images"]',
    }  # fmt: skip
    assert read_header(tmp_path / "out") == read_header(tmp_path / "out" / shard_name(0))


def test_images_are_scaled_and_cropped(space: LatentSpace, tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)  # 12x10 px
    shard = write_shard(tmp_path / "images" / "s.tar", range(3, 5))
    write(tmp_path / "images", tmp_path / "out", space, image_px=24)
    data = Latents.open([tmp_path / "out"], augment=False)
    items = list_items([shard, *(tmp_path / "images" / f"{n:03d}.png" for n in range(3))])
    pixels = torch.stack([Crops(items, 24, short_side=24, augment=False)[n][0] for n in range(5)])
    assert rows(data) == space.to_latent(pixels).flatten(1).tolist()


def test_unreadable_images_leave_gaps(space: LatentSpace, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = squares(tmp_path / "images", 10, broken=(4, 5, 7))
    done = write(images, tmp_path / "out", space, shard_images=2, batch=1)
    assert (done.images, done.skipped) == (7, 3)
    assert "skipped: " in caplog.text
    assert all(f"{n:03d}.png" in caplog.text for n in (4, 5, 7))
    data = Latents.open([tmp_path / "out"], augment=False)
    assert data.numbers.tolist() == [0, 1, 2, 3, 6, 8, 9]
    whole = squares(tmp_path / "whole", 10)
    write(whole, tmp_path / "all", space)
    intact = Latents.open([tmp_path / "all"], augment=False)
    assert rows(data) == [rows(intact)[n] for n in data.numbers]
    for count in (0, 1, 3, 5):
        ours, theirs = data.hold_back(count)[1], intact.hold_back(count)[1]
        kept = set(theirs.numbers.tolist()) if theirs else set()
        assert set(ours.numbers.tolist() if ours else []) == kept - {4, 5, 7}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_interruption_leaves_the_folder_as_it_was(space: LatentSpace, tmp_path: Path, workers: int) -> None:
    images, out = squares(tmp_path / "images"), tmp_path / "out"

    def interrupted(count: int) -> None:
        steps.append(count)
        if len(steps) == 4:
            raise KeyboardInterrupt

    for before in ({}, None):
        steps: list[int] = []
        if before is None:
            write(squares(tmp_path / "others", 3), out, space)
            before = {path.name: path.read_bytes() for path in out.iterdir()}
        with pytest.raises(KeyboardInterrupt):
            write(images, out, space, shard_images=2, batch=2, workers=workers, force=True, progress=interrupted)
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("moment", range(6))
def test_an_interruption_while_shards_are_replaced(
    space: LatentSpace, tmp_path: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, moves = tmp_path / "out", []
    write(squares(tmp_path / "old", 6), out, space, shard_images=2)
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
        write(squares(tmp_path / "new", 9), out, space, shard_images=3, force=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_shards_are_replaced_only_if_asked_for(space: LatentSpace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(squares(tmp_path / "a", 6), out, space, shard_images=1)
    (out / "notes.txt").write_text("kept")
    (out / shard_name(0)).unlink()
    with pytest.raises(OutputExists, match="latents-00001"):
        write(squares(tmp_path / "b", 4), out, space)
    write(squares(tmp_path / "b", 4), out, space, shard_images=2, force=True)
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
    options: dict[str, int], error: type[Exception], message: str, space: LatentSpace, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        write(squares(tmp_path / "images", 2), tmp_path / "out", space, **options)
    assert not (tmp_path / "out").exists()


def test_images_that_cannot_be_encoded(space: LatentSpace, tmp_path: Path) -> None:
    out = tmp_path / "out"
    squares(tmp_path / "mixed", 2)
    Image.fromarray(picture(1, 24, 24)).save(tmp_path / "mixed" / "z.png")
    with pytest.raises(ConfigError, match=r"mixed: not squares of one size \(16x16, 24x24\); give --size"):
        write(tmp_path / "mixed", out, space)
    with pytest.raises(ConfigError, match="not squares"):
        write(write_images(tmp_path / "oblong", 2), out, space)
    broken = squares(tmp_path / "broken", 3, broken=(0, 1, 2))
    for image_px in (None, 16):
        with pytest.raises(ImageError, match="broken: none of its 3 images can be read"):
            write(broken, out, space, image_px=image_px)
    assert not list(out.iterdir())
