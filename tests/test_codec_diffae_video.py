"""The codec of clips: files that give the same frames however they are cut, tiled and read."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import difflate
from difflate.codecs.diffae_video import DiffaeVideoCodec
from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError, FormatError, ModelError
from difflate.format.stream import read_clip_file
from difflate.media.clip import Clip, clip_of
from difflate.media.picture import Picture
from difflate.models.bottlenecks import BottleneckConfig
from difflate.models.diffusion_autoencoder import LatentDecoderConfig
from difflate.models.video_diffusion_autoencoder import VideoDiffusionAutoencoder
from difflate.nn.encoders import ConvConfig
from difflate.nn.folding import FoldingConfig
from difflate.nn.unet import UNetConfig
from nn_helpers import alive

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPE = ConvConfig((8, 8, 8), (0, 1, 0), 4)


def model_of(
    temporal: str = "conv", ratio: int = 2, folding: str = "fold", **bottleneck: object
) -> VideoDiffusionAutoencoder:
    torch.manual_seed(0)
    network = UNetConfig(
        widths=(8, 8), blocks=(1, 1), patch=4, temporal=temporal, head_width=8, attention=("none", "full")
    )
    model = VideoDiffusionAutoencoder(
        SHAPE, BottleneckConfig(**(bottleneck or {"levels": (4, 5, 8)})), FoldingConfig(ratio, folding, 6, 8), SHAPE,
        LatentDecoderConfig(steps=2, dropped=0.1), network, ProcessConfig(target="v"),
    )  # fmt: skip
    return alive(model).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("models") / "video"
    model_of().save_pretrained(found)
    return found


@pytest.fixture(scope="module")
def codec(folder: Path) -> DiffaeVideoCodec:
    return difflate.load(folder)


def moving(frames: int, height: int = 37, width: int = 50, channels: int = 3) -> Clip:
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (channels, height + 8, width + 40), dtype=np.uint8)
    return clip_of([Picture(picture[:, 2 : 2 + height, i : i + width]) for i in range(frames)], Fraction(30000, 1001))


def pixels_of(clip: Clip) -> np.ndarray:
    return np.stack([frame.pixels for frame in clip.frames])


@pytest.mark.parametrize(("frames", "height", "width", "channels"), [(1, 1, 1, 3), (9, 37, 50, 3), (3, 16, 33, 1)])
def test_any_number_of_frames_of_any_size(
    codec: DiffaeVideoCodec, frames: int, height: int, width: int, channels: int
) -> None:
    clip = moving(frames, height, width, channels)
    data = codec.encode_clip(clip)
    for steps in (0, 1):
        restored = codec.decode_clip(data, steps=steps)
        assert (restored.rate, restored.time_base) == (clip.rate, clip.time_base)
        assert [f.time for f in restored.frames] == [f.time for f in clip.frames]
        assert pixels_of(restored).shape == (frames, channels, height, width)
    assert np.array_equal(pixels_of(restored), pixels_of(restored))  # gone through again


def test_groups_give_what_the_whole_clip_gives(codec: DiffaeVideoCodec) -> None:
    clip, model = moving(20, 32, 48), codec.model
    file = read_clip_file(codec.encode_clip(clip, steps=1))
    found = [np.stack([frame.grid for frame in latent.frames]) for latent, _ in codec.read_latents(file)]
    assert [len(part) for part in found] == [4, 4, 2]
    whole = torch.from_numpy(pixels_of(clip)).transpose(0, 1)[None].float() / 127.5 - 1
    coded = model.autoencoder.coded(whole)
    assert np.array_equal(np.concatenate(found), coded[0].transpose(0, 1).numpy())
    told = model.autoencoder.told(coded)
    expected = ((model.restore(told, 0).detach()[0].transpose(0, 1) + 1) * 127.5).round().clamp(0, 255)
    restored = pixels_of(codec.decode_clip(codec.encode_clip(clip), steps=0))
    assert np.abs(restored - expected.numpy()).max() <= 1


def test_tiles_and_noise_do_not_depend_on_each_other(codec: DiffaeVideoCodec) -> None:
    clip = moving(5, 48, 400)
    data = codec.encode_clip(clip)
    whole, tiled = (pixels_of(codec.decode_clip(data, steps=2, tile_px=side)).astype(int) for side in (896, 16))
    assert np.abs(whole - tiled).max() <= 2
    other = pixels_of(codec.decode_clip(data, steps=2, seed=1)).astype(int)
    assert np.abs(whole - other).max() > 2


def test_the_fixed_rate_is_the_planes(codec: DiffaeVideoCodec) -> None:
    fixed, coded = (codec.encode_clip(moving(8), fixed_rate=rate) for rate in (True, False))
    assert np.array_equal(pixels_of(codec.decode_clip(fixed)), pixels_of(codec.decode_clip(coded)))
    (group,) = read_clip_file(fixed).groups
    planes = [-(-3 * 4 * bits // 8) for bits in (2, 3, 3)]  # of 3x4 sites
    assert len(group) == 1 + 4 * sum(planes)


def test_hints_are_kept_and_options_checked(codec: DiffaeVideoCodec) -> None:
    data = codec.encode_clip(moving(2), steps=1, seed=7)
    assert np.array_equal(
        pixels_of(codec.decode_clip(data)), pixels_of(codec.decode_clip(codec.encode_clip(moving(2)), steps=1, seed=7))
    )
    with pytest.raises(ConfigError, match="text"):
        codec.encode_clip(moving(1), text="a cat")
    with pytest.raises(ConfigError, match="codes clips, not images"):
        codec.encode(Picture(moving(1).loaded().frames[0].pixels))


def test_another_model_and_damage_are_told(codec: DiffaeVideoCodec, tmp_path: Path) -> None:
    data = codec.encode_clip(moving(9))
    model_of(levels=(4, 4, 4)).save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="written with model"):
        difflate.load(tmp_path / "other").decode_clip(data)
    for stop in range(0, len(data), 7):
        with pytest.raises(FormatError):
            codec.decode_clip(data[:stop])
    last = len(read_clip_file(data).groups[-1])
    salvaged = codec.decode_clip(data[: -last - 6], salvage=True)
    kept = pixels_of(salvaged)
    assert 0 < len(kept) < 9
    assert np.array_equal(kept, pixels_of(codec.decode_clip(data))[: len(kept)])


@pytest.mark.parametrize(
    ("temporal", "kind", "bottleneck"),
    [
        ("attention", "fold", {}),
        ("conv", "mean", {}),
        ("conv", "fold", {"kind": "rounded", "channels": 4, "step": 0.5}),
        ("conv", "fold", {"kind": "rounded", "channels": 4, "step": 0.5, "hyperprior": 4}),
    ],
)
def test_other_models_too(temporal: str, kind: str, bottleneck: dict, tmp_path: Path) -> None:
    model = model_of(temporal, 4, kind, **bottleneck)
    model.save_pretrained(tmp_path / "model")
    codec = difflate.load(tmp_path / "model")
    restored = codec.decode_clip(codec.encode_clip(moving(9)), steps=1)
    assert pixels_of(restored).shape == (9, 3, 37, 50)
