"""Clips for training: made motion that is what it says, and crops of real clips in space and time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from difflate.data import clips as clips_module
from difflate.data.clips import ClipCrops, LoadedClip, forth_and_back, load_clips
from difflate.data.crops import Crops, collate
from difflate.data.items import list_items
from difflate.data.loader import batches_of
from difflate.data.moving import KINDS, clip_of_kind, covering, path, shown
from difflate.errors import ConfigError, ImageError, LimitExceeded
from difflate.media.clip import clip_of
from difflate.media.picture import Picture
from difflate.media.video import write_clip
from difflate.train.recipe import clips_of
from difflate.train.settings import ClipSettings

SIZE, FRAMES = 32, 5
TIMES = np.arange(FRAMES)[:, None] - (FRAMES - 1) / 2


def texture(number: int, height: int = 100, width: int = 120) -> np.ndarray:
    """(3, height, width) uint8 from 40 to 215: smooth spots, so that samples between pixels are near their own."""
    spots = np.random.default_rng(number).uniform(60, 195, (12, 14, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


def textures() -> Iterator[np.ndarray]:
    number = 0
    while True:
        yield texture(number)
        number += 1


def changes(clip: np.ndarray) -> np.ndarray:
    """(T - 1,): mean absolute difference of neighbouring frames of ``clip: (3, T, H, W)``."""
    return np.abs(np.diff(clip.astype(int), axis=1)).mean((0, 2, 3))


def numbered_clip(count: int = 11, height: int = 40, width: int = 50) -> LoadedClip:
    """Frame t is 10 t in all pixels of the left half, and 10 t + 5 in the right one."""
    frames = torch.arange(count, dtype=torch.uint8)[:, None, None, None] * 10
    frames = frames.repeat(1, 3, height, width)
    frames[..., width // 2 :] += 5
    return LoadedClip("numbers", frames)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(texture(number).transpose(1, 2, 0)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_makes_clips_that_follow_from_the_generator(kind: str) -> None:
    for seed in range(3):
        for frames, size in ((1, 1), (FRAMES, 33)):
            clip, again = (clip_of_kind(kind, np.random.default_rng(seed), textures(), frames, size) for _ in range(2))
            assert clip.shape == (3, frames, size, size)
            assert clip.dtype == np.uint8
            assert np.array_equal(clip, again)


@pytest.mark.parametrize(("x", "y"), [(3, 0), (0, -2), (-1, 4)])
def test_a_pan_by_whole_pixels_shifts_a_part_of_the_picture(x: int, y: int) -> None:
    picture = texture(0)
    poses = path(linear={0: x, 1: y}).poses(TIMES.ravel())
    for seed in range(20):  # half of them show the picture in its own size
        clip = shown([covering(np.random.default_rng(seed), picture, poses, SIZE)], TIMES, SIZE)
        first, last = clip[0].astype(int), clip[-1].astype(int)
        dx, dy = x * (FRAMES - 1), y * (FRAMES - 1)
        seen = (slice(max(dy, 0), SIZE + min(dy, 0)), slice(max(dx, 0), SIZE + min(dx, 0)))
        came = (slice(max(-dy, 0), SIZE + min(-dy, 0)), slice(max(-dx, 0), SIZE + min(-dx, 0)))
        assert np.array_equal(last[seen], first[came])
        assert not np.array_equal(last, first)


def test_poses_map_pixels_as_their_similarity_says() -> None:
    # a slope of brightness: what a frame shows of it is where it was sampled
    rows, columns = np.mgrid[0:200, 0:200]
    picture = np.stack([columns, rows, 0 * rows]).astype(np.uint8)
    angle, zoom = 0.3, np.log(1.25)
    poses = path(start={2: zoom, 3: angle}, linear={0: 0.5}).poses(np.array([-1.0, 1.0]))
    poses[0, 2] = 0  # covering brings the smallest zoom to 1
    for seed in range(6):
        layer = covering(np.random.default_rng(seed), picture, poses, 65)
        maps = layer.maps
        for number, (scale, shift) in enumerate(((1, -0.5), (1.25, 0.5))):
            middle = np.array([32 + shift, 32])
            corner = middle + scale * 10 * np.array([np.cos(angle), np.sin(angle)])
            moved = maps[number] @ [*corner, 1] - maps[number] @ [*middle, 1]
            assert np.allclose(moved, [10, 0])
            assert np.allclose(maps[number] @ [*middle, 1], maps[0] @ [31.5, 32, 1])


def test_motion_blur_is_the_mean_of_its_moments() -> None:
    moments = TIMES + np.array([0, 0.25, 0.5, 0.75])
    poses = path(linear={0: 2.0}).poses(moments.ravel())
    layer = covering(np.random.default_rng(0), texture(1), poses, SIZE)
    single = shown([layer], moments.reshape(-1, 1), SIZE).reshape(FRAMES, 4, SIZE, SIZE, 3)
    assert np.abs(shown([layer], moments, SIZE) - single.mean(1)).max() <= 0.5


@pytest.mark.parametrize("kind", ["pan", "zoom", "turn", "held-by-hand", "layers", "objects"])
def test_no_border_is_seen(kind: str) -> None:
    # what lies outside of a picture is black; these have no value below 40
    for seed in range(12):
        rng: Any = _WithoutNoise(np.random.default_rng(seed))
        assert clip_of_kind(kind, rng, textures(), FRAMES, SIZE).min() > 30


class _WithoutNoise:
    """A generator whose pictures have no noise of a sensor."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rng, name)

    def standard_normal(self, *arguments: Any) -> np.ndarray:
        drawn = self.rng.standard_normal(*arguments)
        return 0 * drawn if drawn.ndim == 4 else drawn


def test_motion_is_seen_and_slow_for_the_most_part() -> None:
    moved = [changes(clip_of_kind("pan", np.random.default_rng(n), textures(), FRAMES, SIZE)).mean() for n in range(40)]
    assert np.mean(np.array(moved) > 0.1) > 0.6
    assert np.median(moved) < 0.5 * max(moved)


def test_a_cut_is_one_large_change() -> None:
    found = set()
    for seed in range(200):
        rng = np.random.default_rng(seed)
        pictures = (np.full((3, 64, 64), value, np.uint8) for value in (50, 200))
        try:
            clip = clip_of_kind("cut", rng, pictures, FRAMES, 16)
        except StopIteration:
            continue  # one of its scenes has several pictures
        large = np.flatnonzero(changes(clip) > 100)
        assert len(large) == 1
        found.add(int(large[0]))
    assert found == {0, 1, 2, 3}


def test_a_still_picture_is_still_but_for_noise() -> None:
    kinds = [changes(clip_of_kind("still", np.random.default_rng(n), textures(), FRAMES, SIZE)) for n in range(30)]
    noisy = [bool(change.any()) for change in kinds]
    assert 8 < sum(noisy) < 24
    assert all(change.max() < 10 for change in kinds)


def test_a_clip_follows_from_seed_and_number_alone(photographs: Path) -> None:
    items = list_items([photographs])
    samples, again, other = (ClipCrops(Crops(items, 16, seed=s), [numbered_clip()], 4, moving=0.6) for s in (3, 3, 4))
    read = [samples.read(n).pixels for n in range(16)]
    assert all(pixels.shape == (3, 4, 16, 16) and pixels.dtype == torch.uint8 for pixels in read)
    assert all(torch.equal(again.read(n).pixels, read[n]) for n in reversed(range(16)))
    assert any(not torch.equal(other.read(n).pixels, read[n]) for n in range(16))
    batches = list(batches_of(samples, iter([[0, 1, 2], [3, 4, 5]]), 2, torch.device("cpu")))
    assert torch.equal(torch.cat([batch.pixels for batch in batches]), torch.stack(read[:6]))
    assert batches[0].images(torch.device("cpu")).shape == (3, 3, 4, 16, 16)


def test_real_clips_are_mirrored_and_reversed_half_of_the_time(photographs: Path) -> None:
    samples = ClipCrops(Crops(list_items([photographs]), 40), [numbered_clip()], 4, moving=0.0)
    steps, mirrored = [], []
    for number in range(200):
        pixels = samples.read(number).pixels.int()
        middle = pixels[0, :, 20]
        steps.append(int(middle[1, 20] - middle[0, 20]))
        mirrored.append(bool(middle[0, 0] > middle[0, -1]))
        assert torch.equal(pixels.diff(dim=1), torch.full((3, 3, 40, 40), steps[-1], dtype=torch.int32))
    assert set(steps) == {-30, -20, -10, 10, 20, 30}
    assert 70 < sum(step < 0 for step in steps) < 130
    assert 70 < sum(mirrored) < 130
    assert sum(abs(step) == 10 for step in steps) > 110


def test_the_share_of_made_motion_is_as_asked(photographs: Path) -> None:
    for moving, low, high in ((1.0, 40, 40), (0.5, 10, 30), (0.0, 0, 0)):
        black = LoadedClip("black", torch.zeros(4, 1, 20, 20, dtype=torch.uint8))
        samples = ClipCrops(Crops(list_items([photographs]), 16), [black], 2, moving=moving)
        assert low <= sum(bool(samples.read(n).pixels.any()) for n in range(40)) <= high


def test_held_back_are_the_middles_of_clips_then_moved_photographs(photographs: Path) -> None:
    clip = numbered_clip()
    held = ClipCrops(Crops(list_items([photographs]), 16, augment=False), [clip], 4)
    assert len(held) == 7
    assert torch.equal(held.read(0).pixels, clip.frames[3:7, :, 12:28, 17:33].transpose(0, 1))
    moved = [held.read(n).pixels for n in range(1, 7)]
    assert len({pixels.numpy().tobytes() for pixels in moved}) == 6
    only = ClipCrops(Crops(list_items([photographs]), 16, augment=False), [clip], 4)
    assert torch.equal(only.read(4).pixels, moved[3])


def test_a_short_or_small_clip_is_played_forth_and_back_and_enlarged(photographs: Path) -> None:
    assert forth_and_back(np.arange(8), 3).tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert forth_and_back(np.arange(3), 1).tolist() == [0, 0, 0]
    held = ClipCrops(Crops(list_items([photographs]), 16, augment=False), [numbered_clip(2, 5, 8)], 4)
    assert held.read(0).pixels.shape == (3, 4, 16, 16)
    assert held.read(0).pixels[0, :, 0, 0].tolist() == [0, 10, 0, 10]
    shown_in_training = ClipCrops(Crops(list_items([photographs]), 16), [numbered_clip(1, 5, 8)], 4, moving=0.0)
    assert shown_in_training.read(0).pixels.shape == (3, 4, 16, 16)


def test_grey_clips_have_no_colour_and_made_ones_need_no_photograph(photographs: Path) -> None:
    grey = ClipCrops(Crops(list_items([photographs]), 16), [], 3, grey=1.0)
    assert all((grey.read(n).pixels == grey.read(n).pixels[:1]).all() for n in range(4))
    made = ClipCrops(Crops(list_items([photographs]), 16), [], 3, made=1.0)
    made.photographs.open = None  # type: ignore[assignment,method-assign]
    assert all(made.read(n).pixels.shape == (3, 3, 16, 16) for n in range(4))


def test_unreadable_photographs_are_told_and_others_taken(photographs: Path) -> None:
    (photographs / "0.png").write_text("no image")
    samples = ClipCrops(Crops(list_items([photographs]), 16), [], 2)
    batch = collate([samples[n] for n in range(6)])
    assert len(batch.numbers) == 6
    assert batch.dropped == 0
    assert any("0.png" in text for text in batch.skipped)


def test_identity_tells_clips_lengths_and_shares_apart(photographs: Path) -> None:
    crops = Crops(list_items([photographs]), 16)
    clip = numbered_clip()
    others = [
        ClipCrops(crops, [], 4),
        ClipCrops(crops, [clip], 4),
        ClipCrops(crops, [numbered_clip(9)], 4),
        ClipCrops(crops, [clip], 5),
        ClipCrops(crops, [clip], 4, moving=0.5),
        ClipCrops(crops, [clip], 4, grey=0.5),
    ]
    assert len({samples.identity() for samples in others}) == len(others)


def _write_clip(folder: Path, clip: LoadedClip) -> Path:
    folder.mkdir()
    for number, frame in enumerate(clip.frames):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(folder / f"{number:03d}.png")
    return folder


def test_folders_of_images_are_loaded_as_clips(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = numbered_clip()
    folder = _write_clip(tmp_path / "numbers", clip)
    assert torch.equal(load_clips([folder])[0].frames, clip.frames)
    with monkeypatch.context() as patch:
        patch.setattr(clips_module, "CLIP_BYTES", clip.frames.numel() - 1)
        with pytest.raises(LimitExceeded, match="memory; give fewer"):
            load_clips([folder])
    Image.new("RGB", (3, 3)).save(folder / "011.png")
    with pytest.raises(ImageError, match="frame 11 is 3x3 px"):
        load_clips([folder])


def test_video_files_are_loaded_as_clips(tmp_path: Path) -> None:
    pytest.importorskip("av")
    frames = numbered_clip(4, 5, 6).frames
    pictures = [Picture(frame.numpy()) for frame in frames]
    write_clip(clip_of(pictures, 25), tmp_path / "clip.mkv")
    loaded = load_clips([tmp_path / "clip.mkv", tmp_path / "clip.mkv"])
    assert all(torch.equal(clip.frames, frames) for clip in loaded)
    with pytest.raises(ConfigError, match="does not exist"):
        load_clips([tmp_path / "nothing.mkv"])


@pytest.mark.parametrize("in_memory", [False, True])
def test_settings_give_what_is_trained_on_and_held_back(in_memory: bool, photographs: Path, tmp_path: Path) -> None:
    clip, held = (_write_clip(tmp_path / name, numbered_clip(6)) for name in ("clip", "held"))
    settings = ClipSettings(
        "out", [str(photographs)], 2, clips=[str(clip)], held_clips=[str(held)], in_memory=in_memory
    )
    data = clips_of(settings, 16, 3, 0)
    assert len(data.trained_on) == 5
    assert data.held_back is not None
    assert len(data.held_back) == 3
    assert data.trained_on.read(0).pixels.shape == data.held_back.read(0).pixels.shape == (3, 3, 16, 16)
    assert data.sources == [str(photographs), str(clip), "a share of 0.8 made motion"]
    with pytest.raises(ConfigError, match="is also in clips"):
        ClipSettings("out", [str(photographs)], clips=[str(clip)], held_clips=[str(clip)])
    with pytest.raises(ConfigError, match="holdback"):
        ClipSettings("out", [str(photographs)], 0, held_clips=[str(held)])
    with pytest.raises(ConfigError, match="frames"):
        clips_of(settings, 16, 0, 0)
