"""Latent data sets are read and trained on, in an order that follows from the seed."""

import dataclasses
import pickle
import zlib
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from difflate.data.crops import Batch, Crops, Samples, collate, numbers_of, order_of
from difflate.data.items import Item, held_back_numbers, hold_back, list_items
from difflate.data.latents import Latents, shard_name
from difflate.data.loader import batches_of
from difflate.errors import ConfigError
from difflate.train.draws import Draws
from difflate.train.loop import train
from difflate.train.resume import names_of
from difflate.train.settings import LoopSettings
from difflate.train.task import Task
from latent_helpers import CODEC, HEADER, hand_made, rows
from training_helpers import write_images


def shown(data: Latents, count: int) -> list[tuple[int, bool]]:
    """(number of the image, whether it is the mirrored one) of hand-made samples."""
    values = [int(data[n][0][0, 0, 0]) for n in range(count)]
    return [(value % 500, value >= 500) for value in values]


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


# -- training --------------------------------------------------------------------------------------------------------


def test_what_crops_are_known_by_has_not_changed(tmp_path: Path) -> None:
    crops = Crops(list_items([write_images(tmp_path, 2)]), 8)
    names = f"2 images, names {zlib.crc32(b'000.png -1 -1' + bytes([10]) + b'001.png -1 -1'):08x}"
    none = f"0 images, names {zlib.crc32(b''):08x}"
    assert names_of(crops, crops) == {"training_images": names, "held_back_images": names}
    assert names_of(crops, None)["held_back_images"] == none


class Mean(Task):
    """Learns the mean of the indices."""

    def __init__(self, loop: LoopSettings) -> None:
        super().__init__(nn.Linear(1, 1), loop)
        self.model.save_pretrained = lambda *_, **__: None  # type: ignore[assignment]
        self.seen: list[Tensor] = []

    def loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        self.seen.append(batch.pixels)
        means = batch.pixels.float().flatten(1).mean(1, keepdim=True)
        return {"loss": (self.model(torch.ones_like(means)) - means).square().mean()}


def test_the_training_loop_takes_latents(tmp_path: Path) -> None:
    hand_made(tmp_path / "a" / shard_name(0), list(range(12)))
    hand_made(tmp_path / "b" / shard_name(0), list(range(11)))

    def steps(folder: str, count: int, out: str) -> list[Tensor]:
        samples, held_back = Latents.open([tmp_path / folder]).hold_back(4)
        assert isinstance(samples, Samples)
        loop = LoopSettings(max_steps=count, batch=4, workers=0, log_every=1, validate_every=2, pictures_every=0)
        task = Mean(loop)
        done = train(task, samples, held_back, tmp_path / out, config={}, card=lambda _: "")
        assert done.step == count
        assert done.validations[-1][1]["loss"] > 0
        return task.seen

    whole = steps("a", 6, "whole")
    parts = steps("a", 2, "parts") + steps("a", 6, "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    with pytest.raises(ConfigError, match=r"data.training_images \(=7 latents of aaaaaaaa, numbers .* is 8 latents of"):
        steps("b", 8, "parts")
