"""Images for training: folders and shards, crops that follow from their numbers, what is held back and skipped."""

import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from difflate.data.crops import Crops, collate, numbers_of
from difflate.data.images import list_images
from difflate.data.items import hold_back, label_by_folder, list_items
from difflate.data.loader import batches_of
from difflate.data.mixed import Mixed
from difflate.errors import ConfigError, ImageError
from difflate.seeds import Stream, torch_generator
from difflate.train import checkpoint
from difflate.train.draws import Draws
from difflate.train.loop import CHECKPOINTS
from difflate.train.recipes import pixel, vq
from training_helpers import picture, write_images, write_shard
from training_helpers import settings as training_settings


def test_items_of_folders_and_files_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_images(tmp_path / "b", 2)
    write_images(tmp_path / "a", 2)
    items = list_items([tmp_path / "b", tmp_path / "a" / "001.png"])
    assert [Path(item.path).relative_to(tmp_path).as_posix() for item in items] == [
        "b/000.png",
        "b/001.png",
        "a/001.png",
    ]


def test_members_of_shards_are_the_images_that_were_written(tmp_path: Path) -> None:
    write_shard(tmp_path / "s-00.tar", range(3))
    write_shard(tmp_path / "s-01.tar", range(3, 5))
    for source in (tmp_path, tmp_path / "s-{00..01}.tar"):
        crops = Crops(list_items([source]), 10, augment=False, short_side=10)
        assert len(crops) == 5
        for number in range(5):
            assert np.array_equal(crops[number][0].numpy(), picture(number).transpose(2, 0, 1)[:, :, 1:11])


def test_shards_that_webdataset_writes_are_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(f"file:{tmp_path}/s-%02d.tar", maxcount=2, verbose=0) as writer:
        for number in range(3):
            writer.write({"__key__": f"{number}", "png": Image.fromarray(picture(number)), "cls": number})
    crops = Crops(list_items([tmp_path]), 10, augment=False)
    assert len(crops) == 3
    assert np.array_equal(crops[2][0].numpy(), picture(2).transpose(2, 0, 1)[:, :, 1:11])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nothing.tar", "no such file"),
        (lambda p: p / "nothing", "no such file or folder"),
        (lambda p: write_images(p / "e", 0), "no images in this folder"),
        (lambda p: _text(p / "text.tar"), "is not an uncompressed tar archive"),
        (lambda p: _compressed(p / "c.tar"), "is not an uncompressed tar archive"),
        (lambda p: write_shard(p / "empty.tar", range(0)), "no images in its tar archives"),
    ],
)
def test_a_source_without_images_is_named(make, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        list_items([make(tmp_path)])


def _text(path: Path) -> Path:
    path.write_text("no archive " * 100)
    return path


def _compressed(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        tar.add(__file__, "a.png")
    return path


@given(count=st.integers(2, 300), share=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_what_is_held_back_is_spread_evenly_and_not_trained_on(count: int, share: float) -> None:
    kept = min(int(share * count), count - 1)
    items = list(range(count))
    trained, held = hold_back(items, kept)  # type: ignore[arg-type,var-annotated]
    assert len(held) == kept
    assert sorted([*trained, *held]) == items
    if kept > 1:
        gaps = np.diff(held)
        assert gaps.max() - gaps.min() <= 1


def test_each_time_round_shows_every_image_once_in_a_new_order(tmp_path: Path) -> None:
    for number in range(7):
        Image.new("RGB", (12, 10), (number, 0, 0)).save(tmp_path / f"{number}.png")
    crops = Crops(list_items([tmp_path]), 8)
    turns = [[int(crops[n][0][0, 0, 0]) for n in range(start, start + 7)] for start in (0, 7, 14)]
    assert all(sorted(turn) == list(range(7)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) == 3


def test_a_crop_follows_from_seed_and_number_alone(tmp_path: Path) -> None:
    items = list_items([write_images(tmp_path, 5)])
    crops, again, other = (Crops(items, 8, seed=seed) for seed in (3, 3, 4))
    shown = [crops[n][0] for n in range(20)]
    assert all(torch.equal(again[n][0], shown[n]) for n in reversed(range(20)))
    assert any(not torch.equal(other[n][0], shown[n]) for n in range(20))


def test_flips_are_of_half_the_images(tmp_path: Path) -> None:
    gradient = np.tile(np.arange(0, 240, 24, dtype=np.uint8)[None, :, None], (10, 1, 3))
    Image.fromarray(gradient).save(tmp_path / "g.png")
    crops = Crops(list_items([tmp_path]), 10)
    flipped = sum(bool(crops[n][0][0, 0, 0] > crops[n][0][0, 0, -1]) for n in range(200))
    assert 70 < flipped < 130
    unflipped = Crops(crops.items, 10, flips=False)
    assert all(unflipped[n][0][0, 0, 0] < unflipped[n][0][0, 0, -1] for n in range(20))


@given(height=st.integers(1, 40), width=st.integers(1, 40), size=st.integers(1, 24), short=st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_any_image_gives_crops_of_the_size_asked_for(
    height: int, width: int, size: int, short: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    Image.fromarray(picture(1, height, width)).save(folder / "a.png")
    for augment in (True, False):
        crops = Crops(list_items([folder]), size, short_side=size + short if short else None, augment=augment)
        sample = crops[0]
        assert sample.pixels.shape == (3, size, size)
        assert sample.pixels.dtype == torch.uint8
        assert (sample.label, sample.skipped) == (-1, [])


def test_grey_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    Image.fromarray(picture(0)[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(np.dstack([picture(0), picture(1)[..., :1]])).save(tmp_path / "alpha.png")
    crops = Crops(list_items([tmp_path]), 8, augment=False)
    assert [crops[n][0].shape for n in range(2)] == [(3, 8, 8)] * 2


def test_what_is_hidden_under_alpha_does_not_enter_crops(tmp_path: Path) -> None:
    alpha = np.tile(np.array([0, 0, 0, 255, 255, 255, 128, 128, 128, 255, 0, 0], np.uint8), (10, 1))
    shown = []
    for name, hidden in (("smooth", picture(1)), ("noisy", np.random.default_rng(0).integers(0, 256, (10, 12, 3)))):
        pixels = np.where(alpha[..., None] > 0, picture(0), hidden).astype(np.uint8)
        (tmp_path / name).mkdir()
        Image.fromarray(np.dstack([pixels, alpha])).save(tmp_path / name / "a.png")
        items = list_items([tmp_path / name])
        shown.append([Crops(items, 8, short_side=side)[n].pixels for side in (None, 8) for n in range(5)])
        whole = Crops(items, 10, augment=False)[0].pixels
        assert (whole[:, :, :2] == 255).all()
        assert np.array_equal(whole[:, :, 2:5].numpy(), picture(0).transpose(2, 0, 1)[:, :, 3:6])
    assert all(torch.equal(*pair) for pair in zip(*shown, strict=True))


def test_codebooks_are_trained_on_transparent_images_laid_over_white(tmp_path: Path) -> None:
    alpha = np.repeat(np.array([0, 255], np.uint8), 6)[None].repeat(10, axis=0)
    shown = np.where(alpha[..., None] > 0, picture(0), 255).astype(np.uint8)
    for name, pixels in (("clear.png", np.dstack([picture(0), alpha])), ("white.png", shown)):
        Image.fromarray(pixels).save(tmp_path / name)
    training = vq.VqTraining(out="x", images=["y"])
    for channel in range(3):
        found, expected = (vq.windows([tmp_path / name], channel, training) for name in ("clear.png", "white.png"))
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_opening_loses_is_logged_once_of_each_kind(
    workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(6):
        Image.fromarray(np.full((8, 8), 300 * number, np.uint16)).save(tmp_path / f"deep{number}.png")
        profile = b"broken" * (number + 1)
        Image.fromarray(picture(number)).save(tmp_path / f"profile{number}.png", icc_profile=profile)
    crops = Crops(list_items([tmp_path]), 8, augment=False)
    for _ in range(2):
        numbers = iter([list(range(start, start + 4)) for start in (0, 4, 8)])
        batches = list(batches_of(crops, numbers, workers, torch.device("cpu")))
        assert sum(len(batch.notes) for batch in batches) == 12
    assert len(caplog.records) == 2
    assert "deep0.png: more than 8 bits" in caplog.text
    assert "profile0.png: the ICC profile is ignored (" in caplog.text


def test_hidden_files_are_left_out_and_counted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = write_images(tmp_path / "images", 2)
    for name in ("._000.png", ".DS_Store", ".thumbnails/000.png", "__MACOSX/001.png"):
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).write_text("no image")
    shard = tmp_path / "s.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("./a.png", "b/c.png", "._a.png", "b/._c.png", "__MACOSX/b/c.png", ".hidden/a.png"):
            tar.add(images / "000.png", name)
    (images / "._s.tar").write_text("no archive")
    assert [item.path for item in list_items([images, shard])] == [
        *(str(images / name) for name in ("000.png", "001.png")), str(shard), str(shard),
    ]  # fmt: skip
    assert [record.message for record in caplog.records] == [f"ignored 8 hidden files, the first {images / '._s.tar'}"]
    caplog.clear()
    assert [path.name for path in list_images([images])] == ["000.png", "001.png"]
    assert [path.name for path in list_images([images], recursive=False)] == ["000.png", "001.png"]
    assert [record.message[:22] for record in caplog.records] == ["ignored 3 hidden files", "ignored 1 hidden file,"]
    # what is named is taken, also inside a hidden folder
    assert len(list_items([images / "._000.png", images / ".thumbnails"])) == 2
    assert list_images([images / "._000.png"]) == [images / "._000.png"]


@pytest.mark.parametrize("name", ["s.tar.gz", "s.tgz", "photos.zip", "S.TAR.XZ"])
def test_a_compressed_archive_is_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"archive")
    for source in (tmp_path / name, tmp_path):
        for list_them in (list_items, list_images):
            with pytest.raises(
                ConfigError, match=f"{name}: images cannot be read from a compressed archive; unpack it"
            ):
                list_them([source])


def test_unreadable_images_are_replaced_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = write_images(tmp_path / "images", 20)
    (images / "zz.png").write_text("no image")
    shard = write_shard(tmp_path / "s.tar", range(10), broken=(4,))
    loop = {"max_steps": 12, "checkpoint_every": 12}
    out = pixel.RECIPE.run(training_settings([images, shard], tmp_path / "out", loop, holdback=0), "", progress=False)
    newest = checkpoint.latest(out / CHECKPOINTS)
    assert newest is not None
    skipped = checkpoint.read_head(newest)[0].skipped
    assert 4 <= skipped <= 8  # 96 crops are three times round 31 images, two of them broken
    assert f"were skipped: {skipped}" in (out / "README.md").read_text()
    named = [record.message for record in caplog.records if "skipped:" in record.message]
    assert any("zz.png" in text for text in named)
    assert any("s.tar (at byte" in text for text in named)


def test_a_folder_without_a_readable_image_is_an_error(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no image")
    crops = Crops(list_items([tmp_path]), 8)
    with pytest.raises(ImageError, match=r"a\.png"):
        crops.read(0)
    batch = collate([crops[0], crops[1]])
    assert (len(batch.numbers), batch.dropped, len(batch.skipped)) == (0, 2, 4)


def test_held_back_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    write_images(tmp_path, 3)
    (tmp_path / "001.png").write_text("no image")
    crops = Crops(list_items([tmp_path]), 8, augment=False)
    batch = collate([crops[n] for n in range(3)])
    assert batch.numbers.tolist() == [0, 2]
    assert batch.dropped == 1


def test_images_beside_shards_are_taken_too(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)
    write_shard(tmp_path / "s.tar", range(2))
    assert len(list_items([tmp_path])) == 5


def test_a_truncated_shard_gives_what_is_before_the_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shard = write_shard(tmp_path / "s.tar", range(6))
    data = shard.read_bytes()
    shard.write_bytes(data[: data.index(b"004.png") + 512 + 20])
    items = list_items([shard])
    assert len(items) == 5
    assert [len(Crops(items, 8, augment=False)[n][3]) for n in range(5)] == [0, 0, 0, 0, 1]
    assert "is damaged" in caplog.text


def test_streams_of_random_numbers_are_unrelated() -> None:
    keys = [(5, 1, 0), (5, 0, 1), (5 + 2**32, 1, 0), (5, 1, 2**32), (0, 5, 1), (5, 1, 1), (1, 5, 0)]
    assert len({torch_generator(*key).initial_seed() for key in keys}) == len(keys)
    for seed in (-1, 2**63):
        with pytest.raises(ConfigError, match="must be from 0"):
            torch_generator(seed, 1)


def test_numbers_of_streams_stay_what_they_were() -> None:
    """Files, samples and trainings that go on depend on them."""
    assert [stream.value for stream in Stream] == list(range(1, len(Stream) + 1))
    kept = (Stream.SAMPLE_NOISE, Stream.CROP, Stream.ORDER, Stream.DECODER_NOISE, Stream.MIRRORED_LATENT)
    assert kept == (4, 6, 7, 12, 13)
    assert torch_generator(3, Stream.DECODER_NOISE, 5).initial_seed() == torch_generator(3, 12, 5).initial_seed()


def test_classes_are_the_folders(tmp_path: Path) -> None:
    for name in ("dogs", "cats"):
        write_images(tmp_path / name, 2)
    items, names = label_by_folder(list_items([tmp_path]))
    assert names == ["cats", "dogs"]
    assert [item.label for item in items] == [0, 0, 1, 1]
    with pytest.raises(ConfigError, match="two or more folders"):
        label_by_folder(list_items([tmp_path / "cats"]))


@pytest.mark.parametrize(("parts", "pieces"), [(1, 1), (2, 1), (1, 4), (2, 2)])
def test_processes_and_pieces_share_a_step(parts: int, pieces: int) -> None:
    for step in (0, 5):
        shares = [numbers_of(16, part, parts, 5, pieces) for part in range(parts)]
        found = [n for share in shares for lists in islice(share, pieces * (step + 1)) for n in lists]
        assert sorted(found) == list(range(5 * 16, (6 + step) * 16))


def test_draws_follow_from_the_numbers() -> None:
    whole = Draws(1, torch.arange(32, 48), 16)
    part = Draws(1, torch.arange(40, 44), 16)
    assert torch.equal(whole.uniform()[8:12], part.uniform())
    first, second = (d.generators()[i] for d, i in ((whole, 8), (part, 0)))
    assert torch.equal(torch.rand(3, generator=first), torch.rand(3, generator=second))
    assert whole.toss().initial_seed() == part.toss().initial_seed()
    assert torch.equal(whole.drop_mask(0.4)[8:12], part.drop_mask(0.4))
    assert 0.3 < Draws(1, torch.arange(2000), 16).drop_mask(0.4).float().mean() < 0.5


def test_times_of_a_step_are_equally_spaced() -> None:
    values = Draws(1, torch.arange(32, 48), 16).uniform().sort().values
    torch.testing.assert_close(values.diff(), torch.full((15,), 1 / 16))
    assert values[0] >= 0
    assert values[-1] < 1
    starts = [float(Draws(1, torch.arange(i * 16, i * 16 + 16), 16).uniform().min()) for i in range(50)]
    assert len(set(starts)) == 50


def test_a_batch_is_in_the_range_of_the_networks(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[0, 255, 51]] * 2] * 2, dtype=np.uint8)).save(tmp_path / "a.png")
    batch = collate([Crops(list_items([tmp_path]), 2)[n] for n in range(3)])
    images = batch.images(torch.device("cpu"))
    torch.testing.assert_close(images[:, :, 0, 0], torch.tensor([[-1.0, 1.0, -0.6]] * 3))
    assert batch.numbers.tolist() == [0, 1, 2]


def test_images_held_in_memory_are_the_same_and_are_not_read_again(tmp_path: Path) -> None:
    write_images(tmp_path, 3)
    (tmp_path / "broken.png").write_bytes(b"none")
    plain, held = (Crops(list_items([tmp_path]), 8, seed=1) for _ in range(2))
    expected = [plain[number] for number in range(12)]
    held.hold()
    for path in tmp_path.glob("0*.png"):
        path.write_bytes(b"none")
    for number, sample in enumerate(expected):
        found = held[number]
        assert torch.equal(found.pixels, sample.pixels)
        assert [text.split(":")[0] for text in found.skipped] == [text.split(":")[0] for text in sample.skipped]


def test_texts_go_with_their_images(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 4)
    for number, text in ((0, b" a cat\n"), (1, "\ufeffein Kätzchen".encode()), (3, b"")):
        (tmp_path / "images" / f"{number:03d}.txt").write_bytes(text)
    shard = tmp_path / "s.tar"
    with tarfile.open(shard, "w") as tar:  # in front of the image, behind it, of none
        for name in ("b.txt", "a.png", "b.png", "c.png", "a.txt", "d.txt"):
            source = tmp_path / "images" / "000.png"
            if name.endswith(".txt"):
                source = tmp_path / name
                source.write_text(f"text of {name}")
            tar.add(source, name)
    items = list_items([tmp_path / "images", shard])
    assert [item.caption() for item in items] == ["a cat", "ein Kätzchen", "", "", "text of a.txt", "text of b.txt", ""]
    crops = Crops(items, 8, augment=False, captions=True)
    lists = [[0, 5], [4, 1]]
    for workers in (0, 1):
        found = [batch.captions for batch in batches_of(crops, iter(lists), workers, torch.device("cpu"))]
        assert found == [("a cat", "text of b.txt"), ("text of a.txt", "ein Kätzchen")]
    assert Crops(items, 8, augment=False).read(0).caption == ""
    mixed = Mixed(Crops(items, 8, captions=True), made=0.5, grey=0.5)
    texts = {mixed.photographs.read(n).caption for n in range(30)}
    assert len(texts) == 5
    assert {mixed.read(n).caption for n in range(30)} == texts


@pytest.mark.parametrize(
    ("data", "message"), [(b"\xff\xfe", "is no text in UTF-8"), (b"x" * 4097, "has 4097 bytes, above 4096")]
)
def test_texts_that_cannot_be_are_told(tmp_path: Path, data: bytes, message: str) -> None:
    write_images(tmp_path / "images", 4)
    (tmp_path / "images" / "000.txt").write_bytes(data)
    shard = tmp_path / "s.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("000.png", "000.txt"):
            tar.add(tmp_path / "images" / name, name)
    for item in (list_items([tmp_path / "images"])[0], list_items([shard])[0]):
        with pytest.raises(ImageError, match=message):
            item.caption()
    crops = Crops(list_items([tmp_path / "images"]), 8, captions=True)
    samples = [crops[number] for number in range(8)]
    assert all(sample.pixels.numel() for sample in samples)  # the next image took its place
    assert any("000.txt" in text for sample in samples for text in sample.skipped)
