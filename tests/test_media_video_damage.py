import io
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from difflate.errors import ConfigError, ImageError
from difflate.media.video import open_clip, write_clip
from video_helpers import made

av = pytest.importorskip("av")


def read(path):
    return tuple(open_clip(path).frames)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The bytes of a clip in each format."""
    folder, clip = tmp_path_factory.mktemp("clips"), made(height=32, width=48, times=range(12), smooth=True)
    for suffix in ("mp4", "mkv", "webm", "y4m"):
        write_clip(clip, folder / f"clip.{suffix}")
    return {suffix: (folder / f"clip.{suffix}").read_bytes() for suffix in ("mp4", "mkv", "webm", "y4m")}


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "y4m"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_file_that_ends_too_early_is_one_sentence(suffix, share, files, tmp_path):
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(files[suffix][: int(len(files[suffix]) * share)])
    with pytest.raises(
        ImageError, match=r"clip\.\w+: .*; (if it is one, get|get|give a file with one, or) a complete copy"
    ) as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["mkv", "y4m"])
def test_a_stream_that_ends_too_early_is_one_sentence(suffix, files):
    with pytest.raises(ImageError, match="get a complete copy"):
        tuple(open_clip(io.BytesIO(files[suffix][:-100])).frames)


def test_every_altered_packet_of_ffv1_is_found(files, tmp_path):
    path = tmp_path / "clip.mkv"
    path.write_bytes(files["mkv"])
    with av.open(str(path)) as file:
        places = [(packet.pos, packet.size) for packet in file.demux(file.streams.video[0]) if packet.size]
    for number, (place, size) in enumerate(places):
        data = bytearray(files["mkv"])
        data[place + size // 2] ^= 4
        path.write_bytes(data)
        with pytest.raises(ImageError, match=rf"clip.mkv: frame {number} is damaged"):
            read(path)


@pytest.mark.parametrize("options", [{"level": "3", "slicecrc": "0"}, {"level": "3", "slicecrc": "1"}, {"level": "1"}])
def test_ffv1_with_and_without_sums_is_read(options, tmp_path):
    with av.open(str(tmp_path / "clip.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 40, 40, "yuv420p"
        for seed in range(3):
            pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p")))
        file.mux(stream.encode(None))
    assert len(read(tmp_path / "clip.mkv")) == 3


def test_altered_bytes_give_frames_or_one_sentence(files, tmp_path):
    rng = np.random.default_rng(0)
    outcomes = set()
    for suffix, data in files.items():
        for _ in range(25):
            changed = bytearray(data)
            for at in rng.integers(0, len(data), 3):
                changed[at] ^= int(rng.integers(1, 256))
            path = tmp_path / f"clip.{suffix}"
            path.write_bytes(changed)
            try:
                outcomes.add(len(read(path)) > 0)
            except ImageError as error:
                outcomes.add(str(error).startswith(str(path)) and "\n" not in str(error))
    assert outcomes == {True}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.mp4", b"", "the file is empty"),
        ("text.mp4", b"To be or not to be\n" * 50, "is not a video"),
        ("list.mkv", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://localhost/a.ts\n", "is not a video"),
        ("list.mkv", b"ffconcat version 1.0\nfile 'clip.mp4'\n", "is not a video"),
        ("code.mp4", b"\x8fDFL" + bytes(100), "difflate decompress"),
        ("none.y4m", b"YUV4MPEG2 W4 H4 F25:1 Ip A0:0 C444\n", "has no frame"),
    ],
)
def test_what_is_no_clip_is_one_sentence(name, data, message, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        open_clip(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_images_missing_files_and_sound_alone_are_no_clips(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "image.mp4", "PNG")
    with pytest.raises(ImageError, match="it is a PNG image"):
        open_clip(tmp_path / "image.mp4")
    with pytest.raises(ConfigError, match="does not exist"):
        open_clip(tmp_path / "gone.mp4")
    with av.open(str(tmp_path / "sound.mkv"), "w") as file:
        stream = file.add_stream("flac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with pytest.raises(ImageError, match="has no video"):
        open_clip(tmp_path / "sound.mkv")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "has no images"),
        (["1.png", "2.png", "4.png"], "number 3 is missing, after 2.png"),
        (["1.png", "01.png"], "have the same number"),
        (["1.png", "b.png"], "b.png does not end in a number"),
        (["a1.png", "b2.png"], "images named aN.png and bN.png"),
    ],
)
def test_folders_that_are_no_clip_are_one_sentence(names, message, tmp_path):
    for name in names:
        Image.new("L", (4, 4)).save(tmp_path / name)
    with pytest.raises(ImageError, match=message):
        open_clip(tmp_path)


def test_folders_are_sorted_by_number_and_checked_frame_by_frame(tmp_path):
    for number in (9, 10, 11):
        Image.new("RGB", (4, 3), (number, 0, 0)).save(tmp_path / f"shot_{number}.png")
    clip = open_clip(tmp_path, fps=Fraction(24000, 1001))
    assert [int(frame.pixels[0, 0, 0]) for frame in clip.frames] == [9, 10, 11]
    assert (clip.rate, clip.time_base) == (Fraction(24000, 1001), Fraction(1001, 24000))
    Image.new("RGB", (5, 3)).save(tmp_path / "shot_10.png")
    with pytest.raises(ImageError, match=r"shot_10.png: frame 1 is 5x3 px, the first 4x3"):
        tuple(clip.frames)


def test_times_of_avi_with_b_frames_rise_by_one(tmp_path):
    with av.open(str(tmp_path / "clip.avi"), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for seed in range(12):
            pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        file.mux(stream.encode(None))
    clip = open_clip(tmp_path / "clip.avi")
    assert [frame.time * clip.time_base for frame in clip.frames] == [Fraction(n, 25) for n in range(12)]
    assert list(clip.notes) == []


def test_a_size_that_changes_is_one_sentence(tmp_path):
    data = b""
    for width in (32, 48):
        with av.open(str(tmp_path / "part.h264"), "w") as file:
            stream = file.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, 32, "yuv420p"
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, width, 3), np.uint8), "rgb24")))
            file.mux(stream.encode(None))
        data += (tmp_path / "part.h264").read_bytes()
    (tmp_path / "clip.h264").write_bytes(data)
    with pytest.raises(ImageError, match=r"frame 1 is 48x32 px, the first 32x32; scale"):
        read(tmp_path / "clip.h264")


def test_nothing_is_printed(files, tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(files["mp4"][: len(files["mp4"]) // 2])
    code = f"import difflate.media.video as v\ntry: tuple(v.open_clip({str(path)!r}).frames)\nexcept Exception: pass"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.stdout, run.stderr, run.returncode) == ("", "", 0)
