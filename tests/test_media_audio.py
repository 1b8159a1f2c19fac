import contextlib
import dataclasses
import random
import subprocess
from fractions import Fraction

import numpy as np
import pytest

from difflate.errors import FormatError, LimitExceeded
from difflate.media import audio
from difflate.media.audio import Sound, SoundPacket
from difflate.media.video import open_clip, write_clip
from video_helpers import made

av = pytest.importorskip("av")
ENCODERS = {"aac": "mp4", "libopus": "webm", "libmp3lame": "mp4", "flac": "mkv", "pcm_s16le": "mkv", "ac3": "mkv"}


def with_sound(path, encoder):
    """A video of a second with sound, by PyAV."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("libvpx-vp9" if path.suffix == ".webm" else "libx264", rate=25)
        video.width, video.height, video.pix_fmt = 16, 16, "yuv420p"
        sound = file.add_stream(encoder, rate=48000, layout="stereo")
        for number in range(25):
            file.mux(video.encode(av.VideoFrame.from_ndarray(np.full((16, 16, 3), 9 * number, np.uint8), "rgb24")))
        wave = np.sin(np.arange(48000) / 20) * 9000
        samples = np.repeat(wave.astype(np.int16), 2)[None]
        frame = av.AudioFrame.from_ndarray(samples, "s16", "stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        for part in av.AudioResampler(sound.format.name, "stereo", 48000, sound.frame_size or 1024).resample(frame):
            file.mux(sound.encode(part))
        file.mux(video.encode(None))
        file.mux(sound.encode(None))
    return path


def packets(path):
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        return [(bytes(p), p.pts * stream.time_base, p.duration) for p in file.demux(stream) if p.size]


@pytest.fixture(scope="module")
def aac(tmp_path_factory):
    return with_sound(tmp_path_factory.mktemp("sound") / "clip.mp4", "aac")


@pytest.mark.parametrize("encoder", ENCODERS)
def test_sound_is_copied_packet_by_packet(encoder, tmp_path):
    path = with_sound(tmp_path / f"clip.{ENCODERS[encoder]}", encoder)
    clip = open_clip(path, audio=True)
    assert list(clip.notes) == []
    sound = audio.from_bytes(clip.audio)
    assert audio.to_bytes(sound) == clip.audio == open_clip(path, audio=True).audio
    assert [(p.data, p.pts * sound.time_base, p.duration) for p in sound.packets] == packets(path)
    copy = tmp_path / f"copy{path.suffix}"
    assert write_clip(clip, copy) == []
    for (data, time, _), (other, other_time, _) in zip(packets(path), packets(copy), strict=True):
        assert data == other
        assert abs(time - other_time) <= Fraction(1, 1000)
    times = [frame.time * clip.time_base for frame in clip.frames]
    back = open_clip(copy)
    assert [frame.time * back.time_base for frame in back.frames] == times


def test_sound_from_before_zero_moves_no_frame(aac, tmp_path):
    clip = open_clip(aac, audio=True)
    assert packets(aac)[0][1] < 0
    assert write_clip(clip, tmp_path / "copy.mkv") == []
    back = open_clip(tmp_path / "copy.mkv")
    assert [frame.time * back.time_base for frame in back.frames] == [Fraction(n, 25) for n in range(25)]
    (before, after) = (packets(path) for path in (aac, tmp_path / "copy.mkv"))
    assert [data for data, *_ in before] == [data for data, *_ in after]
    assert max(abs(a[1] - b[1]) for a, b in zip(before, after, strict=True)) <= Fraction(1, 1000)


def test_sound_of_ffmpeg_plays_again(aac, tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    write_clip(open_clip(aac, audio=True), tmp_path / "copy.mp4")
    waves = []
    for path in (aac, tmp_path / "copy.mp4"):
        command = [ffmpeg, "-v", "error", "-i", str(path), "-f", "s16le", "-"]
        waves.append(subprocess.run(command, check=True, capture_output=True).stdout)
    assert waves[1].startswith(waves[0])  # the padding of the last packet may be longer


def test_sound_that_is_left_out_is_said(aac, tmp_path):
    assert open_clip(aac).audio is None
    assert list(open_clip(aac).notes) == ["its sound is left out"]
    clip = open_clip(aac, audio=True)
    write_clip(clip, tmp_path / "clip.mkv")
    with (tmp_path / "clip.mkv").open("rb") as file:
        assert "read from a stream" in open_clip(file, audio=True).notes[0]
    for suffix in ("webm", "y4m"):
        (note,) = write_clip(clip, tmp_path / f"clip.{suffix}")
        assert f".{suffix} cannot hold its codec" in note
    assert len(tuple(open_clip(tmp_path / "clip.webm").frames)) == 25


def sample():
    rng = random.Random(0)
    packets = [SoundPacket(rng.randbytes(n), 5 * n - 7, 5 * n - 9, n % 3) for n in range(1, 40)]
    return Sound(b"head", Fraction(1, 90000), tuple(packets))


def test_bytes_hold_a_sound():
    assert audio.from_bytes(audio.to_bytes(sample())) == sample()


def test_every_truncation_and_altered_bytes_are_an_error_or_another_sound():
    data = audio.to_bytes(sample())
    for length in range(len(data)):
        with pytest.raises(FormatError):
            audio.from_bytes(data[:length])
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 0x55
        with contextlib.suppress(FormatError, LimitExceeded):
            assert len(audio.from_bytes(bytes(changed)).packets) == 39


def test_sizes_are_checked_before_anything_is_made():
    data = bytearray(audio.to_bytes(sample()))
    data[13:17] = b"\xff\xff\xff\xff"  # bytes of the packets
    with pytest.raises(LimitExceeded):
        audio.from_bytes(bytes(data))


def test_a_damaged_head_is_an_error_and_leaves_no_file(tmp_path):
    clip = dataclasses.replace(made(times=[0]), audio=audio.to_bytes(sample()))
    with pytest.raises(FormatError, match="the sound is damaged"):
        write_clip(clip, tmp_path / "clip.mkv")
    assert list(tmp_path.iterdir()) == []
