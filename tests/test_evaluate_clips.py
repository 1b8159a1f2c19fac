"""Clips in evaluations: measures over frames and of changes, records, reports, and what is not measured."""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from clip_helpers import moving
from difflate.codecs.base import codec_of_clips
from difflate.codecs.loading import load
from difflate.errors import ConfigError
from difflate.evaluate import evaluate
from difflate.evaluate.journal import Journal
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.clip import Clip, Frame
from difflate.media.picture import Picture
from difflate.media.video import write_clip
from difflate.metrics import clip_sets
from difflate.metrics.clips import Flicker, FrameMean, Running
from difflate.metrics.distortion import psnr
from difflate.metrics.i3d import I3d, load_i3d
from difflate.metrics.vmaf import vmaf
from difflate.options import Options
from fake_codecs import command, save

pytest.importorskip("av")


class Darker:
    """A codec of clips: frame n is n levels too dark, or what ``change`` makes of all frames."""

    name, suffix, quality_range = "darker", ".bin", None
    encoding: type[Options] = Options
    decoding: type[Options] = Options

    def __init__(self, name: str = "darker") -> None:
        self.clip: Clip | None = None

    def encode_clip(
        self, clip: Clip, *, quality: float | None = None, limits: Limits = DEFAULT_LIMITS, **options: Any
    ) -> bytes:
        self.clip = clip.loaded()
        return bytes(100)

    def decode_clip(self, data: bytes, *, limits: Limits = DEFAULT_LIMITS, **options: Any) -> Clip:
        assert self.clip is not None
        return Clip(**{**vars(self.clip), "frames": self.change(list(self.clip.frames))})

    def change(self, frames: list[Frame]) -> Iterable[Frame]:
        return [Frame(frame.pixels - np.uint8(n), frame.time) for n, frame in enumerate(frames)]


class Forgetful(Darker):
    def change(self, frames: list[Frame]) -> Iterable[Frame]:
        return frames[:-1] if len(frames) > 1 else frames


class Faithful(Darker):
    def change(self, frames: list[Frame]) -> Iterable[Frame]:
        return frames


class Corners(torch.nn.Module):
    """In the place of VGG16: the colours of two corners."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images[..., 0, 0], images[..., -1, -1]], dim=1).float()


def film(path: Path, frames: int = 4) -> Path:
    path.parent.mkdir(exist_ok=True)
    write_clip(replace(moving(frames, 64, 66), time_base=Fraction(1, 25)), path)
    return path


def told(measure: Running, *pairs: tuple[int, int]) -> float | None:
    for pair in pairs:
        measure.add(*(Picture(np.full((1, 4, 5), value, np.uint8)) for value in pair))
    return measure.value()


def test_flicker_is_of_changes_alone() -> None:
    assert told(Flicker()) is None
    assert told(Flicker(), (9, 99)) is None
    assert told(Flicker(), (9, 19), (50, 60), (0, 10)) == math.inf  # an error that stands still
    # errors of 0, 3, 0: both changes are 3 off
    assert told(Flicker(), (9, 9), (50, 53), (7, 7)) == pytest.approx(20 * math.log10(255 / 3))


def test_the_psnr_of_a_clip_is_the_mean_over_its_frames_with_an_error() -> None:
    one, two = 20 * math.log10(255), 20 * math.log10(255 / 2)
    assert told(FrameMean(psnr), (5, 6), (5, 5), (5, 7)) == pytest.approx((one + two) / 2)
    assert told(FrameMean(psnr), (5, 5), (6, 6)) == math.inf
    assert told(FrameMean(lambda reference, restored: None), (5, 6)) is None


def test_a_record_of_a_clip(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv")
    (record,) = evaluate([path], "darker", load=Darker)
    assert record.error is None
    assert (record.width, record.height, record.frames, record.bytes) == (64, 66, 4, 100)
    assert record.values["bpp"] == pytest.approx(800 / (64 * 66 * 4))
    assert record.values["ratio"] == pytest.approx(64 * 66 * 4 * 3 / 100)
    assert record.values["kbit_s"] == pytest.approx(0.8 / 4 * 25)
    expected = [20 * math.log10(255 / n) for n in (1, 2, 3)]  # the first frame has no error
    assert record.values["psnr"] == pytest.approx(np.mean(expected))
    assert record.values["flicker"] == pytest.approx(20 * math.log10(255))
    assert "ssimulacra2" not in record.values
    assert not record.lossless
    assert {"clip": "a.mkv", "frames": 4, "vmaf": None}.items() <= record.to_json().items()
    (perfect,) = evaluate([path], "faithful", load=Faithful)
    assert perfect.lossless


def test_what_is_not_measured_is_said(tmp_path: Path) -> None:
    path, image = film(tmp_path / "a.mkv"), save(tmp_path / "b.png")
    assert "fewer than the 3" in str(evaluate([path], "forgetful", load=Forgetful)[0].error)
    assert "png codes images, not clips" in str(evaluate([path], "png")[0].error)
    assert "avc codes clips, not images" in str(evaluate([image], "avc")[0].error)
    with pytest.raises(ConfigError, match=r"a\.mkv is a clip and b\.png an image; evaluate images and clips apart"):
        evaluate([path, image], "avc")
    with pytest.raises(ConfigError, match="vmaf"):
        evaluate([image], "png", also={"vmaf": None})
    (tmp_path / "c.mp4").write_bytes(b"no clip at all")
    assert "is not a video" in str(evaluate([tmp_path / "c.mp4"], "avc")[0].error)


def test_a_run_on_a_folder_of_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(2):
        film(tmp_path / "clips" / f"{i}.mkv", 2 + i)
    codecs = "avc+preset=ultrafast:20..50..10,avc:20..50..10"
    words = ["--codecs", codecs, "--anchor", "avc", "--out", tmp_path / "report"]
    (tmp_path / "clips").joinpath("notes.txt").touch()
    _, code = command("eval", tmp_path / "clips", *words)
    assert code == 0
    out = capsys.readouterr().out
    assert out.startswith("| setting | clips | bpp | kbit/s | ratio | PSNR dB |")
    assert "BD-rate against avc" in out
    result = json.loads((tmp_path / "report" / "results.json").read_text())
    assert [record["frames"] for record in result["records"]] == [2] * 8 + [3] * 8
    assert result["means"][0]["clips"] == 2
    assert "ssimulacra2" not in result["protocol"]["definitions"]
    assert isinstance(result["bd_rate_percent"]["avc+preset=ultrafast"]["psnr"], float)
    assert "2 clips. Means per codec setting" in (tmp_path / "report" / "results.md").read_text()


def test_records_of_clips_are_taken_over_with_what_is_infinite_or_not_there(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", 1)
    (first,) = evaluate([path], "faithful", load=Faithful, journal=Journal(tmp_path / "journal"))
    assert (first.values["psnr"], first.values["flicker"]) == (math.inf, None)
    journal = Journal(tmp_path / "journal")
    assert evaluate([path], "faithful", load=Faithful, journal=journal) == [first]
    assert journal.reused == 1


def test_learned_codecs_of_images_are_measured_frame_by_frame(tmp_path: Path) -> None:
    (record,) = evaluate([film(tmp_path / "a.mkv", 2)], "opq-32-8-8")
    assert record.error is None
    assert codec_of_clips(load("opq-32-8-8"))
    assert 20 < record.values["psnr"] < 50  # type: ignore[operator]


def test_vmaf_falls_with_noise_and_has_a_least_size() -> None:
    try:
        make = vmaf()
    except ConfigError:
        pytest.skip("no ffmpeg with libvmaf")
    random = np.random.default_rng(0)
    clip = moving(3, 96, 80)
    values = []
    for spread in (0, 30, 90):
        measure = make()
        for frame in clip.frames:
            noise = random.integers(-spread, spread + 1, frame.pixels.shape)
            measure.add(Picture(frame.pixels), Picture((frame.pixels + noise).clip(0, 255).astype(np.uint8)))
        values.append(measure.value())
    assert values[0] > 90
    assert values == sorted(values, reverse=True)
    small = make()
    small.add(Picture(np.zeros((3, 31, 40), np.uint8)), Picture(np.zeros((3, 31, 40), np.uint8)))
    assert small.value() is None


def test_i3d_has_the_published_size_and_refuses_other_weights(tmp_path: Path) -> None:
    with torch.device("meta"):
        network = I3d()
    assert sum(weights.numel() for weights in network.parameters()) == 12_697_264
    weights = {key: torch.zeros(value.shape) for key, value in network.state_dict().items()}
    for key in weights:
        weights[key] += key.endswith("running_var")
    weights["logits.conv3d.bias"] += torch.arange(400)
    save_file(weights, tmp_path / "i3d.safetensors")
    clips = torch.rand(1, 3, 9, 224, 224)
    loaded = load_i3d(tmp_path / "i3d.safetensors")
    assert torch.equal(loaded(clips)[0], torch.arange(400.0))
    with pytest.raises(ConfigError, match="must be"):
        loaded(clips[:, :, :8])
    del weights["Mixed_4c.b0.conv3d.weight"]
    save_file(weights, tmp_path / "i3d.safetensors")
    with pytest.raises(ConfigError, match="Mixed_4c"):
        load_i3d(tmp_path / "i3d.safetensors")
    (tmp_path / "pickle").write_bytes(b"\x80\x04.")
    with pytest.raises(ConfigError, match="not a safetensors file"):
        load_i3d(tmp_path / "pickle")


@pytest.mark.slow
def test_table_7_has_printed_and_own_values_and_table_6_the_codecs_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clip_sets, "vgg16", Corners)
    for i in range(2):
        film(tmp_path / "clips" / f"{i}.mkv", 3 + i)
    _, code = command("reproduce", "diffae-table7", "--clips", tmp_path / "clips", "--every", "1", "--json")
    assert code == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["ratio_printed"] for row in rows] == [132, 219, 393, 672, 1159]
    for key, falls in (("ratio", False), ("psnr", True), ("flicker", True)):
        values = [row[key] for row in rows]
        assert values == sorted(values, reverse=falls), key
    assert all(row["frechet-vgg16-frames"] > 0 < row["frechet-vgg16-motion"] for row in rows)
    assert rows[0]["frechet-vgg16-frames"] < rows[-1]["frechet-vgg16-frames"]
    assert [row["fvd"] for row in rows] == [None] * 5
    words = ["--clips", tmp_path / "clips", "--models", "4=avc:30", "avc+preset=fast:30"]
    command("reproduce", "diffae-table6", *words)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 7
    assert lines[3].startswith("| temporal compression 4 | ")
    assert "–" in lines[2]
    assert lines[8].startswith("| avc+preset=fast:30 | ")
    with pytest.raises(ConfigError, match="png codes images, not clips"):
        command("reproduce", "diffae-table6", "--clips", tmp_path / "clips", "--models", "png")
