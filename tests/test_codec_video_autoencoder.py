"""The codec of clips without diffusion: files that give the same frames however they are cut and tiled."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import difflate
from clip_helpers import moving, pixels
from difflate.codecs.video_autoencoder import VideoAutoencoderCodec
from difflate.errors import ConfigError, ModelError
from difflate.format.stream import read_clip_file
from difflate.generate import load_generator
from difflate.media.picture import Picture
from difflate.models.latent_space import latent_space
from difflate.train.recipes.distil import DistilTraining, teacher_of
from video_autoencoder_helpers import tiny

pytestmark = pytest.mark.usefixtures("one_thread")


def saved(folder: Path, **others: Any) -> Any:
    tiny(**others).save_pretrained(folder)
    return difflate.load(folder)


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return saved(tmp_path_factory.mktemp("models") / "clips")


@pytest.mark.parametrize(("frames", "width", "height", "channels"), [(1, 1, 1, 3), (19, 19, 13, 3), (3, 33, 8, 1)])
def test_any_number_of_frames_of_any_size(
    codec: VideoAutoencoderCodec, frames: int, width: int, height: int, channels: int
) -> None:
    clip = moving(frames, width, height, channels)
    data = codec.encode_clip(clip)
    assert read_clip_file(data).header.codec == 7
    restored = codec.decode_clip(data)
    assert [f.time for f in restored.frames] == [f.time for f in clip.frames]
    assert pixels(restored).shape == (frames, channels, height, width)


@pytest.mark.parametrize("bottleneck", [{}, {"kind": "rounded", "channels": 4, "step": 0.5}])
def test_groups_and_tiles_give_what_the_whole_clip_gives(bottleneck: dict[str, Any], tmp_path: Path) -> None:
    codec = saved(tmp_path / "model", ratio=4, **bottleneck)
    clip, video = moving(36, 400, 16), codec.space.video
    data = codec.encode_clip(clip, tile_px=16)
    assert len(read_clip_file(data).groups) == 3
    whole = torch.from_numpy(pixels(clip)).transpose(0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        coded = video.coded(whole)
        restored = video.restore(video.told(coded.round() if bottleneck else coded))[0].transpose(0, 1)
    expected = ((restored + 1) * 127.5).round().clamp(0, 255).numpy()
    errors = np.abs(pixels(codec.decode_clip(data, tile_px=16)) - expected)
    assert np.mean(errors > 1) < 0.01  # where what is coded lies between two steps, tiles may round it otherwise


def test_options_that_mean_nothing_are_refused(codec: VideoAutoencoderCodec, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="steps"):
        codec.encode_clip(moving(1), steps=3)
    with pytest.raises(ConfigError, match="codes clips, not images"):
        codec.encode(Picture(pixels(moving(1))[0]))
    with pytest.raises(ConfigError, match="`fixed_rate`"):
        saved(tmp_path / "model", kind="rounded", channels=4).encode_clip(moving(1), fixed_rate=True)


def test_what_takes_images_says_so(codec: VideoAutoencoderCodec, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no finite latent space of images"):
        latent_space(codec)
    tiny().save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match=r"kind \(=video-autoencoder\) must be one of"):
        load_generator(tmp_path / "model")
    settings = DistilTraining(out="o", images=["i"], teacher=str(tmp_path / "model"))
    with pytest.raises(ConfigError, match="of the kind video-autoencoder, whose steps cannot be distilled"):
        teacher_of(settings)
